/* breaker: takes a row (a node with one key) out when it fails, is out of its
 * rate, or has its key refused, and brings it back. Right over all workers,
 * because the row's whole state is one word that every change swaps at once:
 *
 *   deadline (33 bits, 1/64 s) | epoch 13 | mark 1 | why 3 | k 3 | cools 3 |
 *   fails 3 | admin 2 | state 3
 *
 *          failures, share, outlier            one permit, 30 s lease
 *   CLOSED ----------------------> OPEN until t -----------------> PROBE
 *    | ^ ^                          ^    failure or 429: k + 1      | |
 *    | | |                          '-------------------------------' |
 *    | | '---- the second success, then slow start -------------------'
 *    | '- when due, by itself - COOL until t <--- 429, or Retry-After
 *    '------------------------> KEY until t ---> PROBE    401, 403, quota
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
 *   4. 401 or 403: KEY for min(3600 s, 60 s * 2^k) or its Retry-After, k + 1.
 *      Quota: KEY for 3600 s or its Retry-After, 24 h at most; k stays.
 *   5. nothing learned: PROBE goes back to OPEN or KEY, due at once.
 *
 * Opening: d = min(300 s, 5 s * 2^k), until now + d/2 + rnd * d/2, or its
 * Retry-After (300 s at most); then k + 1, 6 at most. Whoever leaves CLOSED
 * takes one off k for each full 60 s since the deadline; then k is 0 when the
 * last trouble was a key's and this is not, or the other way round. Leaving
 * COOL never makes the deadline earlier. The epoch grows with each opening,
 * each refused key and each permit of a probe.
 *
 * Another epoch is that of a late reply (from before an opening, or of a probe
 * whose lease ran out): it changes nothing, only a Retry-After (300 s at most)
 * of a failure or 429 makes the deadline of OPEN, COOL and KEY later.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_BREAKER_H
#define DROVER_NODE_BREAKER_H

#include "row.h"

enum { BREAKER_FAILS = 5,           /* in a row, before a node goes out */
       BREAKER_LEAST = 10 };        /* outcomes, before their share counts */
#define BREAKER_BASE   5.0          /* seconds, doubled by each opening */
#define BREAKER_CAP    300.0
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

enum breaker_pass { BREAKER_USUAL, BREAKER_PROBE,
                    BREAKER_PANIC };    /* let in though out: says nothing */

enum breaker_turn { BREAKER_SAME, BREAKER_OUT, BREAKER_BACK };

struct breaker_permit {             /* what a ticket remembers */
  uint32_t epoch;
  uint32_t probe;                   /* enum breaker_pass */
};

struct breaker_said {               /* how a request went */
  enum breaker_verdict verdict;     /* LIMITED: 429, REFUSED: 401 or 403, */
  float  retry_after;               /* SPENT: quota; seconds, 0: none */
  double rnd;                       /* 0..1, draws the jitter */
};


/* 1 when a row that is out may be probed, or has cooled, at `now`. */
int node_breaker_due(const struct node_row *own, double now);


/* May one request go to the row? Takes the permit of a probe when one is due.
 * 0 when refused. */
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out);


/* The same for a row that is out for its health, or being probed; 0 when it is
 * not. */
int node_breaker_panic(const struct node_row *own,
                       struct breaker_permit *out);
int node_breaker_ejected(const struct node_row *own);


/* 1 when what node_breaker_enter() said holds still: not removed, not drained,
 * not opened and not cooling since. Stands behind a claim's fence. */
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit);


/* How a request went. BREAKER_OUT: the row has a new deadline. BREAKER_BACK: it
 * begins its slow start. */
enum breaker_turn node_breaker_settle(drover_node *row, struct node_row *own,
                                      const struct breaker_permit *permit,
                                      const struct breaker_said *said,
                                      double now);


/* The same without a Retry-After. */
enum breaker_turn node_breaker_leave(drover_node *row, struct node_row *own,
                                     const struct breaker_permit *permit,
                                     enum breaker_verdict verdict, double now,
                                     double rnd);


/* Open a closed row because it is worse than the others; 1 when it was. */
int node_breaker_eject(drover_node *row, struct node_row *own, double now,
                       double rnd);


/* A row that has cooled is up again; 1 when this call did it. */
int node_breaker_wake(drover_node *row, struct node_row *own, double now);


/* By the tick: wake it, and let the weight follow the slow start. Any number
 * of processes. */
void node_breaker_tend(drover_node *row, struct node_row *own, double now);


/* The part of its configured weight that a row has now: 1 but in slow start. */
float node_breaker_part(const struct node_row *own, double now);


/* Set the operator's word, and show the state in the row. `only_from` >= 0:
 * not unless it is that now. 1 when it is set. */
int node_breaker_admin(drover_node *row, struct node_row *own,
                       enum breaker_admin to, int only_from);


/* A new node: closed, epoch one further, the operator's word as given, no
 * outcomes. `slow_from` > 0: in its slow start from then on. */
void node_breaker_reset(drover_node *row, struct node_row *own,
                        enum breaker_admin admin, double slow_from);


/* The operator has mended it: closed, as if nothing had been, in full. */
void node_breaker_clear(drover_node *row, struct node_row *own);


enum breaker_admin node_breaker_word(const struct node_row *own);


/* Consecutive failures (7 at most); seconds until it may be asked (0: now, or
 * a probe is out); when a probe may be due or a row has cooled, or infinity;
 * when its slow start ends, or 0. */
uint32_t node_breaker_fails(const struct node_row *own);
double node_breaker_out_for(const struct node_row *own, double now);
double node_breaker_deadline(const struct node_row *own);
double node_breaker_slow_until(const struct node_row *own);


/* 1 while a 429 or Retry-After keeps the row back. */
int node_breaker_cooling(const struct node_row *own, double now);


/* Why a row is not simply up. */
enum drover_why node_breaker_why(const struct node_row *own);

#endif
