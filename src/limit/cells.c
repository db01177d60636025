/* cells: see cells.h for the argument.
 *
 * SPDX-License-Identifier: MIT */
#include "cells.h"

#include "../base/atom.h"

enum { PER_LINE = 64 / sizeof(uint64_t), TRIES = 4 };


static uint64_t *own(const struct limit_cells *c, uint32_t member) {
  return c->at + member * c->stride;
}


size_t limit_cells_stride(uint32_t rows) {
  return (rows + PER_LINE - 1) / PER_LINE * PER_LINE;
}


/* Acquire pairs with the release in limit_cells_give(): what the owner did
 * under its slot is over when another takes the slot. */
uint64_t limit_cells_sum(const struct limit_cells *c, uint32_t row) {
  uint32_t top = __atomic_load_n(c->top, __ATOMIC_ACQUIRE);
  const uint64_t *cell = c->at + row;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < top; i++, cell += c->stride)
    sum += __atomic_load_n(cell, __ATOMIC_ACQUIRE);
  return sum;
}


static void add(uint64_t *cells, uint32_t row, uint64_t what) {
  atom_bump_u64(&cells[0], what);
  atom_bump_u64(&cells[row], what);
}


enum limit_verdict limit_cells_take(const struct limit_cells *c,
                                    const struct limit_ask *ask,
                                    uint64_t *sum) {
  uint64_t what = (uint64_t)ask->tokens << 32 | 1;
  uint64_t *cells = own(c, ask->member);
  for (int i = 1;; i++) {
    add(cells, ask->row, what);
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


void limit_cells_give(const struct limit_cells *c, uint32_t member,
                      uint32_t row, uint32_t tokens) {
  uint64_t what = (uint64_t)tokens << 32 | 1;
  uint64_t *cells = own(c, member);
  __atomic_store_n(&cells[row], atom_get_u64(&cells[row]) - what,
                   __ATOMIC_RELEASE);
  __atomic_store_n(&cells[0], atom_get_u64(&cells[0]) - what,
                   __ATOMIC_RELEASE);
}


void limit_cells_reclaim(const struct limit_cells *c, uint32_t member) {
  uint64_t *cells = own(c, member);
  for (size_t row = 0; row < c->stride; row++)
    __atomic_store_n(&cells[row], 0, __ATOMIC_RELEASE);
}
