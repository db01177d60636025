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


/* Both cells are raised before either is checked: the argument in cells.h
 * needs the own stores ahead of the fence, and one fence serves both limits.
 * A refusal is looked at again, at most TRIES times, because the sum may
 * have held another claim that was about to give up; without that, two
 * claims on the last slot could refuse each other while it stays free. */
enum limit_verdict limit_cells_take(const struct limit_cells *c,
                                    const struct limit_ask *ask,
                                    uint64_t *sum) {
  uint64_t what = (uint64_t)ask->tokens << 32 | 1;
  for (int i = 1;; i++) {
    atom_bump_u64(cell(c, 0, ask->member), what);
    atom_bump_u64(cell(c, ask->row, ask->member), what);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);    /* partner: all other claims' */
    *sum = limit_cells_sum(c, ask->row);
    int row_full = (uint32_t)*sum > ask->row_max;
    if (!row_full && (uint32_t)limit_cells_sum(c, 0) <= ask->all_max)
      return LIMIT_TAKEN;
    limit_cells_give(c, ask->member, ask->row, ask->tokens);
    /* Two that came at once may have refused each other: look again. */
    uint32_t max = row_full ? ask->row_max : ask->all_max;
    if (i == TRIES ||
        (uint32_t)limit_cells_sum(c, row_full ? ask->row : 0) >= max)
      return row_full ? LIMIT_ROW_FULL : LIMIT_ALL_FULL;
  }
}


/* The row first, then the whole: a reader in between sees at most one
 * request too many on the whole, never a row above it. The releases pair
 * with the acquires of limit_cells_sum(). */
void limit_cells_give(const struct limit_cells *c, uint32_t member,
                      uint32_t row, uint32_t tokens) {
  uint64_t what = (uint64_t)tokens << 32 | 1;
  uint64_t *of_row = cell(c, row, member), *of_all = cell(c, 0, member);
  __atomic_store_n(of_row, atom_get_u64(of_row) - what, __ATOMIC_RELEASE);
  __atomic_store_n(of_all, atom_get_u64(of_all) - what, __ATOMIC_RELEASE);
}


/* Also correct in the middle of a take or a give of the dead owner: whatever
 * it had done by then, all of it is undone by zeroes. */
void limit_cells_reclaim(const struct limit_cells *c, uint32_t member) {
  for (uint32_t row = 0; row < c->rows; row++)
    __atomic_store_n(cell(c, row, member), 0, __ATOMIC_RELEASE);
}
