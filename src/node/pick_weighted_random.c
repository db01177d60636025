/* weighted_random: at random, in proportion to weight.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


uint32_t node_pick_weighted_random(struct node_view *v) {
  float sum = 0;
  for (uint32_t i = 1; i <= v->count; i++)
    if (node_may(v, i))
      sum += atom_get_f32(&v->rows[i].weight);
  float at = (float)(v->rnd * (double)sum);
  uint32_t last = 0;                /* rounding, or a row changed meanwhile */
  for (uint32_t i = 1; i <= v->count; i++) {
    if (!node_may(v, i))
      continue;
    float weight = atom_get_f32(&v->rows[i].weight);
    if (last == 0 || weight > 0)
      last = i;
    at -= weight;
    if (at < 0)
      return i;
  }
  return last;
}
