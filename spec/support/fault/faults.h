/* faults: a row each: its name in the path, and the steps of its answer. A
 * step appends to c->out, may set a wait, and says what follows.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FAULT_FAULTS_H
#define FAULT_FAULTS_H

#include "reply.h"

/* Go on after `ms`. */
static void pause_ms(struct conn *c, long ms);


/* ---- good, and what happens in the middle of a stream ---- */

static const char *const mids[] = { "hold", "cut", "rst", "ping", "badjson",
                                    "error", "badchunk", "half", "json",
                                    "flood", NULL };


static int error_event(struct conn *c) {
  char text[512], code[64];
  snprintf(text, sizeof text, "event: error\ndata: {\"error\":{\"message\":"
           "\"fault in the stream\",\"type\":\"%s\",\"code\":%ld}}\n\n",
           word(c, "type", code, sizeof code, "overloaded_error"),
           number(c, "error", 529));
  chunk_text(c, text);
  say(&c->out, "0\r\n\r\n");
  return KEEP;
}


static int odd_event(struct conn *c) {
  chunk_text(c, "data: ");
  chunk_text(c, NAMED(odd_json, c, "json", "{\"choices\":["));
  chunk_text(c, "\n\n");
  stream_end(c, 1);
  return option(c, "nozero") ? SHUT : KEEP;
}


/* The place that ;after= names has been reached. */
static int middle(struct conn *c) {
  if (option(c, "hold")) return HOLD;
  if (option(c, "cut")) return SHUT;
  if (option(c, "rst")) return RESET;
  if (option(c, "error")) return error_event(c);
  if (option(c, "badjson") || option(c, "json")) return odd_event(c);
  if (option(c, "badchunk")) {
    say(&c->out, "FFFFFFFFFFFFFFFFF\r\nx");
    return SHUT;
  }
  if (option(c, "half")) {          /* a code point cut in two, then the end */
    chunk_text(c, CHUNK_FRONT "{\"index\":0,\"delta\":{\"content\":\"\xe2\x82");
    chunk_text(c, "\"}}]}\n\n");
    stream_end(c, 1);
    return KEEP;
  }
  if (option(c, "flood")) {         /* an event that never ends */
    c->i--;
    fill(&c->out, 'x', PIECE);
    return MORE;
  }
  c->i--;                           /* pings for ever */
  chunk_text(c, ": ping\n\n");
  pause_ms(c, number(c, "ping", 1));
  return MORE;
}


/* Parts: head, role, content 1..n, end; `sse` leaves role and usage out. */
static int step_stream(struct conn *c) {
  long count = number(c, "sse", number(c, "n", 3));
  long after = number(c, "after", count), k = c->i++ - 1;
  int plain = option(c, "sse") != NULL, mid = 0;
  for (int m = 0; mids[m]; m++)
    mid |= option(c, mids[m]) != NULL;
  if (k < 0) {
    stream_head(c);
    return MORE;
  }
  if (k == 0) {
    if (!plain)
      stream_role(c);
    return MORE;
  }
  if (mid && k > after)
    return middle(c);
  if (k <= count) {
    stream_event(c, k, number(c, "size", 0));
    if (k < count)
      pause_ms(c, number(c, "gap", 0));
    return MORE;
  }
  stream_end(c, !plain);
  return option(c, "nozero") ? SHUT : KEEP;
}


static int good(struct conn *c) {
  if (c->stream || option(c, "sse"))
    return step_stream(c);
  chat(c);
  return KEEP;
}


/* A first wait, then good. */
static int step_ok(struct conn *c) {
  long ms = number(c, "delay", 0);
  if (ms && c->turn >= 0) {
    c->turn = -1;                   /* it is over */
    pause_ms(c, ms);
    return MORE;
  }
  int verdict = good(c);
  return verdict == KEEP && option(c, "shut") ? SHUT : verdict;
}


/* All of a good reply, in c->whole. */
static void make_whole(struct conn *c) {
  int verdict = MORE;
  while (verdict == MORE)
    verdict = good(c);
  c->whole = c->out;
  c->due_ns = 0;
  memset(&c->out, 0, sizeof c->out);
}


/* The first so many bytes, then what `then` says. */
static int part(struct conn *c, long keep, int then) {
  make_whole(c);
  if (keep < 0 || (size_t)keep > c->whole.size)
    keep = (long)c->whole.size;
  put(&c->out, c->whole.data, (size_t)keep);
  return then;
}


/* K, or `turn`: one byte further each time. */
static long cut_at(const struct conn *c, const char *key) {
  return is_word(c, key, "turn") ? c->turn / number(c, "every", 1)
                                 : number(c, key, 0);
}


static int step_reset(struct conn *c) {
  return part(c, cut_at(c, "reset"), RESET);
}


static int step_close(struct conn *c) {
  return part(c, cut_at(c, "close"), SHUT);
}


/* ;stall=K: K bytes and no more. */
static int step_stall(struct conn *c) {
  return part(c, number(c, "stall", 0), HOLD);
}


/* One byte at a time. */
static int step_drip(struct conn *c) {
  if (!c->whole.data) {
    make_whole(c);
    c->i = 0;
  }
  if ((size_t)c->i >= c->whole.size)
    return KEEP;
  put(&c->out, c->whole.data + c->i++, 1);
  pause_ms(c, number(c, "drip", 1));
  return MORE;
}


/* The first request of a connection is answered, the second is read only. */
static int step_die(struct conn *c) {
  if (c->requests > 1)
    return option(c, "rst") ? RESET : SHUT;
  chat(c);
  return KEEP;
}


/* ---- statuses ---- */

/* ra=TEXT is the Retry-After; ra=long one of 8 KiB. body=HEX: that instead. */
static int step_status(struct conn *c) {
  struct bytes h = { 0 }, b = { 0 };
  char text[256];
  long code = number(c, "status", 500);
  say(&h, json_head);
  if (is_word(c, "ra", "long")) {
    say(&h, "Retry-After: ");
    fill(&h, '9', 8192);
    say(&h, "\r\n");
  } else if (option(c, "ra")) {
    sayf(&h, "Retry-After: %s\r\n", word(c, "ra", text, sizeof text, ""));
  }
  if (option(c, "body")) {
    put_hex(&b, option(c, "body"));
  } else {
    sayf(&b, "{\"error\":{\"message\":\"fault %ld\",", code);
    sayf(&b, "\"type\":\"%s\",", word(c, "type", text, sizeof text, "fault"));
    sayf(&b, "\"code\":\"%s\"}}", word(c, "code", text, sizeof text, "fault"));
  }
  reply(c, (int)code, h.data, b.data ? b.data : "", b.size);
  free(h.data);
  free(b.data);
  return KEEP;
}


/* error200=S: status 200, and an error of status S in its place. */
static int step_error200(struct conn *c) {
  char body[256];
  int n = snprintf(body, sizeof body, "{\"error\":{\"message\":\"inside\","
                   "\"code\":%ld}}", number(c, "error200", 500));
  if (c->stream) {
    stream_head(c);
    chunk_text(c, "data: ");
    chunk_text(c, body);
    chunk_text(c, "\n\n");
    say(&c->out, "0\r\n\r\n");
  } else {
    reply(c, 200, json_head, body, (size_t)n);
  }
  return KEEP;
}


/* The Location may be this port (spoken as `redirect=PORT`). */
static int step_redirect(struct conn *c) {
  char headers[128];
  snprintf(headers, sizeof headers,
           "Location: http://127.0.0.1:%ld/stolen\r\n",
           number(c, "redirect", 1));
  reply(c, (int)number(c, "status", 307), headers, "", 0);
  return KEEP;
}


/* ---- large and endless ---- */

static int step_huge(struct conn *c) {
  long left = number(c, "huge", 0) - (c->i - 1) * PIECE;
  if (c->i++ == 0) {
    sayf(&c->out, "HTTP/1.1 %ld OK\r\nContent-Type: text/plain\r\n%s\r\n",
         number(c, "status", 200),
         option(c, "close") ? "" : "Connection: close\r\n");
    return MORE;
  }
  fill(&c->out, 'x', left < PIECE ? (size_t)(left > 0 ? left : 0) : PIECE);
  return left <= PIECE ? SHUT : MORE;
}


/* One event of 256 MiB. */
static int step_endless(struct conn *c) {
  if (c->i++ == 0)
    say(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        "data: ");
  fill(&c->out, 'x', PIECE);
  return c->i > 4096 ? SHUT : MORE;
}


static int step_lines(struct conn *c) {
  say(&c->out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
  for (long i = 0; i < number(c, "lines", 0); i++) {
    say(&c->out, "X-Fill: ");
    fill(&c->out, 'x', (size_t)number(c, "size", 8));
    say(&c->out, "\r\n");
  }
  say(&c->out, "\r\n");
  return KEEP;
}


static int step_interim(struct conn *c) {
  for (long i = 0; c->i == 0 && i < number(c, "interim", 0); i++)
    say(&c->out, "HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n");
  return good(c);
}


/* ---- bytes as they are ---- */

static int step_raw(struct conn *c) {
  put_hex(&c->out, option(c, "raw"));
  return option(c, "hold") ? HOLD : option(c, "rst") ? RESET : SHUT;
}


static int step_echo(struct conn *c) {
  reply(c, 200, json_head, c->in.data + c->head_size, c->body_size);
  return KEEP;
}


static int step_seen(struct conn *c) {
  reply(c, 200, json_head, c->in.data, c->head_size);
  return KEEP;
}


static int step_html(struct conn *c) {
  reply(c, 200, "Content-Type: text/html\r\n", "<html>", 6);
  return KEEP;
}


static int step_gzip(struct conn *c) {
  static const char head5[] =
    "Content-Encoding: gzip, gzip, gzip, gzip, gzip\r\n";
  reply(c, 200, option(c, "five") ? head5 : "Content-Encoding: gzip\r\n",
        "\x1f", 1);
  return KEEP;
}


/* A whole reply though a stream was asked for. */
static int step_json(struct conn *c) {
  chat(c);
  return KEEP;
}


static int step_canned(struct conn *c, const char *text) {
  say(&c->out, text);
  return SHUT;
}


static int step_junk(struct conn *c) {
  return step_canned(c, "SSH-2.0-junk\r\n");
}


static int step_short(struct conn *c) {
  return step_canned(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour");
}


static int step_long(struct conn *c) {
  return step_canned(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour+");
}


/* Good but for its Content-Length, which is off by so many bytes. */
static int step_length(struct conn *c) {
  struct bytes body = { 0 };
  if (c->stream) {
    say(&body, CHUNK_FRONT "{\"index\":0,\"delta\":{\"content\":\"w\"}}]}\n\n"
        CHUNK_FRONT "{\"index\":0,\"delta\":{},"
        "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
  } else {
    chat(c);
    say(&body, strstr(c->out.data, "\r\n\r\n") + 4);
    c->out.size = 0;
  }
  head(c, 200, c->stream ? "Content-Type: text/event-stream\r\n" : json_head,
       (long)body.size + number(c, "length", 0));
  put(&c->out, body.data, body.size);
  free(body.data);
  return SHUT;
}


/* badchunk: a size past 64 bits; badchunk=zz: no number; badchunk=ext: an
 * extension of 64 KiB; badchunk=max: the largest size. ;after= and a stream:
 * in the middle of it. */
static int step_badchunk(struct conn *c) {
  if (option(c, "after"))
    return good(c);
  say(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  if (is_word(c, "badchunk", "ext")) {
    say(&c->out, "1;");
    fill(&c->out, 'x', 65536);
    say(&c->out, "\r\nx\r\n0\r\n\r\n");
    return KEEP;                    /* HTTP allows it */
  }
  say(&c->out, is_word(c, "badchunk", "zz") ? "zz\r\nx\r\n"
      : is_word(c, "badchunk", "max") ? "FFFFFFFFFFFFFFFF\r\nx"
      : "FFFFFFFFFFFFFFFFF\r\nx");
  return SHUT;
}


/* The first that the path names wins. */
static const struct fault {
  const char *name;
  int (*step)(struct conn *c);
} faults[] = {
  { "echo", step_echo }, { "seen", step_seen }, { "huge", step_huge },
  { "redirect", step_redirect }, { "status", step_status },
  { "error200", step_error200 }, { "reset", step_reset },
  { "raw", step_raw }, { "close", step_close }, { "stall", step_stall },
  { "drip", step_drip }, { "lines", step_lines },
  { "interim", step_interim }, { "die", step_die }, { "junk", step_junk },
  { "html", step_html }, { "gzip", step_gzip }, { "whole", step_json },
  { "short", step_short }, { "long", step_long }, { "length", step_length },
  { "badchunk", step_badchunk }, { "endless", step_endless },
  { "ok", step_ok },
};

enum { FAULTS = sizeof faults / sizeof *faults };


/* first=N: the fault comes the first N times, then good replies. flap=N: N
 * times the fault, N times good, and so on. every=N: each Nth time. share=P: P
 * of 100 times. */
static int is_good_turn(const struct conn *c, long turn) {
  long first = number(c, "first", -1), flap = number(c, "flap", 0);
  long share = number(c, "share", 100), every = number(c, "every", 1);
  if ((first >= 0 && turn >= first) || turn % every)
    return 1;
  if (flap > 0 && turn / flap % 2)
    return 1;
  uint32_t mixed = (uint32_t)turn * 2654435761u + 12345u;
  return (mixed >> 8) % 100 >= (uint32_t)share;
}


static int (*fault_step(const struct conn *c, long turn))(struct conn *) {
  if (is_good_turn(c, turn))
    return good;
  for (int i = 0; i < FAULTS; i++)
    if (option(c, faults[i].name))
      return faults[i].step;
  return step_ok;
}

#endif
