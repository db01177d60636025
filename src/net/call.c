/* call: see call.h.
 *
 * SPDX-License-Identifier: MIT */
#include "call.h"

#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "easy.h"
#include "loop.h"


/* ---- the consumer's side ---- */

int net_call_new(struct net_call **out, const drover_call_config *c,
                 drover_err *err) {
  struct net_call *call = mem_calloc(1, sizeof *call);
  if (!call)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a call");
  int rc = net_request_init(&call->request, c, err);
  if (rc) {
    mem_free(call);
    return rc;
  }
  *out = call;
  return DROVER_OK;
}


static int push_event(void *user, const drover_event *ev) {
  return net_call_push(user, ev);
}


int net_call_start(struct net_call *call, const struct net_sink *sink,
                   void *user, struct net_done *done, drover_err *err) {
  call->sink = sink;
  call->user = user;
  call->done = done;
  call->start_ns = clock_now_ns();
  net_reply_init(&call->reply, (struct net_out){ push_event, call },
                 call->request.body_max);
  int rc = net_loop_get(&call->loop, err);
  if (rc)
    return rc;
  if (net_loop_ask(call->loop, call, NET_ASK_BEGIN) == 0)
    return DROVER_OK;
  return drover_fail(err, DROVER_ECLOSED, "the transport has been stopped");
}


/* The transport thread frees the call's own things when it ends; what comes
 * after that has nothing to do. */
static void ask(struct net_call *call, enum net_ask what) {
  if (!__atomic_load_n(&call->ended, __ATOMIC_ACQUIRE))
    net_loop_ask(call->loop, call, what);
}


void net_call_cancel(struct net_call *call) {
  ask(call, NET_ASK_CANCEL);
}


void net_call_resume(struct net_call *call) {
  ask(call, NET_ASK_RESUME);
}


/* Read in net_call_due(); nothing else follows from it. */
void net_call_commit(struct net_call *call) {
  __atomic_store_n(&call->committed, 1, __ATOMIC_RELAXED);
}


void net_call_free(struct net_call *call) {
  if (!call)
    return;
  net_reply_deinit(&call->reply);
  net_request_deinit(&call->request);
  net_loop_unref(call->loop);
  mem_free(call);
}


/* ---- the transport thread's side ---- */

static int is_committed(const struct net_call *call) {
  return __atomic_load_n(&call->committed, __ATOMIC_RELAXED);
}


static int64_t later(int64_t from, int64_t by) {
  return by > INT64_MAX - from ? INT64_MAX : from + by;
}


static int64_t sooner(int64_t a, int64_t b) {
  return a < b ? a : b;
}


/* When the pause between events becomes too long; INT64_MAX while there is
 * no such limit, or when it is the consumer who pauses. */
static int64_t idle_at(const struct net_call *call) {
  int64_t from = call->reply.event_ns;
  if (!call->request.stream || call->request.idle_ns <= 0 || !from
      || call->paused)
    return INT64_MAX;
  if (call->resumed_ns > from)
    from = call->resumed_ns;
  return later(from, call->request.idle_ns);
}


/* The commit comes as a flag, so idleness is looked at before it too: at the
 * latest one idle time after the commit. */
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


int net_call_billed(const struct net_call *call) {
  long bytes = 0;
  if (!call->request.post || !call->sends)
    return 0;
  if (call->easy)
    curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &bytes);
  return call->sends > 1 || call->reply.heard || bytes > 0;
}


static void fill_fail(struct net_call *call, drover_event *ev,
                      const drover_err *text, enum drover_phase phase) {
  *ev = (drover_event){
    .type = DROVER_EVENT_FAIL, .code = text->code, .phase = (int32_t)phase,
    .maybe_billed = net_call_billed(call),
    .data = text->text, .data_size = strlen(text->text),
  };
}


void net_call_late(struct net_call *call, enum net_limit limit,
                   drover_event *ev, drover_err *text) {
  const struct net_request *r = &call->request;
  const struct { const char *name; int64_t ns; enum drover_phase phase; }
  rows[] = {
    [NET_LIMIT_CONNECT] = { "connect", r->connect_ns, DROVER_PHASE_CONNECT },
    [NET_LIMIT_FIRST_TOKEN] = { "first_token", r->first_token_ns,
                                DROVER_PHASE_FIRST_TOKEN },
    [NET_LIMIT_IDLE] = { "idle", r->idle_ns, DROVER_PHASE_STREAM },
    [NET_LIMIT_TOTAL] = { "total", r->total_ns, net_call_phase(call) },
  };
  drover_fail(text, DROVER_ETIMEOUT, "timeout.%s of %g s passed",
              rows[limit].name, clock_seconds(rows[limit].ns));
  fill_fail(call, ev, text, rows[limit].phase);
}


void net_call_result(struct net_call *call, CURLcode rc, drover_event *ev,
                     drover_err *text) {
  struct net_reply *reply = &call->reply;
  text->code = 0;
  if (rc == CURLE_OK && net_reply_end(reply, clock_now_ns()) == DROVER_OK) {
    *ev = (drover_event){ .type = DROVER_EVENT_END };
    return;
  }
  if (reply->err.code)
    *text = reply->err;
  else
    net_easy_fault(call, rc, text);
  enum drover_phase phase = net_call_phase(call);
  if (text->code == DROVER_ETLS || text->code == DROVER_EUNREACHABLE)
    phase = DROVER_PHASE_CONNECT;
  fill_fail(call, ev, text, phase);
}


int net_call_push(struct net_call *call, const drover_event *ev) {
  int rc = call->sink->push(call->user, ev);
  if (rc != 1)
    return rc;
  net_loop_owe(call->loop, call->done);
  return DROVER_OK;
}
