/* breaker: takes a node out after consecutive failures, for a growing time,
 * and lets one request probe it. Right over all workers, because a node's
 * whole state is one word that every change swaps at once:
 *
 *   deadline (34 bits, 1/128 s) | epoch 16 | fails 4 | k 4 | admin 2 | state 2
 *
 *            5 failures in a row                  one permit, 30 s lease
 *   CLOSED ----------------------> OPEN until t ------------------> PROBE
 *     ^                             ^   failure: 5 s * 2^k, k + 1     | |
 *     |                             '---------------------------------' |
 *     '------------------------ success --------------------------------'
 *
 * The epoch grows with each opening and lies in the ticket: a late reply from
 * before the opening neither closes nor opens anything. The deadline is that
 * of the opening, of the probe's lease, or the time of the last closing; a
 * dead prober's lease runs out, and the next request probes. Each healthy
 * minute takes one step off k. Constants: reliability, gRPC and Envoy use
 * equal jitter, d/2 + u * d/2, so that workers of many hosts do not probe in
 * step. `admin` is the operator's word: active, draining, removed.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_BREAKER_H
#define DROVER_NODE_BREAKER_H

#include "row.h"

enum { BREAKER_FAILS = 5 };         /* in a row, before a node goes out */
#define BREAKER_BASE   5.0          /* seconds, doubled by each opening */
#define BREAKER_CAP    300.0
#define BREAKER_LEASE  30.0         /* of a probe */
#define BREAKER_HEAL   60.0         /* healthy seconds that undo a doubling */

enum breaker_admin { BREAKER_ACTIVE, BREAKER_DRAINING, BREAKER_REMOVED };

enum breaker_verdict { BREAKER_NEUTRAL, BREAKER_SUCCESS, BREAKER_FAILURE };

struct breaker_permit {             /* what a ticket remembers */
  uint32_t epoch;
  uint32_t probe;                   /* 1: this request is the probe */
};


/* 1 when a row that is out may be probed at `now`. */
int node_breaker_due(const struct node_row *own, double now);


/* May one request go to the row? Takes the permit of a probe when one is due.
 * 0 when refused. */
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out);


/* 1 when what node_breaker_enter() said holds still: not removed, not drained
 * and not opened since. Stands behind a claim's fence. */
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit);


/* How a request went. `rnd` (0..1) draws the jitter. Neutral gives a probe's
 * permit back. Returns the deadline in seconds when this opened the row, else
 * 0. */
double node_breaker_leave(drover_node *row, struct node_row *own,
                          const struct breaker_permit *permit,
                          enum breaker_verdict verdict, double now,
                          double rnd);


/* Set the operator's word, and show the state in the row. `only_from` >= 0:
 * not unless it is that now. 1 when it is set. */
int node_breaker_admin(drover_node *row, struct node_row *own,
                       enum breaker_admin to, int only_from);


/* A new node: closed, epoch one further, the operator's word as given. */
void node_breaker_reset(drover_node *row, struct node_row *own,
                        enum breaker_admin admin);


enum breaker_admin node_breaker_word(const struct node_row *own);


/* Consecutive failures; seconds until the next probe (0: none is waited for);
 * when a probe may be due, or infinity. */
uint32_t node_breaker_fails(const struct node_row *own);
double node_breaker_out_for(const struct node_row *own, double now);
double node_breaker_deadline(const struct node_row *own);

#endif
