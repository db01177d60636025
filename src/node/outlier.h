/* outlier: takes out, at the tick, rows that are much worse than the others,
 * though not bad enough for the breaker: a row that fails three requests in
 * ten is not worth its place beside rows that fail none, but is when all do.
 *
 * Judged are rows that are up and have 20 outcomes or more in their share
 * (share.h). With five or more of them: out goes who is below mean - 1.9
 * sigma and below mean - 5 points (Envoy's rule with a guard for a tiny sigma).
 * With two to four, too few for a sigma, which most pools of LLM nodes are: who
 * is 20 points below the mean of the others. The worst first, and at most
 * max(1, half) of a pool of four or fewer rows are out at a time, max(1, 30 %)
 * of a larger one; rows that are out for any reason count. Rows that are
 * draining or removed are no part of the pool.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_OUTLIER_H
#define DROVER_NODE_OUTLIER_H

#include "row.h"

enum { OUTLIER_LEAST = 20, OUTLIER_MANY = 5 };
#define OUTLIER_SIGMAS 1.9
#define OUTLIER_POINTS 0.05
#define OUTLIER_FEW_POINTS 0.2


/* Any process; the number of rows that were taken out. */
uint32_t node_outlier_tick(const struct node_table *t, double now);

#endif
