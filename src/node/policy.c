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


/* A row that may be chosen, not `but`: `row` itself, else a few drawn anew,
 * else the next behind the last drawn. */
static uint32_t near(const struct node_view *v, uint32_t row, uint32_t but) {
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


/* Both rows come out of the one random number: the whole part of rnd * count,
 * and its fraction spread over the others. */
uint32_t node_two(const struct node_view *v, node_order *order) {
  double x = v->rnd * v->count;
  uint32_t i = (uint32_t)x;
  uint32_t j = (uint32_t)((x - i) * (v->count - 1));
  uint32_t a = near(v, i + 1, 0);
  if (!a)
    return 0;
  j += j + 1 >= a;                  /* never a itself */
  uint32_t b = j < v->count ? near(v, j + 1, a) : 0;
  return !b || order(&v->rows[a], &v->rows[b]) ? a : b;
}


int node_order_inflight(const drover_node *a, const drover_node *b) {
  float on_a = (float)(atom_get_u32(&a->inflight) + 1);
  float on_b = (float)(atom_get_u32(&b->inflight) + 1);
  return on_a * atom_get_f32(&b->weight) <= on_b * atom_get_f32(&a->weight);
}
