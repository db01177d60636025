/* average: a node's figures, fed by each settled ticket and each report.
 * Updates may be lost when two processes write at once: they are averages.
 *
 * All decay with time, not with the number of samples: w = exp(-dt / 10 s).
 *   first_token_ms   peak-EWMA (Finagle's, as in tower and linkerd): a higher
 *                    sample replaces the average at once, a lower one moves it
 *                    by 1 - w
 *   token_ms         decayed sum of samples over decayed count
 *   error_rate       the same of failures that hurt the node, over outcomes
 * A row that nobody chose for a while drifts back to the pool's mean, so that
 * one slow answer does not shut a node out for ever.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_AVERAGE_H
#define DROVER_NODE_AVERAGE_H

#include "row.h"

#define AVERAGE_TAU  10.0           /* seconds */
#define AVERAGE_SEEN 30.0

struct node_sample {
  int   failed;                     /* a failure that hurts the node */
  int   replied;                    /* the node answered */
  float first_token_ms, token_ms;   /* NaN: not measured */
};


/* One outcome at `now`. */
void node_average_feed(drover_node *row, struct node_row *own,
                       const struct node_sample *s, double now);


/* A report: NaN leaves a field as it is. */
void node_average_report(drover_node *row, struct node_row *own,
                         const drover_report *report, double now);


/* Begin anew, as a node that the pool knows nothing of; `first_token_ms` is
 * the pool's mean or NaN. */
void node_average_reset(drover_node *row, struct node_row *own,
                        float first_token_ms, double now);


/* The pool's mean first-token time over rows that are in use; NaN: unknown. */
float node_average_mean(const struct node_table *t);


/* Let idle rows drift to the mean over `dt` seconds that ended at `now`. */
void node_average_age(const struct node_table *t, double dt, double now);


/* The score of the health_score formula. Inline: asked for every row. */
static inline float node_average_score(const drover_node *row,
                                       const struct node_row *own) {
  float memory = atom_get_f32(&row->memory_gb) * (1.0f / 40);
  if (!(memory > 0))                /* unknown too */
    memory = 0;
  float fast = 1 - atom_get_f32(&own->score_latency_ms) * (1.0f / 200);
  return 0.3f * (memory < 1 ? memory : 1) +
         0.4f * (1 - atom_get_f32(&own->score_load) * (1.0f / 100)) +
         0.3f * (fast > 0 ? fast : 0);
}


/* Seen, or added, in the last 30 s. */
static inline int node_average_fresh(const struct node_row *own, double now) {
  return now - atom_get_f64(&own->seen_at) <= AVERAGE_SEEN ||
         now - atom_get_f64(&own->added_at) <= AVERAGE_SEEN;
}

#endif
