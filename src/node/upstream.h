/* upstream: a node's own limits, as the headers of its replies tell them
 * (drover_upstream): requests and tokens beyond what is left are kept back
 * before the node answers 429. It is advice: the node has the last word.
 *
 * A kind's word `at` is 0 (nothing known: all may pass) or one of
 *
 *   paced    1 | when all will be back (63 bits, ns), with `unit` and `room`
 *   window   0 | until (34 bits, 1/128 s) | left (29 bits)
 *
 * Paced, when the header names the limit: what is missing comes back evenly,
 * one each unit = reset / (limit - left) ns, as token buckets refill; a claim
 * of n moves `at` by n units and must not move it past now + room, room =
 * reset + left * unit. So `left` pass now, then one each unit. A window, when
 * it does not: `left` pass until the reset (300 s at most). In both all may
 * pass once that time is over, until the next header.
 *
 * Headers speak of the moment when their own request came in; what was claimed
 * since is not in them. So of two that speak of one window or bucket the
 * lower counts: time and the bookings that are given back raise it again.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_UPSTREAM_H
#define DROVER_NODE_UPSTREAM_H

#include "row.h"

#define UPSTREAM_RESET_MAX 604800.0 /* seconds, of a bucket; a week */
#define UPSTREAM_WAIT_MAX  300.0    /* of a window */


/* What a reply said at `now`; NaN: not said. Any thread. */
void node_upstream_set(struct node_row *own, const drover_upstream *u,
                       double now);


/* 1 while nothing is known: asked in each claim before the calls below. */
static inline int node_upstream_silent(const struct node_row *own) {
  return (atom_get_u64(&own->upstream[0].at) |
          atom_get_u64(&own->upstream[1].at)) == 0;
}


/* One request of so many tokens, both or none. 0 when it must be kept back:
 * *wait is then how long, in seconds. A request larger than the bucket counts
 * as the whole bucket. */
int node_upstream_take(struct node_row *own, uint32_t tokens, double now,
                       double *wait);


/* Back what was taken: the request (0 or 1) and tokens, or those of them that
 * were not used. */
void node_upstream_give(struct node_row *own, uint32_t requests,
                        uint32_t tokens, double now);


/* Seconds until a request of one token would pass; 0: now. */
double node_upstream_wait(const struct node_row *own, double now);


void node_upstream_clear(struct node_row *own);

#endif
