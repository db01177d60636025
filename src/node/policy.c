/* policy: see policy.h. The first row is the default.
 *
 * SPDX-License-Identifier: MIT */
#include "policy.h"

#include <string.h>

#include "../base/hash.h"

const struct node_policy node_policies[] = {
  { "peak_ewma",       node_pick_peak_ewma },
  { "round_robin",     node_pick_round_robin },
  { "weighted_random", node_pick_weighted_random },
  { "health_score",    node_pick_health_score },
  { "least_inflight",  node_pick_least_inflight },
  { "two_choices",     node_pick_two_choices },
  { "fallback",        node_pick_fallback },
  { NULL, NULL },
};

enum { DRAWS = 4 };


/* Not inlined: every policy asks node_able() of each row that it looks at. */
__attribute__((noinline))
int node_due(const struct node_view *v, uint32_t row) {
  const drover_pick *p = v->pick;
  const struct node_row *own = &v->own[row];
  if (atom_get_u32(&v->rows[row].state) >= DROVER_DRAINING)
    return 0;
  return node_breaker_due(own, p->now) ||
         (p->panic && node_breaker_ejected(own));
}


/* Drawing anew comes first because walking on would give all of a full row's
 * load to the row behind it. After DRAWS misses most rows are closed, and a
 * walk is sure to find the one that is not. The bits come from the
 * decision's own number and from `but`, so that the two choices of one
 * decision do not draw alike. */
uint32_t node_near(const struct node_view *v, uint32_t row, uint32_t but) {
  uint64_t bits;
  memcpy(&bits, &v->rnd, sizeof bits);
  bits ^= but;
  for (int i = 0; i < DRAWS; i++) {
    if (row != but && node_may(v, row))
      return row;
    bits = hash_mix(bits + 0x9e3779b97f4a7c15u);
    row = 1 + (uint32_t)((bits >> 32) * v->count >> 32);
  }
  for (uint32_t i = 0; i < v->count; i++) {
    if (row != but && node_may(v, row))
      return row;
    row = row < v->count ? row + 1 : 1;
  }
  return 0;
}


/* Each row has its own lot in each decision, the same one when it is asked
 * again. */
int node_sits_out(const struct node_view *v, uint32_t row) {
  float part = node_breaker_part(&v->own[row], v->pick->now);
  if (part >= 1)
    return 0;
  uint64_t bits;
  memcpy(&bits, &v->rnd, sizeof bits);
  bits = hash_mix(bits + row);
  return (float)(bits >> 40) * 0x1p-24f >= part;
}


/* `share` and `sum` are the caller's, from one pass: rows may change
 * meanwhile, and a lot over sums that were taken twice could fall past the
 * end. */
uint32_t node_lot(const struct node_view *v, const float *share, float sum) {
  float at = (float)v->rnd * sum;
  uint32_t last = 0;                /* where rounding leaves a rest */
  for (uint32_t i = 1; i <= v->count; i++) {
    at -= share[i];
    if (share[i] > 0)
      last = i;
    if (share[i] > 0 && at < 0)
      return i;
  }
  return last;
}
