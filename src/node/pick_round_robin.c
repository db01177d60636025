/* round_robin: each row in turn, over all workers. A row that may not be
 * chosen loses its turn, so the one behind it does not get two.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


uint32_t node_pick_round_robin(struct node_view *v) {
  uint32_t row = 1;
  for (uint32_t i = 0; i < v->count; i++) {
    row = 1 + __atomic_fetch_add(v->turn, 1, __ATOMIC_RELAXED) % v->count;
    if (node_may(v, row))
      return row;
  }
  for (uint32_t i = 0; i < v->count; i++) {     /* others took our turns */
    row = row < v->count ? row + 1 : 1;
    if (node_may(v, row))
      return row;
  }
  return 0;
}
