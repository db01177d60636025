/* cells: see cells.h for the argument.
 *
 * SPDX-License-Identifier: MIT */
#include "cells.h"

#include "../base/atom.h"

enum { PER_LINE = 64 / sizeof(uint64_t), TRIES = 4 };


size_t limit_cells_stride(uint32_t members) {
  return (members + PER_LINE - 1) / PER_LINE * PER_LINE;
}


static uint64_t *cell(const struct limit_cells *c, uint32_t row,
                      uint32_t member) {
  return c->at + row * c->stride + member;
}


/* Acquire pairs with the release in limit_cells_give(): what the owner did
 * under its slot is over when another takes the slot. */
uint64_t limit_cells_sum(const struct limit_cells *c, uint32_t row) {
  uint32_t top = __atomic_load_n(c->top, __ATOMIC_ACQUIRE);
  const uint64_t *cells = cell(c, row, 0);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < top; i++)
    sum += __atomic_load_n(&cells[i], __ATOMIC_ACQUIRE);
  return sum;
}


/* The first row of the list that is above its limit, or LIMIT_TAKEN. */
static inline int above(const struct limit_cells *c,
                        const struct limit_ask *ask, uint32_t count,
                        uint64_t *sum) {
  *sum = limit_cells_sum(c, ask->of[0].row);
  if ((uint32_t)*sum > ask->of[0].max)
    return 0;
  for (uint32_t i = 1; i < count; i++)
    if ((uint32_t)limit_cells_sum(c, ask->of[i].row) > ask->of[i].max)
      return (int)i;
  return LIMIT_TAKEN;
}


static inline void give(const struct limit_cells *c,
                        const struct limit_ask *ask, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    limit_cells_drop(c, ask->member, ask->of[i].row, ask->tokens);
}


/* All cells are raised before one is checked: the argument in cells.h needs
 * the own stores ahead of the fence, and one fence serves all limits. A
 * refusal is looked at again, at most TRIES times, because the sum may have
 * held another claim that was about to give up; without that, two claims on
 * the last slot could refuse each other while it stays free. */
static inline int take(const struct limit_cells *c,
                       const struct limit_ask *ask, uint32_t count,
                       uint64_t *sum) {
  uint64_t what = (uint64_t)ask->tokens << 32 | 1;
  for (int i = 1;; i++) {
    for (uint32_t n = 0; n < count; n++)
      atom_bump_u64(cell(c, ask->of[n].row, ask->member), what);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);    /* partner: all other claims' */
    int full = above(c, ask, count, sum);
    if (full == LIMIT_TAKEN)
      return full;
    give(c, ask, count);
    const struct limit_row *of = &ask->of[full];
    if (i == TRIES || (uint32_t)limit_cells_sum(c, of->row) >= of->max)
      return full;
  }
}


int limit_cells_take(const struct limit_cells *c, const struct limit_ask *ask,
                     uint64_t *sum) {
  return take(c, ask, ask->count, sum);
}


/* A function of its own, so that its loops are none: 4 ns of 70. */
int limit_cells_take_two(const struct limit_cells *c,
                         const struct limit_ask *ask, uint64_t *sum) {
  return take(c, ask, 2, sum);
}


/* The release pairs with the acquire of limit_cells_sum(). */
void limit_cells_drop(const struct limit_cells *c, uint32_t member,
                      uint32_t row, uint32_t tokens) {
  uint64_t what = (uint64_t)tokens << 32 | 1, *at = cell(c, row, member);
  __atomic_store_n(at, atom_get_u64(at) - what, __ATOMIC_RELEASE);
}


/* In the order of the list, a node's row ahead of the whole: a reader in
 * between sees at most one request too many on the whole, never a row above
 * it. */
void limit_cells_give(const struct limit_cells *c,
                      const struct limit_ask *ask) {
  give(c, ask, ask->count);
}


void limit_cells_clear(const struct limit_cells *c, uint32_t member,
                       uint32_t row) {
  __atomic_store_n(cell(c, row, member), 0, __ATOMIC_RELEASE);
}


/* Also correct in the middle of a take or a give of the dead owner: whatever
 * it had done by then, all of it is undone by zeroes. */
void limit_cells_reclaim(const struct limit_cells *c, uint32_t member,
                         uint32_t rows) {
  for (uint32_t row = 0; row < rows; row++)
    limit_cells_clear(c, member, row);
}
