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


/* The row's share of the lot. */
static float share(const struct node_view *v, uint32_t row, int all) {
  if (!node_may(v, row))
    return 0;
  float score = node_average_score(&v->rows[row], &v->own[row]);
  if (all)
    return score > FLOOR ? score : FLOOR;
  return score > ENOUGH && node_average_fresh(&v->own[row], v->now) ? score
                                                                    : 0;
}


static uint32_t draw(const struct node_view *v, int all) {
  float sum = 0;
  for (uint32_t i = 1; i <= v->count; i++)
    sum += share(v, i, all);
  float at = (float)(v->rnd * (double)sum);
  uint32_t last = 0;
  for (uint32_t i = 1; i <= v->count && sum > 0; i++) {
    float own = share(v, i, all);
    at -= own;
    if (own > 0)
      last = i;
    if (own > 0 && at < 0)
      return i;
  }
  return last;
}


uint32_t node_pick_health_score(struct node_view *v) {
  uint32_t row = draw(v, 0);
  if (row)
    return row;
  row = draw(v, 1);
  v->unqualified = row != 0;
  return row;
}
