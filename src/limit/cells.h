/* cells: exact limits on what is in flight, over all members of a zone,
 * without a lock and without a counter that a dead process could leave wrong.
 * It knows rows and members by number only.
 *
 * One 64-bit cell for each row and member: requests in the low half, their
 * tokens in the high half. Only the member's owner writes it (or its reaper,
 * when it is dead): +1 is a plain store. What is in flight on a row is the sum
 * over the members. A row's cells lie together, eight members to a cache line:
 * a claim writes one of them and reads all, so one line that it owns does for
 * both (two processes at once, two_choices over 16 nodes: 220 ns a turn, 280
 * with a member's cells together).
 *
 * Why a limit is never passed. A claim is: store the own cells + 1 in all of
 * its rows (a node's, the whole's, those of names), one
 * sequentially consistent fence, sum over the members, give up when the sum is
 * above the limit. Suppose L + 1 admitted claims were held at one time, and
 * take the one whose fence comes last in the one order of all fences. Each of
 * the others stored its cell before its own fence, so before this one, and
 * this claim's loads stand behind it: they read that store or a later one of
 * the same owner. A cell never falls below the claims that its owner still
 * holds, and all are still held, so the sum was L + 1 at least, and this claim
 * would have given up. The word `top` is raised, before a new member's first
 * claim, by the same rule, so no member is left out of a sum. A claim that
 * gives up may be counted by others for a moment: then they are refused too
 * early, never admitted too late; hence the second look below.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_CELLS_H
#define DROVER_LIMIT_CELLS_H

#include <stddef.h>
#include <stdint.h>

struct limit_cells {                /* a view: the cells lie in the zone */
  uint64_t       *at;               /* [row][member] */
  size_t          stride;           /* cells from one row to the next */
  const uint32_t *top;              /* members in use lie below */
};

enum { LIMIT_ROWS_MAX = 8, LIMIT_TAKEN = -1 };

struct limit_row { uint32_t row, max; };        /* requests */

struct limit_ask {                  /* one claim: all of its rows or none */
  uint32_t member;                  /* the asker's own slot */
  uint32_t tokens;                  /* prompt + max_tokens; only summed */
  uint32_t count;                   /* of `of`; each row once */
  struct limit_row of[LIMIT_ROWS_MAX];
};


/* Cells from one row to the next when there are so many members: whole cache
 * lines, so that no two rows share one. */
size_t limit_cells_stride(uint32_t members);


/* Take one request on each row of the list, all or none. LIMIT_TAKEN, and
 * *sum is the new sum of the first; else the place in the list of a row that
 * is full. Behind it stands one sequentially consistent fence, also for what
 * the caller did before. The member's owner only. */
int limit_cells_take(const struct limit_cells *c, const struct limit_ask *ask,
                     uint64_t *sum);


/* The same for a list of two. */
int limit_cells_take_two(const struct limit_cells *c,
                         const struct limit_ask *ask, uint64_t *sum);


/* Give back what was taken, from the first of the list on. The member's owner
 * only. */
void limit_cells_give(const struct limit_cells *c,
                      const struct limit_ask *ask);


/* Give one row of it back. The member's owner only. */
void limit_cells_drop(const struct limit_cells *c, uint32_t member,
                      uint32_t row, uint32_t tokens);


/* What is in flight on a row, tokens << 32 | requests. Any thread. */
uint64_t limit_cells_sum(const struct limit_cells *c, uint32_t row);


/* All cells of a dead member become 0: in the rows below `rows`, or in one.
 * Its reaper only. */
void limit_cells_reclaim(const struct limit_cells *c, uint32_t member,
                         uint32_t rows);
void limit_cells_clear(const struct limit_cells *c, uint32_t member,
                       uint32_t row);

#endif
