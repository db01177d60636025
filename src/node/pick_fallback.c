/* fallback: the lowest tier that has a row which may be chosen; two choices
 * by requests in flight inside it.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"


/* The `lot`-th row (from 0) of the tier that may be chosen, not `but`. */
static uint32_t nth(const struct node_view *v, uint32_t tier, uint32_t lot,
                    uint32_t but) {
  for (uint32_t i = 1; i <= v->count; i++)
    if (i != but && atom_get_u32(&v->rows[i].tier) == tier &&
        node_may(v, i) && lot-- == 0)
      return i;
  return 0;
}


/* One pass finds the tier and its size, then two rows are drawn in it from
 * the one random number: its integer part times the size, and what is left
 * of the fraction for the second, which cannot be the first (nth() passes
 * over it). */
uint32_t node_pick_fallback(struct node_view *v) {
  uint32_t tier = UINT32_MAX, size = 0, first = 0;
  for (uint32_t i = 1; i <= v->count; i++) {
    uint32_t of = atom_get_u32(&v->rows[i].tier);
    if (of > tier || !node_may(v, i))
      continue;
    if (of < tier || size == 0)
      first = i;
    size = of < tier || size == 0 ? 1 : size + 1;
    tier = of;
  }
  if (size < 2)
    return first;
  double x = v->rnd * size;
  uint32_t lot = (uint32_t)x;
  uint32_t a = nth(v, tier, lot, 0);
  uint32_t b = nth(v, tier, (uint32_t)((x - lot) * (size - 1)), a);
  if (!a || !b)                     /* a row changed meanwhile */
    return a ? a : first;
  return node_order_inflight(&v->rows[a], &v->rows[b]) ? a : b;
}
