/* reply: see reply.h.
 *
 * SPDX-License-Identifier: MIT */
#include "reply.h"

#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "header.h"


void net_reply_init(struct net_reply *r, struct net_out out, size_t body_max) {
  memset(r, 0, sizeof *r);
  r->out = out;
  r->body_max = body_max;
  buf_init(&r->head, NET_HEAD_MAX);
  buf_init(&r->body, body_max ? body_max : NET_BODY_MAX);
  net_sse_init(&r->sse);
}


/* Twice is right: net_http_free() does it again behind turn.c's end(). */
void net_reply_deinit(struct net_reply *r) {
  buf_deinit(&r->head, 0);
  buf_deinit(&r->body, 0);
  net_sse_deinit(&r->sse);
}


/* The sentence of a failure, and its code. The first one stays: what follows
 * it is its consequence. */
static int fail(struct net_reply *r, int code, const char *text) {
  if (!r->err.code)
    drover_fail(&r->err, code, "%s", text);
  return code;
}


/* What the consumer answered: no memory is told, closed needs no words. */
static int passed(struct net_reply *r, int rc) {
  if (rc == DROVER_ENOMEM)
    return fail(r, rc, "no memory for an event");
  return rc ? fail(r, rc, "closed") : DROVER_OK;
}


/* Each status line begins a head anew: those of interim replies (1xx) and
 * their headers are forgotten. RFC 9112, 4: three digits behind a space. */
static int read_status(struct net_reply *r, const char *line, size_t size) {
  const char *space = memchr(line, ' ', size);
  size_t at = space ? (size_t)(space - line) + 1 : size;
  int status = 0;
  if (r->status && ++r->interim > NET_HEAD_INTERIM_MAX)
    return fail(r, DROVER_EMALFORMED, "too many interim replies");
  for (size_t i = at; i < at + 3; i++) {
    if (i >= size || line[i] < '0' || line[i] > '9')
      return fail(r, DROVER_EMALFORMED, "a status line without a status");
    status = status * 10 + (line[i] - '0');
  }
  r->status = status;
  r->head.size = 0;
  r->streaming = r->encoded = 0;
  if (status < 100 || status >= 600)
    return fail(r, DROVER_EMALFORMED, "a status that HTTP does not have");
  return DROVER_OK;
}


/* The media type before its parameters. */
static int is_event_stream(const char *value, size_t size) {
  static const char want[] = "text/event-stream";
  size_t n = sizeof want - 1;
  if (size < n || strncasecmp(value, want, n) != 0)
    return 0;
  return size == n || value[n] == ';' || value[n] == ' ' || value[n] == '\t';
}


/* A content-encoding is looked at and not shown: end_head() refuses it. Of
 * equal content-types the last one counts. */
static int take_header(struct net_reply *r, const struct net_header *h) {
  if (strcmp(h->name, "content-type") == 0)
    r->streaming = is_event_stream(h->value, h->value_size);
  if (strcmp(h->name, "content-encoding") == 0)
    r->encoded = !(h->value_size == 8
                   && strncasecmp(h->value, "identity", 8) == 0)
                 && h->value_size > 0;
  if (!net_header_kept(h))
    return DROVER_OK;
  size_t name = strlen(h->name);
  int rc = buf_reserve(&r->head, name + h->value_size + 3);
  if (rc)
    return fail(r, rc, "no memory for a reply's headers");
  buf_add(&r->head, h->name, name);
  buf_add(&r->head, ": ", 2);
  buf_add(&r->head, h->value, h->value_size);
  buf_add(&r->head, "\n", 1);
  return DROVER_OK;
}


static int is_2xx(const struct net_reply *r) {
  return r->status >= 200 && r->status < 300;
}


/* A reply that is no 2xx is read as a BODY with a lower cap, whatever its type
 * and encoding: it is only quoted in an error. 101 is not final either, and
 * as nobody asked for it the call then ends without a head. */
static int end_head(struct net_reply *r) {
  if (r->status >= 100 && r->status < 200)
    return DROVER_OK;                           /* the reply is still to come */
  r->head_done = 1;
  r->streaming = r->streaming && is_2xx(r);
  if (r->encoded && is_2xx(r))
    return fail(r, DROVER_EMALFORMED,
                "a compressed reply, which was not asked for");
  if (!is_2xx(r) && (r->body_max == 0 || r->body_max > NET_ERROR_BODY_MAX))
    r->body.cap = NET_ERROR_BODY_MAX;
  drover_event ev = {
    .type = DROVER_EVENT_HEAD, .status = r->status,
    .data = r->head.at, .data_size = r->head.size,
  };
  int rc = passed(r, r->out.push(r->out.user, &ev));
  buf_deinit(&r->head, 0);
  return rc;
}


/* Whatever the line is, bytes have come: the node has the request. */
int net_reply_line(struct net_reply *r, const char *line, size_t size) {
  struct net_header h;
  r->heard = 1;
  if (r->head_done || r->err.code || size == 0)
    return r->err.code;
  r->head_bytes += size;
  if (r->head_bytes > NET_HEAD_MAX || ++r->head_lines > NET_HEAD_LINES_MAX)
    return fail(r, DROVER_EMALFORMED, "the reply's headers are too large");
  if (size >= 5 && memcmp(line, "HTTP/", 5) == 0)
    return read_status(r, line, size);
  if (size <= 2 && (line[0] == '\r' || line[0] == '\n'))
    return end_head(r);
  return net_header_read(line, size, &h) ? take_header(r, &h) : DROVER_OK;
}


/* The time is the event's, for the idle deadline, which bytes that end no
 * event do not put off. */
static int push_event(struct net_reply *r, const struct net_event *from,
                      int64_t now_ns) {
  drover_event ev = {
    .type = DROVER_EVENT_SSE, .at = clock_seconds(now_ns),
    .data = from->data, .data_size = from->data_size,
    .name = from->name, .name_size = from->name_size,
  };
  r->event_ns = now_ns;
  return passed(r, r->out.push(r->out.user, &ev));
}


/* An endless event is a broken node's, not too long an answer. */
static int sse_failed(struct net_reply *r, int code) {
  if (code == DROVER_ENOMEM)
    return fail(r, code, "no memory for an event");
  return fail(r, DROVER_EMALFORMED, "an event that is too large");
}


/* One piece may hold many events, and an event many pieces. */
static int feed(struct net_reply *r, const char *bytes, size_t size,
                int64_t now_ns) {
  struct net_event ev;
  uint64_t comments = r->sse.comments;
  while (size) {
    long used = net_sse_feed(&r->sse, bytes, size, &ev);
    if (used < 0)
      return sse_failed(r, (int)used);
    bytes += used;
    size -= (size_t)used;
    int rc = ev.ready ? push_event(r, &ev, now_ns) : DROVER_OK;
    if (rc)
      return rc;
  }
  if (r->sse.comments != comments)
    r->comment_ns = now_ns;
  return DROVER_OK;
}


/* A stream is counted as a whole, for its events are passed on and the buffers
 * of sse cap only one of them; a body is capped by its buffer. */
int net_reply_bytes(struct net_reply *r, const char *bytes, size_t size,
                    int64_t now_ns) {
  r->heard = 1;
  if (r->err.code)
    return r->err.code;
  if (!r->head_done)
    return fail(r, DROVER_EMALFORMED, "a reply without a head");
  r->bytes += size;
  if (r->streaming) {
    if (r->bytes > (r->body_max ? r->body_max : NET_STREAM_MAX))
      return fail(r, DROVER_ETOOLARGE, "the stream is too large");
    return feed(r, bytes, size, now_ns);
  }
  int rc = buf_add(&r->body, bytes, size);
  if (rc == DROVER_ETOOLARGE)
    return fail(r, rc, "the reply is too large");
  return rc ? fail(r, rc, "no memory for the reply") : DROVER_OK;
}


/* An empty body comes as a BODY too: each whole reply that is no stream has
 * exactly one. */
int net_reply_end(struct net_reply *r, int64_t now_ns) {
  struct net_event last;
  if (r->err.code)
    return r->err.code;
  if (!r->head_done)
    return fail(r, DROVER_ETRUNCATED, "the reply ended in its head");
  if (r->streaming) {
    int rc = net_sse_end(&r->sse, &last);
    if (rc)
      return sse_failed(r, rc);
    return last.ready ? push_event(r, &last, now_ns) : DROVER_OK;
  }
  drover_event ev = {
    .type = DROVER_EVENT_BODY, .at = clock_seconds(now_ns),
    .data = r->body.at, .data_size = r->body.size,
  };
  return passed(r, r->out.push(r->out.user, &ev));
}
