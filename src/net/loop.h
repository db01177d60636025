/* loop: the transport thread: libcurl's multi handle over our own epoll. This
 * is its door; what the thread does is in turn.c.
 *
 *   submits (stack + eventfd) -> begin, cancel, leave, resume
 *   sockets, libcurl's timer  -> curl_multi_socket_action
 *   the heap of deadlines     -> FAIL
 *   end of a turn             -> one wake-up for each queue that was empty
 *
 * One a process, started by its first call and found through base/process;
 * a forked child has none and starts its own. All signals are blocked in it,
 * it never blocks but in epoll_wait, and when nothing runs it sleeps there.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_LOOP_H
#define DROVER_NET_LOOP_H

#include "bell.h"
#include "call.h"


/* A reference to this process's transport, started if need be. DROVER_ENOMEM,
 * DROVER_ERESOURCE. Any thread. */
int net_loop_get(struct net_loop **out, drover_err *err);
void net_loop_unref(struct net_loop *loop);     /* takes NULL; any thread */


/* Ask something of a call on the thread. While it is queued the call's user
 * is retained. 0, or -1 when the transport is stopped, or another process's. */
int net_loop_ask(struct net_loop *loop, struct net_call *call,
                 enum net_ask what);


/* Its bell, made when first asked for; it lives as long as the loop. Any
 * thread. The second gives NULL when there is none, also without a loop. */
int net_loop_bell(struct net_loop *loop, struct net_bell **out,
                  drover_err *err);
struct net_bell *net_loop_has_bell(struct net_loop *loop);


/* End this process's transport and join it: running calls fail with
 * DROVER_ECLOSED. Another call may start a new one. No other thread may be
 * making calls. Nothing to do when there is none. */
void net_loop_stop(void);

#endif
