/* outcome: how a call has ended, in our own words: what libcurl's codes mean,
 * and which deadline passed. The words never quote what a node has sent.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_OUTCOME_H
#define DROVER_NET_OUTCOME_H

#include "call.h"


/* The last event of a call that libcurl has ended with `rc`: END, after what
 * the reply still held, or FAIL. Its span lies in `text`. */
void net_outcome_done(struct net_call *call, CURLcode rc, drover_event *ev,
                      drover_err *text);


/* The FAIL of a passed deadline. */
void net_outcome_late(struct net_call *call, enum net_limit limit,
                      drover_event *ev, drover_err *text);


/* The FAIL of a call that we end for another reason. */
void net_outcome_fail(struct net_call *call, int code, const char *why,
                      drover_event *ev, drover_err *text);

#endif
