/* http: see http.h.
 *
 * SPDX-License-Identifier: MIT */
#include "http.h"

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "loop.h"


/* No transport yet: what is wrong with a call is said without a thread. */
int net_http_new(struct net_call **out, const drover_call_config *c,
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


/* On a failure the loop's reference stays in the call, net_http_free() gives
 * it back. */
int net_http_start(struct net_call *call, const struct net_sink *sink,
                   void *user, struct net_done *done, drover_err *err) {
  net_call_init(call, sink, user, done, clock_now_ns());
  int rc = net_loop_get(&call->loop, err);
  if (rc)
    return rc;
  if (net_loop_ask(call->loop, call, NET_ASK_BEGIN) == 0)
    return DROVER_OK;
  return drover_fail(err, DROVER_ECLOSED, "the transport has been stopped");
}


/* The acquire pairs with the release in turn.c's end(): an ask after the end
 * would only wake the transport for nothing. */
static void ask(struct net_call *call, enum net_ask what) {
  if (!__atomic_load_n(&call->ended, __ATOMIC_ACQUIRE))
    net_loop_ask(call->loop, call, what);
}


void net_http_cancel(struct net_call *call) {
  ask(call, NET_ASK_CANCEL);
}


void net_http_leave(struct net_call *call) {
  ask(call, NET_ASK_LEAVE);
}


void net_http_resume(struct net_call *call) {
  ask(call, NET_ASK_RESUME);
}


/* Read in net_call_due(); nothing else follows from it. */
void net_http_commit(struct net_call *call) {
  __atomic_store_n(&call->committed, 1, __ATOMIC_RELAXED);
}


/* After end() reply and request are empty already; they are not when the call
 * never began. */
void net_http_free(struct net_call *call) {
  if (!call)
    return;
  net_reply_deinit(&call->reply);
  net_request_deinit(&call->request);
  net_loop_unref(call->loop);
  mem_free(call);
}
