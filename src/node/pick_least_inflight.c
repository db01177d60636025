/* least_inflight: the row with the fewest requests in flight; ties are drawn
 * by lot, because the lowest number would herd after every restart.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


/* Two passes, the second only where there are ties: their number must be
 * known before a lot can be drawn among them. node_joins() is asked after
 * the cheaper comparison. */
uint32_t node_pick_least_inflight(struct node_view *v) {
  int slow = v->ramping;
  uint32_t least = UINT32_MAX, ties = 0, last = 0;
  for (uint32_t i = 1; i <= v->count; i++) {
    uint32_t on = atom_get_u32(&v->rows[i].inflight);
    if (on > least || !node_joins(v, i, slow))
      continue;
    ties = on < least ? 1 : ties + 1;
    least = on;
    last = i;
  }
  uint32_t lot = (uint32_t)(v->rnd * ties);
  if (ties <= 1)
    return last;
  for (uint32_t i = 1; i <= v->count; i++)
    if (atom_get_u32(&v->rows[i].inflight) == least && node_joins(v, i, slow) &&
        lot-- == 0)
      return i;
  return last;                      /* a row changed meanwhile */
}
