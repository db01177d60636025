/* hold: what one attempt holds of the limits of its names: taken all or none,
 * settled once. It knows names as tags (keys.h) and no node.
 *
 *   look    finds the names and asks all limits, taking nothing
 *   rows    what it wants of the cells, for the one claim on all of them
 *   take    rates, then dollars, name by name in the order given; when one
 *           refuses, what was taken is undone in reverse: what passes in any
 *           window are requests that were let in, not those that came close
 *   settle  replaces the bookings by what came of them
 *
 * The record lies in the zone, beside the attempt's ticket, and is written
 * ahead of what it records: of a process that dies, its reaper finds every
 * cell, and each booking that the ticket stands for. Each part of it is
 * crossed out before it is given back, so nothing is given back twice; a death
 * between both loses one booking, which refills.
 *
 * Booked are, for each name: one request (where `requests` says so), the
 * tokens asked for or the burst if that is less, and the dollars asked for.
 * Of several limits that refuse, the one is told that passes last, or of
 * equals the first: by name in the order given, then in the order of enum
 * drover_limit_kind.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_HOLD_H
#define DROVER_LIMIT_HOLD_H

#include "keys.h"

enum { LIMIT_SCOPES = DROVER_SCOPE_KEY + 1 };

/* What of a name is held: bits of `kinds`. The rings of dollars are two. */
enum { HOLD_SLOT = 1, HOLD_REQUEST = 2, HOLD_TOKENS = 4, HOLD_DOLLARS = 8 };

struct limit_hold {
  uint64_t tag;
  uint32_t place;
  uint32_t kinds;                   /* HOLD_DOLLARS << enum limit_ring */
  uint32_t rpm, tpm;                /* the limit's, all parts of it */
  uint32_t tokens;                  /* booked */
  uint32_t spare;
};

struct limit_holds {                /* in the zone; its member writes */
  struct limit_hold of[LIMIT_SCOPES];
  int64_t  micro;                   /* dollars booked, in millionths */
  int64_t  input_micro;             /* of them for the prompt */
  uint32_t hour;                    /* when they were booked */
  uint32_t input_tokens;            /* the prompt's */
  uint32_t count;                   /* of `of` */
  uint32_t spare;
};

_Static_assert(sizeof(struct limit_holds) == 192, "three cache lines");

struct limit_want {                 /* what is asked of one name */
  const drover_limit *limit;
  uint32_t requests;                /* 1: one request is booked */
  uint32_t dollars;                 /* 1: they are limited */
  struct limit_rate rate[LIMIT_WORDS];          /* what look() made of it */
  int64_t  cost[LIMIT_WORDS];
  int64_t  max[LIMIT_RINGS];
  struct limit_step step[LIMIT_WORDS];          /* what take() did */
};

struct limit_claim {                /* one attempt that wants to pass */
  const struct limit_keys *keys;
  struct limit_holds *holds;        /* tags and count are the caller's */
  struct limit_want   want[LIMIT_SCOPES];
  uint64_t self;                    /* member_self() */
  uint32_t tokens;                  /* to be booked: prompt + max_tokens */
  uint32_t global;                  /* how many names come first, see look() */
  uint32_t asks;                    /* 1: counts where rates are shared */
  uint32_t dollars;                 /* 1: some name's are limited */
  double   now;
  int64_t  now_ns;
};

struct limit_refusal {
  uint32_t scope, kind;             /* of drover.h; DROVER_LIMIT_NONE: none */
  double   max;                     /* the limit; 0: none with a number */
  double   wait;                    /* seconds; 0: until something ends */
};

struct limit_bill {                 /* what came of an attempt */
  uint64_t self;
  uint32_t tokens;                  /* UINT32_MAX: as booked, dollars too */
  uint32_t lost;                    /* 1: nobody knows: the prompt's part */
  uint32_t sent;                    /* 0: it never went out, all comes back */
  double   dollars;                 /* NaN: as booked */
  double   now;
};


/* Ask all limits and prepare the record. `out` says who refuses. Names behind
 * the first `global` are not asked when one of those refuses. */
void limit_hold_look(struct limit_claim *c, struct limit_refusal *out);


/* Add the rows of names with a limit on what is in flight to a claim. */
void limit_hold_rows(const struct limit_claim *c, struct limit_ask *ask);


/* The refusal of row `i` of that claim, counted from the first that
 * limit_hold_rows() added. */
void limit_hold_full(const struct limit_claim *c, uint32_t i,
                     struct limit_refusal *out);


/* Book it all, behind the claim on the cells, or nothing: 1 when booked. When
 * not, `out` says who refuses, or DROVER_LIMIT_NONE: a name has moved
 * meanwhile, look again. The cells are the caller's to give back. */
int limit_hold_take(struct limit_claim *c, struct limit_refusal *out);


/* Replace what is booked by the bill. The cells are not touched. The member's
 * owner only, or its reaper. */
void limit_hold_settle(const struct limit_keys *k, struct limit_holds *h,
                       const struct limit_bill *bill);


/* Give the cells back; or, for the reaper, empty them. */
void limit_hold_drop(const struct limit_keys *k, const struct limit_holds *h,
                     uint32_t member, uint32_t tokens);
void limit_hold_clear(const struct limit_keys *k, const struct limit_holds *h,
                      uint32_t member);

#endif
