/* reply: what a good node answers, and its variants: a chat completion, or
 * the same as a stream when the request says "stream":true. A request whose
 * body holds canary-WORD gets it back in the text.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FAULT_REPLY_H
#define FAULT_REPLY_H

#include <ctype.h>

#include "conn.h"

static const char json_head[] = "Content-Type: application/json\r\n"
  "X-Request-Id: req_1\r\nX-Secret: no\r\n";

/* Bodies that are no reply, and chunks that are no chunk, by name. */
static const struct named { const char *name, *text; } odd_json[] = {
  { "object",    "{}" },
  { "empty",     "" },
  { "array",     "[]" },
  { "number",    "7" },
  { "nochoices", "{\"choices\":[]}" },
  { "choices",   "{\"choices\":{}}" },
  { "choicestr", "{\"choices\":\"x\"}" },
  { "choice",    "{\"choices\":[7]}" },
  { "message",
    "{\"choices\":[{\"index\":0,\"message\":\"x\",\"delta\":\"x\"}]}" },
  { "null",
    "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":null},\"delta\":{\"content\":null},"
    "\"finish_reason\":\"stop\"}]}" },
  { "content",
    "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":{}},\"delta\":{\"content\":{}}}]}" },
  { "tools",
    "{\"id\":\"chat_1\",\"object\":\"chat.completion\",\"created\":1,"
    "\"model\":\"fault\",\"choices\":[{\"index\":0,\"message\":{"
    "\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
    "\"index\":0,\"id\":\"c1\",\"type\":\"function\",\"function\":{"
    "\"name\":\"f\",\"arguments\":\"{}\"}}]},\"delta\":{"
    "\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"c1\","
    "\"type\":\"function\",\"function\":{\"name\":\"f\","
    "\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}" },
  { "broken",    "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x" },
};

static const struct named usages[] = {
  { "zero",     "{\"prompt_tokens\":0,\"completion_tokens\":0,"
                "\"total_tokens\":0}" },
  { "huge",     "{\"prompt_tokens\":9223372036854775808,"
                "\"completion_tokens\":1e300,\"total_tokens\":1e308}" },
  { "negative", "{\"prompt_tokens\":-3,\"completion_tokens\":-5,"
                "\"total_tokens\":-8}" },
  { "string",   "\"x\"" },
  { "strings",  "{\"prompt_tokens\":\"3\",\"completion_tokens\":{},"
                "\"total_tokens\":[]}" },
  { "null",     "null" },
};


/* The text of the row that the option names; `otherwise` when none. */
static const char *named(const struct named *row, size_t count,
                         const struct conn *c, const char *key,
                         const char *otherwise) {
  for (; count--; row++)
    if (is_word(c, key, row->name))
      return row->text;
  return otherwise;
}

#define NAMED(table, c, key, otherwise) \
  named(table, sizeof table / sizeof *table, c, key, otherwise)


static const char *usage_of(const struct conn *c) {
  return NAMED(usages, c, "usage", "{\"prompt_tokens\":3,"
               "\"completion_tokens\":5,\"total_tokens\":8}");
}


/* What the path says in ;say=HEX, or "canary-WORD" of the request's body, or
 * NULL; `room` bytes of it at most. */
static const char *canary(const struct conn *c, char *to, size_t room) {
  struct bytes said = { 0 };
  if (option(c, "say")) {
    put_hex(&said, option(c, "say"));
    snprintf(to, room, "%s", said.data ? said.data : "");
    free(said.data);
    return to;
  }
  const char *body = c->in.data + c->head_size;
  const char *at = memmem(body, c->body_size, "canary-", 7);
  if (!at)
    return NULL;
  size_t n = 7, left = (size_t)(body + c->body_size - at);
  while (n < left && n + 1 < room && (isalnum((unsigned char)at[n])
                                      || at[n] == '_'))
    n++;
  memcpy(to, at, n);
  to[n] = '\0';
  return to;
}


/* Status line and headers; `size` < 0: no Content-Length. */
static void head(struct conn *c, int status, const char *headers, long size) {
  const char *hex = option(c, "hex");
  sayf(&c->out, "HTTP/1.1 %d Status\r\n", status);
  if (size >= 0)
    sayf(&c->out, "Content-Length: %ld\r\n", size);
  say(&c->out, headers);
  if (hex)
    put_hex(&c->out, hex);
  say(&c->out, "\r\n");
}


static void reply(struct conn *c, int status, const char *headers,
                  const char *body, size_t size) {
  head(c, status, headers, (long)size);
  put(&c->out, body, size);
}


/* ---- a completion ---- */

static void chat(struct conn *c) {
  char mark[128], body[2048];
  const char *text = canary(c, mark, sizeof mark);
  const char *odd = NAMED(odd_json, c, "json", NULL);
  const char *usage = usage_of(c);
  int n = odd ? snprintf(body, sizeof body, "%s", odd)
    : snprintf(body, sizeof body,
      "{\"id\":\"chat_1\",\"object\":\"chat.completion\",\"created\":1,"
      "\"model\":\"fault\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
      "\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}]%s%s}",
      text ? text : "hello from the fault server",
      is_word(c, "usage", "none") ? "" : ",\"usage\":",
      is_word(c, "usage", "none") ? "" : usage);
  reply(c, 200, json_head, body, (size_t)n);
  c->events++;
}


/* ---- a stream ---- */

static void chunk(struct conn *c, const char *text, size_t size) {
  sayf(&c->out, "%zx\r\n", size);
  put(&c->out, text, size);
  say(&c->out, "\r\n");
}


static void chunk_text(struct conn *c, const char *text) {
  chunk(c, text, strlen(text));
}


#define CHUNK_FRONT "data: {\"id\":\"chat_1\",\"object\":" \
  "\"chat.completion.chunk\",\"created\":1,\"model\":\"fault\",\"choices\":["

static void stream_event(struct conn *c, long k, long size) {
  struct bytes b = { 0 };
  char mark[128];
  const char *text = k == 1 ? canary(c, mark, sizeof mark) : NULL;
  say(&b, CHUNK_FRONT "{\"index\":0,\"delta\":{\"content\":\"");
  if (text)
    sayf(&b, "%s ", text);
  else
    sayf(&b, "w%ld ", k);
  fill(&b, 'x', (size_t)size);
  say(&b, "\"}}]}\n\n");
  chunk(c, b.data, b.size);
  free(b.data);
  c->events++;
}


static void stream_head(struct conn *c) {
  static const char type[] = "Content-Type: text/event-stream\r\n"
    "Transfer-Encoding: chunked\r\n";
  head(c, 200, type, -1);
}


static void stream_role(struct conn *c) {
  chunk_text(c, CHUNK_FRONT "{\"index\":0,\"delta\":{\"role\":\"assistant\","
             "\"content\":\"\"},\"finish_reason\":null}]}\n\n");
}


/* The parts behind the content, as far as they are wanted. */
static void stream_end(struct conn *c, int with_usage) {
  char usage[512];
  snprintf(usage, sizeof usage, "data: {\"id\":\"chat_1\",\"object\":"
           "\"chat.completion.chunk\",\"created\":1,\"model\":\"fault\","
           "\"choices\":[],\"usage\":%s}\n\n", usage_of(c));
  if (!option(c, "nofinish"))
    chunk_text(c, CHUNK_FRONT "{\"index\":0,\"delta\":{},"
               "\"finish_reason\":\"stop\"}]}\n\n");
  if (with_usage && !is_word(c, "usage", "none"))
    chunk_text(c, usage);
  if (!option(c, "nodone"))
    chunk_text(c, "data: [DONE]\n\n");
  if (!option(c, "nozero"))
    say(&c->out, "0\r\n\r\n");
}

#endif
