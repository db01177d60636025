/* round_robin: each row in turn, over all workers. A row that may not be
 * chosen loses its turn, so the one behind it does not get two.
 *
 * The turn is loaded and stored, not added to: two workers at the same instant
 * may take the same turn, which changes no row's share and costs nobody a
 * locked instruction on a line that all workers write.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


/* `turn` is the row chosen last; 0 in a new zone, so that row 1 begins. */
uint32_t node_pick_round_robin(struct node_view *v) {
  uint32_t row = atom_get_u32(v->turn);
  for (uint32_t i = 0; i < v->count; i++) {
    row = row < v->count ? row + 1 : 1;
    if (node_joins(v, row, v->ramping)) {
      atom_set_u32(v->turn, row);
      return row;
    }
  }
  return 0;
}
