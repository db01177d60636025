/* feed: what an attempt's outcome says about its node, to the averages and the
 * breaker.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "hall.h"
#include "node/average.h"


/* What the outcome says about the node. A refusal of this one request (a bad
 * request, a content policy) still shows that the node answers; our own
 * mistakes and cancellations show nothing. */
static enum breaker_verdict verdict_of(const drover_outcome *o, int sent) {
  if (o->code && err_hurts_node(o->code))
    return BREAKER_FAILURE;
  if (!sent)
    return BREAKER_NEUTRAL;
  switch (o->code) {
  case DROVER_OK: case DROVER_EBADREQUEST: case DROVER_ECONTEXT:
  case DROVER_EPOLICY: case DROVER_ENOTFOUND: case DROVER_ETOOLARGE:
    return BREAKER_SUCCESS;
  default:
    return BREAKER_NEUTRAL;
  }
}


/* The jitter of an opening is drawn from the decision's number. */
static double jitter(double rnd, uint32_t epoch, uint32_t node) {
  uint64_t bits;
  memcpy(&bits, &rnd, sizeof bits);
  bits = hash_mix(bits + ((uint64_t)epoch << 32 | node));
  return (double)(bits >> 11) * 0x1p-53;
}


/* Averages take only outcomes that say something about the node. An opening
 * lowers the zone's hint `due_at`; two at once may leave the later one
 * there, which the next tick corrects. */
void feed_node(struct drover_router *r, const struct ticket *t,
               const drover_outcome *o, double now, double rnd) {
  drover_node *row = &r->table.rows[t->node];
  struct node_row *own = &r->table.own[t->node];
  enum breaker_verdict verdict = verdict_of(o, (int)t->sent);
  int failed = verdict == BREAKER_FAILURE;
  if (verdict != BREAKER_NEUTRAL) {
    struct node_sample s = {
      .failed = failed, .replied = !failed,
      .first_token_ms = o->first_token_ms, .token_ms = o->token_ms,
    };
    node_average_feed(row, own, &s, now);
  }
  if (failed)
    __atomic_store_n(&own->last_code, o->code, __ATOMIC_RELAXED);
  double until = node_breaker_leave(row, own, &t->permit, verdict, now,
                   failed ? jitter(rnd, t->permit.epoch, t->node) : 0);
  if (until > 0 && until < atom_get_f64(&r->shared->due_at))
    atom_set_f64(&r->shared->due_at, until);
}
