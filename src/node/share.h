/* share: how many of a node's outcomes of the last 30 s were successes, in
 * exact counts: an average that decays hides an outage in a tight burst, and
 * does not say how much it has seen.
 *
 * Ten words in turn, one for 3 s each:
 *
 *   period, of 3 s (28 bits) | successes 18 | outcomes 18
 *
 * The first outcome of a period takes over the word of the period ten before;
 * all others add to it. A word that is full (87,000 outcomes a second) counts
 * no more until its period is over. An outcome of an older period than its
 * word's came ten periods late and is left out.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_SHARE_H
#define DROVER_NODE_SHARE_H

#include "row.h"

#define SHARE_PERIOD 3.0            /* seconds; NODE_PERIODS of them */

struct node_share {
  uint32_t ok, all;
};


/* One outcome at `now`. Any thread. */
void node_share_add(struct node_row *own, int ok, double now);


/* Over the period of `now` and the nine before it. */
struct node_share node_share_sum(const struct node_row *own, double now);


/* Successes over outcomes; NaN: none. */
float node_share_rate(const struct node_row *own, double now);


/* Forget all. */
void node_share_clear(struct node_row *own);

#endif
