/* state: the breaker's word taken apart, and what an outcome makes of it: the
 * rules in the head of breaker.h as pure functions, without memory, clock or
 * chance of their own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_STATE_H
#define DROVER_NODE_STATE_H

#include <math.h>

#include "breaker.h"

enum { STATE_CLOSED, STATE_OPEN, STATE_PROBE, STATE_COOL, STATE_KEY };

#define STATE_EPOCHS 0x1fffu
#define STATE_DEADLINE_MAX ((UINT64_C(1) << 33) - 1)
#define STATE_PER_SECOND 64.0       /* the deadline's unit; 4 years fit */

/* The usual word is closed, active, without failures or a 429: `cools`,
 * `fails`, `admin` and `state` are 0. */
#define STATE_UNUSUAL UINT64_C(0x7ff)
_Static_assert(STATE_CLOSED == 0 && BREAKER_ACTIVE == 0,
               "the usual word is zeros");

struct node_state {                 /* widths as breaker.h draws them */
  uint64_t deadline;
  uint32_t epoch, mark, why, k, cools, fails, admin, state;
};


/* Masks and shifts here and in node_state_pack() are the only places that
 * know the layout, with STATE_UNUSUAL above. */
static inline struct node_state node_state_unpack(uint64_t w) {
  return (struct node_state){
    .deadline = w >> 31, .epoch = (uint32_t)(w >> 18) & STATE_EPOCHS,
    .mark = w >> 17 & 1, .why = w >> 14 & 7, .k = w >> 11 & 7,
    .cools = w >> 8 & 7, .fails = w >> 5 & 7, .admin = w >> 3 & 3,
    .state = w & 7,
  };
}


/* `deadline` has been cut to 33 bits by node_state_units(). The epoch wraps:
 * a reply that is late by exactly 8192 openings and probes would count. */
static inline uint64_t node_state_pack(struct node_state f) {
  return f.deadline << 31 | (uint64_t)(f.epoch & STATE_EPOCHS) << 18 |
         (uint64_t)f.mark << 17 | (uint64_t)f.why << 14 |
         (uint64_t)f.k << 11 | (uint64_t)f.cools << 8 |
         (uint64_t)f.fails << 5 | (uint64_t)f.admin << 3 | f.state;
}


/* Rounded up: never due before its time. */
static inline uint64_t node_state_units(double seconds) {
  double u = ceil(seconds * STATE_PER_SECOND);
  if (!(u > 0))
    return 0;
  return u < (double)STATE_DEADLINE_MAX ? (uint64_t)u : STATE_DEADLINE_MAX;
}


static inline double node_state_seconds(struct node_state f) {
  return (double)f.deadline / STATE_PER_SECOND;
}


/* Out, or cooling, and its time has come. */
static inline int node_state_due(struct node_state f, double now) {
  return f.state != STATE_CLOSED && f.admin == BREAKER_ACTIVE &&
         now * STATE_PER_SECOND >= (double)f.deadline;
}


/* Its last trouble was its key's. */
static inline int node_state_of_key(struct node_state f) {
  return f.why == DROVER_WHY_KEY || f.why == DROVER_WHY_QUOTA;
}


/* After an outcome of a ticket that is not late. `low`: under half of the
 * share is successes. */
struct node_state node_state_next(struct node_state f,
                                  const struct breaker_said *said, int low,
                                  double now);


/* Opened at `now`, for that reason. */
struct node_state node_state_opened(struct node_state f, enum drover_why why,
                                    double now,
                                    const struct breaker_said *said);


/* Seconds of a Retry-After that count; 0: none. */
static inline double node_state_wait(const struct breaker_said *said,
                                     double cap) {
  double after = (double)said->retry_after;
  return after > 0 ? fmin(after, cap) : 0;
}


/* What policies and operators see: enum drover_state. */
uint32_t node_state_shown(struct node_state f);

#endif
