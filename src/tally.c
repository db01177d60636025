/* tally: see tally.h.
 *
 * SPDX-License-Identifier: MIT */
#include "tally.h"

#include <string.h>

/* Our own cost is microseconds; first tokens have OpenTelemetry's buckets
 * (semantic conventions for generative AI). */
const double tally_overhead_bounds[TALLY_OVERHEAD] = {
  1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2,
  0.1,
};
const double tally_first_bounds[TALLY_FIRST] = {
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5,
  7.5, 10,
};


size_t tally_size(uint32_t members, uint32_t rows) {
  return members * sizeof(struct tally_router) +
         ((size_t)members + 1) * rows * sizeof(struct tally_node);
}


/* The sets of nodes lie behind those of the routers: sizes of both are
 * multiples of 8, so no padding is needed between them. */
struct tally tally_view(void *span, uint32_t members, uint32_t rows,
                        const uint32_t *top) {
  struct tally_router *routers = span;
  return (struct tally){
    .routers = routers, .nodes = (struct tally_node *)(routers + members),
    .rows = rows, .members = members, .top = top,
  };
}


/* Relaxed loads of words that their owners bump: a sum taken in between is
 * one that was true at some moment for each word. */
static void add_node(struct tally_node *to, const struct tally_node *from) {
  for (int i = 0; i < TALLY_TOKENS; i++)
    to->tokens[i] += atom_get_u64(&from->tokens[i]);
  to->dollars += atom_get_f64(&from->dollars);
  for (int i = 0; i < ERR_KINDS; i++) {
    to->attempts[i] += atom_get_u64(&from->attempts[i]);
    to->outcomes[i] += atom_get_u64(&from->outcomes[i]);
  }
}


/* Up to `top`: a slot that was ever used keeps its counters when its member
 * has left, and they go on counting. */
static void sum_all(const struct tally *t, uint32_t row,
                    struct tally_node *out) {
  uint32_t top = atom_get_u32(t->top);
  memset(out, 0, sizeof *out);
  for (uint32_t m = 0; m < top; m++)
    add_node(out, tally_of(t, m, row));
}


void tally_base(const struct tally *t, uint32_t row, struct tally_node *out) {
  memset(out, 0, sizeof *out);
  add_node(out, tally_of(t, t->members, row));
}


/* What the row's present node had: all that was ever counted on the row,
 * less what its former nodes had. */
void tally_sum(const struct tally *t, uint32_t row, struct tally_node *out) {
  struct tally_node base;
  tally_base(t, row, &base);        /* before the sum: it only grows */
  sum_all(t, row, out);
  for (int i = 0; i < TALLY_TOKENS; i++)
    out->tokens[i] -= base.tokens[i];
  out->dollars -= base.dollars;
  for (int i = 0; i < ERR_KINDS; i++) {
    out->attempts[i] -= base.attempts[i];
    out->outcomes[i] -= base.outcomes[i];
  }
}


/* Called under the row's writer lock, with nothing in flight on the row
 * (table.c), so no owner bumps these words meanwhile but for outcomes of
 * requests that end late; those then count for the new node. */
void tally_rebase(const struct tally *t, uint32_t row) {
  struct tally_node sum, *base = tally_of(t, t->members, row);
  sum_all(t, row, &sum);
  for (int i = 0; i < TALLY_TOKENS; i++)
    atom_set_u64(&base->tokens[i], sum.tokens[i]);
  atom_set_f64(&base->dollars, sum.dollars);
  for (int i = 0; i < ERR_KINDS; i++) {
    atom_set_u64(&base->attempts[i], sum.attempts[i]);
    atom_set_u64(&base->outcomes[i], sum.outcomes[i]);
  }
}


/* Buckets and sums are words of their own: a histogram read while it is fed
 * may have its sum one observation ahead of its buckets. */
void tally_sum_router(const struct tally *t, struct tally_router *out) {
  uint32_t top = atom_get_u32(t->top);
  memset(out, 0, sizeof *out);
  for (uint32_t m = 0; m < top; m++) {
    const struct tally_router *from = &t->routers[m];
    for (int i = 0; i <= TALLY_OVERHEAD; i++)
      out->overhead[i] += atom_get_u64(&from->overhead[i]);
    for (int i = 0; i <= TALLY_FIRST; i++)
      out->first[i] += atom_get_u64(&from->first[i]);
    out->overhead_sum += atom_get_f64(&from->overhead_sum);
    out->first_sum += atom_get_f64(&from->first_sum);
    for (int i = 0; i < TALLY_LIMITS; i++)
      out->refused[i] += atom_get_u64(&from->refused[i]);
    for (int i = 0; i < TALLY_COUNTS; i++)
      out->counts[i] += atom_get_u64(&from->counts[i]);
  }
}


/* A double, as all counters in drover.h: exact up to 2^53, and LuaJIT's
 * number. */
double tally_total(const uint64_t kinds[ERR_KINDS]) {
  uint64_t sum = 0;
  for (int i = 0; i < ERR_KINDS; i++)
    sum += kinds[i];
  return (double)sum;
}


double tally_failed(const uint64_t kinds[ERR_KINDS]) {
  return tally_total(kinds) - (double)kinds[err_row(DROVER_OK)] -
         (double)kinds[err_row(DROVER_ECANCELLED)];
}
