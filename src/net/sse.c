/* sse: see sse.h.
 *
 * SPDX-License-Identifier: MIT */
#include "sse.h"

#include <string.h>

#include "../drover.h"
#include "utf8.h"


void net_sse_init(struct net_sse *p) {
  memset(p, 0, sizeof *p);
  buf_init(&p->line, NET_SSE_MAX);
  buf_init(&p->data, NET_SSE_MAX + 1);      /* its last LF is taken off */
  buf_init(&p->name, NET_SSE_MAX);
  buf_init(&p->id, NET_SSE_MAX);
  buf_init(&p->last_id, NET_SSE_MAX);
}


void net_sse_deinit(struct net_sse *p) {
  buf_deinit(&p->line, 0);
  buf_deinit(&p->data, 0);
  buf_deinit(&p->name, 0);
  buf_deinit(&p->id, 0);
  buf_deinit(&p->last_id, 0);
}


/* A blank line: give the event, if it has data. The buffers are emptied at
 * the next call, so that the spans hold till then. */
static int dispatch(struct net_sse *p, struct net_event *ev) {
  p->given = 1;
  p->last_id.size = 0;
  int rc = buf_add(&p->last_id, p->id.at, p->id.size);
  if (rc || p->data.size == 0)
    return rc;
  if (++p->events > NET_SSE_EVENTS_MAX)
    return DROVER_ETOOLARGE;
  int named = p->name.size > 0;
  *ev = (struct net_event){
    .ready = 1,
    .data = p->data.at, .data_size = p->data.size - 1,
    .name = named ? p->name.at : "message",
    .name_size = named ? p->name.size : 7,
    .id = p->last_id.size ? p->last_id.at : "", .id_size = p->last_id.size,
  };
  return DROVER_OK;
}


/* `name` is a literal without NUL. */
static int is_field(const char *name, const char *line, size_t size) {
  return size == strlen(name) && memcmp(line, name, size) == 0;
}


static int replace(struct buf *b, const char *value, size_t size) {
  b->size = 0;
  return net_utf8_add(b, value, size);
}


/* A field: its name up to the colon, one space skipped, its value repaired to
 * UTF-8. A line without a colon is a name with an empty value. An id with a
 * NUL in it is ignored, by the rules. Names are compared as bytes. */
static int take_field(struct net_sse *p, const char *line, size_t size) {
  const char *colon = memchr(line, ':', size);
  size_t name = colon ? (size_t)(colon - line) : size;
  size_t skip = colon ? name + 1 : name;
  if (skip < size && line[skip] == ' ')
    skip++;
  const char *value = line + skip;
  size -= skip;
  if (is_field("data", line, name)) {
    int rc = net_utf8_add(&p->data, value, size);
    return rc ? rc : buf_add(&p->data, "\n", 1);
  }
  if (is_field("event", line, name))
    return replace(&p->name, value, size);
  if (is_field("id", line, name) && (!size || !memchr(value, '\0', size)))
    return replace(&p->id, value, size);
  return DROVER_OK;
}


/* A byte order mark is skipped at the very front. A comment costs nothing,
 * so its length is not capped; a piece that came whole was never in
 * `line`, whose cap it must keep all the same. */
static int take_line(struct net_sse *p, const char *line, size_t size,
                     struct net_event *ev) {
  if (!p->started && size >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
    line += 3;
    size -= 3;
  }
  p->started = 1;
  if (size == 0)
    return dispatch(p, ev);
  if (line[0] == ':') {
    p->comments++;
    return DROVER_OK;
  }
  return size > NET_SSE_MAX ? DROVER_ETOOLARGE : take_field(p, line, size);
}


/* Does the open line, continued by `more`, begin with a colon? */
static int is_comment(const struct net_sse *p, const char *more, size_t size) {
  char head[4];
  size_t kept = p->line.size < sizeof head ? p->line.size : sizeof head;
  size_t left = sizeof head - kept, n = kept;
  if (kept)
    memcpy(head, p->line.at, kept);
  if (size < left)
    left = size;
  memcpy(head + kept, more, left);
  n += left;
  if (n && head[0] == ':')
    return 1;
  return !p->started && n == 4 && memcmp(head, "\xEF\xBB\xBF:", 4) == 0;
}


/* Bytes without a line end: keep them, or skip them in a comment. */
static int keep(struct net_sse *p, const char *piece, size_t size) {
  if (size == 0 || p->skipping)
    return DROVER_OK;
  if (is_comment(p, piece, size)) {
    p->skipping = p->started = 1;
    p->line.size = 0;
    return DROVER_OK;
  }
  return buf_add(&p->line, piece, size);
}


/* The line that ends behind `piece`. One that came whole is read in place,
 * which is the usual case and copies nothing. */
static int end_line(struct net_sse *p, const char *piece, size_t size,
                    struct net_event *ev) {
  if (p->line.size == 0 && !p->skipping)
    return take_line(p, piece, size, ev);
  int rc = keep(p, piece, size);
  if (!rc && !p->skipping)
    rc = take_line(p, p->line.at, p->line.size, ev);
  p->comments += p->skipping;
  p->skipping = 0;
  p->line.size = 0;
  return rc;
}


/* After the consumer had its time with the spans, which is until the next
 * feed. */
static void forget_given(struct net_sse *p) {
  if (p->given)
    p->data.size = p->name.size = 0;
  p->given = 0;
}


/* A CR ends its line at once, so an event is not held back until the byte
 * behind it comes; a LF there, perhaps in the next piece, belongs to it. */
long net_sse_feed(struct net_sse *p, const char *buf, size_t len,
                  struct net_event *ev) {
  size_t at = 0;
  ev->ready = 0;
  forget_given(p);
  while (!p->failed && at < len) {
    if (p->after_cr && buf[at] == '\n') {
      p->after_cr = 0;
      at++;
      continue;
    }
    p->after_cr = 0;
    size_t start = at;
    while (at < len && buf[at] != '\n' && buf[at] != '\r')
      at++;
    if (at == len) {
      p->failed = keep(p, buf + start, len - start);
      break;
    }
    size_t size = at - start;
    p->after_cr = buf[at++] == '\r';
    p->failed = end_line(p, buf + start, size, ev);
    if (!p->failed && ev->ready)
      return (long)at;
    forget_given(p);
  }
  return p->failed ? p->failed : (long)len;
}


/* Braces that match, outside strings, from the first byte to the last: what
 * a complete JSON object looks like. Whether it is one its reader will say. */
static int is_whole_object(const char *s, size_t size) {
  size_t depth = 0;
  int inside = 0;
  if (size < 2 || s[0] != '{')
    return 0;
  for (size_t i = 0; i < size; i++) {
    if (inside && s[i] == '\\')
      i++;
    else if (s[i] == '"')
      inside = !inside;
    else if (!inside && (s[i] == '{' || s[i] == '['))
      depth++;
    else if (!inside && (s[i] == '}' || s[i] == ']') && --depth == 0)
      return i + 1 == size;
  }
  return 0;
}


static int is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}


static int is_whole(const char *s, size_t size) {
  while (size && is_space(s[size - 1]))
    size--;
  while (size && is_space(*s)) {
    s++;
    size--;
  }
  return is_field("[DONE]", s, size) || is_whole_object(s, size);
}


/* A last line without its end is taken as ended, for a node that closes right
 * behind its [DONE]. A half object is not given: text that was cut must not
 * look like text that ended. */
int net_sse_end(struct net_sse *p, struct net_event *ev) {
  ev->ready = 0;
  forget_given(p);
  if (!p->failed && p->line.size > 0)
    p->failed = end_line(p, "", 0, ev);
  if (!p->failed && p->data.size > 0 && is_whole(p->data.at, p->data.size)) {
    p->failed = dispatch(p, ev);
    ev->lenient = 1;
  }
  return p->failed;
}
