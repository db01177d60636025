/* drought: see drought.h.
 *
 * SPDX-License-Identifier: MIT */
#include "drought.h"

#include <string.h>

#include "../base/hash.h"
#include "breaker.h"


/* Uniform in [0, 1), the row's own at that time: rows that went out together
 * are not tried together. */
static double chance(uint32_t row, double now) {
  uint64_t bits;
  memcpy(&bits, &now, sizeof bits);
  return (double)(hash_mix(bits + row) >> 11) * 0x1p-53;
}


uint32_t node_drought_tick(const struct node_table *t, double now) {
  uint32_t count = atom_get_u32(t->count), hurried = 0;
  uint64_t up = 0;                  /* models that have a row */
  int any = 0;                      /* 1: a row that takes all of them is up */
  for (uint32_t i = 1; i <= count; i++) {
    if (atom_get_u32(&t->rows[i].state) != DROVER_UP)
      continue;
    uint64_t mask = atom_get_u64(&t->own[i].models_mask);
    up |= mask;
    any |= mask == 0;
  }
  for (uint32_t i = 1; i <= count && !any; i++) {
    uint64_t mask = atom_get_u64(&t->own[i].models_mask);
    if (mask == 0 || (mask & ~up))
      hurried += (uint32_t)node_breaker_hurry(&t->rows[i], &t->own[i], now,
                                              chance(i, now));
  }
  return hurried;
}
