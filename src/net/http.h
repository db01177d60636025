/* http: calls over HTTP, from the consumer's side: make, start, cancel.
 *
 * What it asks of the transport is a bit in the call and the call in a stack,
 * so asking needs no memory and cannot fail half-way.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_HTTP_H
#define DROVER_NET_HTTP_H

#include "call.h"


/* Check and copy. DROVER_EINVAL, DROVER_ENOMEM. */
int net_http_new(struct net_call **out, const drover_call_config *c,
                 drover_err *err);


/* Hand it to the transport (starting that, in a process that has none). One
 * reference of `user` becomes the transport's; on an error it stays the
 * caller's and no event comes. */
int net_http_start(struct net_call *call, const struct net_sink *sink,
                   void *user, struct net_done *done, drover_err *err);


/* After the end these do nothing. The consumer's thread; none blocks. */
void net_http_cancel(struct net_call *call);
void net_http_leave(struct net_call *call);     /* cancel in a moment */
void net_http_commit(struct net_call *call);    /* first-token is met */
void net_http_resume(struct net_call *call);    /* after the sink was full */


/* When no reference of `user` is left; any thread. Takes NULL. */
void net_http_free(struct net_call *call);

#endif
