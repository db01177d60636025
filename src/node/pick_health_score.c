/* health_score: at random in proportion to
 *
 *   0.3 * memory_gb / 40  +  0.4 * (1 - load / 100)
 *                         +  0.3 * max(0, 1 - latency_ms / 200)
 *
 * over the rows above 0.3 that were seen within 30 s. When none qualifies, all
 * that may be chosen take part (else silence would end service for ever), and
 * that is counted. average.c keeps the terms.
 *
 * SPDX-License-Identifier: MIT */
#include "average.h"
#include "policy.h"

#define ENOUGH 0.3f
#define FLOOR 0.01f                 /* a score of 0 still takes part */



/* `all`: without the two conditions. Shares are floats on the stack, 2 KiB:
 * rows are at most NODE_MAX. */
static uint32_t draw(const struct node_view *v, int all) {
  float share[NODE_MAX + 1], sum = 0;
  int slow = v->ramping;
  for (uint32_t i = 1; i <= v->count; i++) {
    float score = node_average_score(&v->rows[i], &v->own[i]);
    int in = all || (score > ENOUGH &&
                     node_average_fresh(&v->own[i], v->pick->now));
    if (score < FLOOR)
      score = FLOOR;
    share[i] = in && node_joins(v, i, slow) ? score : 0;
    sum += share[i];
  }
  return node_lot(v, share, sum);
}


/* The second draw is what keeps a pool going whose nodes send no reports;
 * `unqualified` makes it visible (drover_totals), because then the formula
 * is not what decides. */
uint32_t node_pick_health_score(struct node_view *v) {
  uint32_t row = draw(v, 0);
  if (row)
    return row;
  row = draw(v, 1);
  v->unqualified = row != 0;
  return row;
}
