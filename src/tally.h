/* tally: counters, a set for each member, written by its owner alone (or its
 * reaper), added up by readers. A member's counters stay when it leaves and
 * its slot's next owner counts on: a sum never falls, and counting costs no
 * locked instruction.
 *
 * A row that gets another node keeps counting; what it had counted until then
 * is copied into a set of its own (`base`), and shown under the empty label.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_TALLY_H
#define DROVER_TALLY_H

#include "base/atom.h"
#include "base/err.h"

enum { TALLY_INPUT, TALLY_OUTPUT, TALLY_CACHED, TALLY_TOKENS };
enum { TALLY_SCOPES = 5, TALLY_KINDS = 8,       /* of drover.h */
       TALLY_LIMITS = TALLY_SCOPES * TALLY_KINDS };
enum { TALLY_OVERHEAD = 12, TALLY_FIRST = 16 };     /* buckets, the last +Inf */
enum { TALLY_COUNTS = DROVER_STORE_ERROR + 1 };     /* enum drover_counter */

struct tally_node {                 /* of one row, by one member */
  uint64_t tokens[TALLY_TOKENS];
  double   dollars;
  uint64_t attempts[ERR_KINDS];     /* by err_row() of how they ended */
  uint64_t outcomes[ERR_KINDS];     /* of requests */
};

struct tally_router {               /* of one member */
  uint64_t overhead[TALLY_OVERHEAD + 1];
  uint64_t first[TALLY_FIRST + 1];
  double   overhead_sum, first_sum; /* seconds */
  uint64_t refused[TALLY_LIMITS];   /* by tally_limit() */
  uint64_t counts[TALLY_COUNTS];
};

struct tally {                      /* a view: the sets lie in the zone */
  struct tally_router *routers;     /* one a member */
  struct tally_node   *nodes;       /* [member][row]; the last set is `base` */
  uint32_t rows;                    /* row 0: no node */
  uint32_t members;
  const uint32_t *top;              /* members ever in use lie below */
};

extern const double tally_overhead_bounds[TALLY_OVERHEAD];     /* seconds */
extern const double tally_first_bounds[TALLY_FIRST];


/* The number of a limit that refused: enum drover_scope, drover_limit_kind. */
static inline uint32_t tally_limit(uint32_t scope, uint32_t kind) {
  return scope * TALLY_KINDS + kind;
}


/* Bytes of the span. */
size_t tally_size(uint32_t members, uint32_t rows);


/* The view of a span. */
struct tally tally_view(void *span, uint32_t members, uint32_t rows,
                        const uint32_t *top);


/* A member's counters of a row. */
static inline struct tally_node *tally_of(const struct tally *t,
                                          uint32_t member, uint32_t row) {
  return &t->nodes[(size_t)member * t->rows + row];
}


/* The sum over all members: of a row's present node, or (`base`) of those
 * that held the row before. Any thread. */
void tally_sum(const struct tally *t, uint32_t row, struct tally_node *out);
void tally_base(const struct tally *t, uint32_t row, struct tally_node *out);
void tally_sum_router(const struct tally *t, struct tally_router *out);


/* The row gets another node: its count so far becomes `base`. */
void tally_rebase(const struct tally *t, uint32_t row);


/* All that is counted as requests or attempts, and what of it is a failure:
 * neither ok nor cancelled. */
double tally_total(const uint64_t kinds[ERR_KINDS]);
double tally_failed(const uint64_t kinds[ERR_KINDS]);

#endif
