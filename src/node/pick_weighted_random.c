/* weighted_random: at random, in proportion to weight. When all that may be
 * chosen weigh nothing, each is as good as another.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


/* `equal`: as if all weighed 1. A row of weight 0 is drawn only then: it is
 * a spare, not a way to switch a node off (draining is). */
static uint32_t draw(const struct node_view *v, int equal) {
  float share[NODE_MAX + 1], sum = 0;
  for (uint32_t i = 1; i <= v->count; i++) {
    float weight = equal ? 1 : atom_get_f32(&v->rows[i].weight);
    share[i] = node_may(v, i) ? weight : 0;
    sum += share[i];
  }
  return node_lot(v, share, sum);
}


uint32_t node_pick_weighted_random(struct node_view *v) {
  uint32_t row = draw(v, 0);
  return row ? row : draw(v, 1);
}
