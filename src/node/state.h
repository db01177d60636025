/* state: the breaker's word taken apart, and what an outcome makes of it: pure
 * functions, without memory, clock or chance of their own. The rules:
 *
 * `mark`: a PROBE has had its first success; a CLOSED row is in its slow start
 * since the deadline. `admin` is the operator's word: active, draining,
 * removed.
 *
 * What an outcome does (its ticket's permit has the row's epoch), in this
 * order; all else leaves the word as it is:
 *
 *   0. COOL that is due counts as CLOSED. The share counts success, failure
 *      and 429 (share.h), before all that follows.
 *   1. success: fails = 0. CLOSED: cools = 0. PROBE: the first leaves PROBE,
 *      marked, due at once; the second closes: deadline = now, cools = 0,
 *      marked; the share is cleared.
 *   2. failure: fails + 1. PROBE: opens, for the reason it had (a key's
 *      probe: FAILURES). Else, from 5 fails on, opens (FAILURES); else, with
 *      10 outcomes or more of which less than half are successes, opens
 *      (SHARE); else a Retry-After cools.
 *   3. 429: PROBE: opens as in 2 (fails stay). CLOSED: cools, for its
 *      Retry-After (300 s at most) or rnd * min(60 s, 1 s * 2^cools), 50 ms
 *      at least, and cools + 1. COOL: its Retry-After, if it has one.
 *   4. 401 or 403: KEY for min(3600 s, 60 s * 2^k) or its Retry-After (an
 *      hour at most), k + 1. Quota: KEY for 3600 s or its Retry-After (24 h at
 *      most); k stays.
 *   5. nothing learned: PROBE goes back to OPEN or KEY, due at once.
 *
 * Opening: d = min(300 s, 5 s * 2^k), until now + d/2 + rnd * d/2, or its
 * Retry-After (300 s at most); then k + 1, 6 at most. Whoever leaves CLOSED
 * takes one off k for each full 60 s since the deadline; then k is 0 when the
 * last trouble was a key's and this is not, or the other way round. Leaving
 * COOL never makes the deadline earlier. The epoch grows with each opening,
 * each refused key and each permit of a probe.
 *
 * Hurried (drought.h) is OPEN that is due later than in 2 s, but not later
 * than a back-off of its own may be (then the node has asked for the time): it
 * is due in 1 s + rnd * 1 s.
 *
 * Another epoch is that of a late reply (from before an opening, or of a probe
 * whose lease ran out): it changes nothing, only a Retry-After (300 s at most)
 * of a failure or 429 makes the deadline of OPEN, COOL and KEY later. So it is
 * with a reply to what panic let in, whatever its epoch.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_STATE_H
#define DROVER_NODE_STATE_H

#include <math.h>

#include "../drover.h"

enum { BREAKER_FAILS = 5,           /* in a row, before a node goes out */
       BREAKER_LEAST = 10 };        /* outcomes, before their share counts */
#define BREAKER_BASE   5.0          /* seconds, doubled by each opening */
#define BREAKER_CAP    300.0
#define BREAKER_HURRY  2.0          /* at most, while no other row is up */
#define BREAKER_LEASE  30.0         /* of a probe */
#define BREAKER_HEAL   60.0         /* healthy seconds that undo a doubling */
#define BREAKER_SLOW   30.0         /* of slow start, */
#define BREAKER_PART   0.1f         /* of the weight, at its beginning */
#define BREAKER_COOL   1.0          /* 429 without Retry-After, then doubled */
#define BREAKER_COOL_CAP 60.0
#define BREAKER_COOL_MIN 0.05
#define BREAKER_KEY    60.0         /* a refused key, doubled by each refusal */
#define BREAKER_KEY_CAP 3600.0
#define BREAKER_QUOTA  3600.0
#define BREAKER_QUOTA_CAP 86400.0

enum breaker_admin { BREAKER_ACTIVE, BREAKER_DRAINING, BREAKER_REMOVED };

enum breaker_verdict { BREAKER_NEUTRAL, BREAKER_SUCCESS, BREAKER_FAILURE,
                       BREAKER_LIMITED, BREAKER_REFUSED, BREAKER_SPENT };

struct breaker_said {               /* how a request went */
  enum breaker_verdict verdict;     /* LIMITED: 429, REFUSED: 401 or 403, */
  float  retry_after;               /* SPENT: quota; seconds, 0: none */
  double rnd;                       /* 0..1, draws the jitter */
};

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


/* The same row, tried sooner because there is no other. */
struct node_state node_state_hurried(struct node_state f, double now,
                                     double rnd);


/* Seconds of a Retry-After that count; 0: none. */
static inline double node_state_wait(const struct breaker_said *said,
                                     double cap) {
  double after = (double)said->retry_after;
  return after > 0 ? fmin(after, cap) : 0;
}


/* What policies and operators see: enum drover_state. */
uint32_t node_state_shown(struct node_state f);

#endif
