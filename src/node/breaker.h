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
 * Each step is one compare-and-swap. What an outcome makes of the word, and
 * all figures, are in state.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_BREAKER_H
#define DROVER_NODE_BREAKER_H

#include "row.h"
#include "state.h"

enum breaker_pass { BREAKER_USUAL, BREAKER_PROBE,
                    BREAKER_PANIC };    /* let in though out: says nothing */

enum breaker_turn { BREAKER_SAME, BREAKER_OUT, BREAKER_BACK };

struct breaker_permit {             /* what a ticket remembers */
  uint32_t epoch;
  uint32_t probe;                   /* enum breaker_pass */
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


/* No other row is up: try one that is out for its failures sooner; 1 when its
 * time was brought forward. */
int node_breaker_hurry(drover_node *row, struct node_row *own, double now,
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
