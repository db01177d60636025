/* call: see call.h.
 *
 * SPDX-License-Identifier: MIT */
#include "call.h"


static int push_event(void *user, const drover_event *ev) {
  return net_call_push(user, ev);
}


/* Deadlines count from here, on the consumer's thread: the time in the stack
 * of submits is the call's too. */
void net_call_init(struct net_call *call, const struct net_sink *sink,
                   void *user, struct net_done *done, int64_t now_ns) {
  call->sink = sink;
  call->user = user;
  call->done = done;
  call->start_ns = now_ns;
  net_reply_init(&call->reply, (struct net_out){ push_event, call },
                 call->request.body_max);
}


/* Relaxed, with the store in net_http_commit(): nothing else is read by it,
 * and net_call_due() looks often enough to see it late. */
static int is_committed(const struct net_call *call) {
  return __atomic_load_n(&call->committed, __ATOMIC_RELAXED);
}


/* A deadline of centuries is as good as none; it must not wrap to the past. */
static int64_t later(int64_t from, int64_t by) {
  return by > INT64_MAX - from ? INT64_MAX : from + by;
}


static int64_t sooner(int64_t a, int64_t b) {
  return a < b ? a : b;
}


/* When the pause between events becomes too long; INT64_MAX while there is
 * no such limit, or when it is the consumer who pauses. A comment (a node's
 * keep-alive) puts it off: a model may think for minutes between two calls of
 * a tool. But not for ever, since a node that hangs may go on sending them. */
static int64_t idle_at(const struct net_call *call) {
  int64_t from = call->reply.event_ns, idle = call->request.idle_ns;
  if (!call->request.stream || idle <= 0 || !from || call->paused)
    return INT64_MAX;
  if (call->resumed_ns > from)
    from = call->resumed_ns;
  if (call->reply.comment_ns <= from)
    return later(from, idle);
  return sooner(later(call->reply.comment_ns, idle),
                later(from, idle > INT64_MAX / NET_IDLE_COMMENTS
                            ? INT64_MAX : idle * NET_IDLE_COMMENTS));
}


/* The commit comes as a flag, so idleness is looked at before it too: at the
 * latest one idle time after the commit. The total comes first: when several
 * have passed, the one that no retry can mend is told. Connect includes the
 * name's look-up and the TLS handshake, for `sends` counts up after them. */
enum net_limit net_call_due(const struct net_call *call, int64_t now_ns,
                            int64_t *next_ns) {
  const struct net_request *r = &call->request;
  int64_t idle = idle_at(call), next = INT64_MAX, at;
  if (r->total_ns > 0) {
    next = later(call->start_ns, r->total_ns);
    if (next <= now_ns)
      return NET_LIMIT_TOTAL;
  }
  if (r->connect_ns > 0 && !call->sends) {
    at = later(call->start_ns, r->connect_ns);
    if (at <= now_ns)
      return NET_LIMIT_CONNECT;
    next = sooner(next, at);
  }
  if (r->stream && !is_committed(call)) {
    at = later(call->start_ns, r->first_token_ns);
    if (r->first_token_ns > 0 && at <= now_ns)
      return NET_LIMIT_FIRST_TOKEN;
    if (r->first_token_ns > 0)
      next = sooner(next, at);
    if (idle <= now_ns)
      idle = later(now_ns, r->idle_ns);
  } else if (idle <= now_ns) {
    return NET_LIMIT_IDLE;
  }
  *next_ns = sooner(next, idle);
  return NET_LIMIT_NONE;
}


/* A heap that has the timer moves it without memory, so only the first look,
 * in turn.c's begin(), has a failure to answer for. */
int net_call_look(struct net_call *call, int64_t now_ns) {
  int64_t next = now_ns;            /* a deadline has passed: look at once */
  net_call_due(call, now_ns, &next);
  return net_timers_set(&call->shared->timers, &call->timer, next);
}


/* SIZE_UPLOAD counts the body's bytes that the socket has taken. After a
 * second send, which is refused (before_send() in easy.c), it is no measure
 * of the first. */
enum drover_phase net_call_phase(const struct net_call *call) {
  curl_off_t sent = 0;
  if (!call->sends)
    return DROVER_PHASE_CONNECT;
  if (call->easy)
    curl_easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
  if (call->sends == 1 && !call->reply.heard
      && sent < (curl_off_t)call->request.body_size)
    return DROVER_PHASE_SEND;
  if (call->request.stream ? !is_committed(call) : !call->reply.head_done)
    return DROVER_PHASE_FIRST_TOKEN;
  return DROVER_PHASE_STREAM;
}


/* In doubt it says yes. REQUEST_SIZE counts what the socket has taken; a
 * second send means that the first may have gone out, and who replies has
 * read something. */
int net_call_billed(const struct net_call *call) {
  long bytes = 0;
  if (!call->request.post || !call->sends)
    return 0;
  if (call->easy)
    curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &bytes);
  return call->sends > 1 || call->reply.heard || bytes > 0;
}


int net_call_push(struct net_call *call, const drover_event *ev) {
  int rc = call->sink->push(call->user, ev);
  if (rc != 1)                      /* 1: the queue was empty, its reader may */
    return rc;                      /* sleep: one wake-up for the whole turn */
  net_wakes_owe(&call->shared->wakes, call->done);
  return DROVER_OK;
}
