/* two_choices: two rows at random, the one with fewer requests in flight for
 * its weight (Mitzenmacher's power of two choices).
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


uint32_t node_pick_two_choices(struct node_view *v) {
  return node_two(v, node_order_inflight);
}
