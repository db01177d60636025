/* policy: the built-in policies, one row in policy.c and one file each. A
 * policy gets a view of the rows and one random number, and answers a row's
 * number or 0. It asks row by row whether it may be chosen, so one that looks
 * at two rows pays for two. It claims nothing.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_POLICY_H
#define DROVER_NODE_POLICY_H

#include "breaker.h"
#include "row.h"
#include "table.h"

/* All that a decision looks at. Borrowed: holds for the one call. */
struct node_view {
  const drover_node     *rows;      /* [0] is not used */
  const struct node_row *own;
  const drover_pick     *pick;      /* what is asked for, and what is out */
  uint32_t  count;                  /* rows 1 .. count, at least 1 */
  uint32_t *turn;                   /* round_robin's, in the zone */
  double    rnd;                    /* uniform in [0, 1); one a decision */
  int       ramping;                /* 1: some row may be in its slow start */
  int       unqualified;            /* health_score found none that qualifies */
};

struct node_policy {
  const char *name;                 /* as the configuration spells it */
  uint32_t (*pick)(struct node_view *v);
};

extern const struct node_policy node_policies[];    /* closed by a NULL name */


uint32_t node_pick_peak_ewma(struct node_view *v);
uint32_t node_pick_round_robin(struct node_view *v);
uint32_t node_pick_weighted_random(struct node_view *v);
uint32_t node_pick_health_score(struct node_view *v);
uint32_t node_pick_least_inflight(struct node_view *v);
uint32_t node_pick_two_choices(struct node_view *v);
uint32_t node_pick_fallback(struct node_view *v);


/* Of a row that is not up: is it due, or does a panic use it? */
int node_due(const struct node_view *v, uint32_t row);


/* Up or due (in panic: out for its health), takes the model, not tried, not
 * masked; `full` aside. */
static inline int node_able(const struct node_view *v, uint32_t row) {
  const drover_pick *p = v->pick;
  uint32_t word = (row - 1) >> 6;
  uint64_t out = p->masked[word];
  if (!p->again)
    out |= p->tried[word];
  if (out >> ((row - 1) & 63) & 1)
    return 0;
  if (atom_get_u32(&v->rows[row].state) != DROVER_UP && !node_due(v, row))
    return 0;
  return p->model == 0 || node_table_takes(&v->own[row], p->model);
}


/* By the advisory word: a claim may find room where this sees none, and the
 * other way round (see route.c). */
static inline int node_full(const struct node_view *v, uint32_t row) {
  return atom_get_u32(&v->rows[row].inflight) >=
         atom_get_u32(&v->rows[row].capacity);
}


/* What every policy asks of a row before it proposes it. */
static inline int node_may(const struct node_view *v, uint32_t row) {
  return node_able(v, row) && !node_full(v, row);
}


/* 1 when a row in its slow start does not take part in this decision: it does
 * in a tenth of them at first, then in more and more. For node_joins(). */
int node_sits_out(const struct node_view *v, uint32_t row);


/* node_may(), for policies that do not look at weights. `ramping` is the
 * view's, in a local variable: it is asked for every row. */
static inline int node_joins(const struct node_view *v, uint32_t row,
                             int ramping) {
  return node_may(v, row) && !(ramping && node_sits_out(v, row));
}


/* A row that may be chosen, not `but`: `row` itself, else a few drawn anew,
 * else the next behind the last drawn; 0 when there is none. */
uint32_t node_near(const struct node_view *v, uint32_t row, uint32_t but);


/* One of the rows, in proportion to their shares; share[i] is row i's, `sum`
 * that of all. 0 when no share is above 0. */
uint32_t node_lot(const struct node_view *v, const float *share, float sum);


/* 1 when `a` has no more in flight for its weight than `b`. */
static inline int node_order_inflight(const drover_node *a,
                                      const drover_node *b) {
  float on_a = (float)(atom_get_u32(&a->inflight) + 1);
  float on_b = (float)(atom_get_u32(&b->inflight) + 1);
  return on_a * atom_get_f32(&b->weight) <= on_b * atom_get_f32(&a->weight);
}


/* Two rows that may be chosen, drawn at random; `a` when order(a, b) is 1.
 * One when only one may, 0 when none. Both rows come out of the one random
 * number, 26 bits for each. Inline, for `order` to be. */
static inline uint32_t node_two(const struct node_view *v,
                                int (*order)(const drover_node *a,
                                             const drover_node *b)) {
  uint64_t bits = (uint64_t)(int64_t)(v->rnd * 0x1p52);
  uint32_t a = 1 + (uint32_t)((bits >> 26) * v->count >> 26);
  uint32_t b = 1 + (uint32_t)((bits & 0x3ffffff) * (v->count - 1) >> 26);
  if (!node_may(v, a))
    a = node_near(v, a, 0);
  b += b >= a;                      /* never a itself */
  if (!a || v->count == 1)
    return a;
  if (!node_may(v, b))
    b = node_near(v, b, a);
  return !b || order(&v->rows[a], &v->rows[b]) ? a : b;
}

#endif
