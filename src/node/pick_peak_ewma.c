/* peak_ewma: two rows at random, the lower of
 * first_token_ms * (in flight + 1) / weight. While either time is unknown the
 * times do not count.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


/* Cross-multiplied by the weights: no division, and weight 0 loses against
 * any other without a special case. NaN fails `>= 0`. */
static int order(const drover_node *a, const drover_node *b) {
  float on_a = (float)(atom_get_u32(&a->inflight) + 1);
  float on_b = (float)(atom_get_u32(&b->inflight) + 1);
  float ms_a = atom_get_f32(&a->first_token_ms);
  float ms_b = atom_get_f32(&b->first_token_ms);
  on_a *= atom_get_f32(&b->weight);
  on_b *= atom_get_f32(&a->weight);
  if (ms_a >= 0 && ms_b >= 0) {
    on_a *= ms_a;
    on_b *= ms_b;
  }
  return on_a <= on_b;
}


uint32_t node_pick_peak_ewma(struct node_view *v) {
  return node_two(v, order);
}
