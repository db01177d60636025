/* feed: what an attempt's outcome says about its node, to the averages and the
 * breaker, and what a reply's headers say of the node's own limits.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"
#include "hall.h"
#include "node/average.h"
#include "node/share.h"
#include "node/upstream.h"


/* What the outcome says about the node. A refusal of this one request (a bad
 * request, a content policy) still shows that the node answers; our own
 * mistakes and cancellations show nothing. */
static enum breaker_verdict verdict_of(const drover_outcome *o, int sent) {
  switch (o->code) {
  case DROVER_ERATELIMITED: return BREAKER_LIMITED;
  case DROVER_EUNAUTHORIZED: return BREAKER_REFUSED;
  case DROVER_EQUOTA: return BREAKER_SPENT;
  default: break;
  }
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


/* The jitter of a deadline is drawn from the decision's number. */
static double jitter(double rnd, uint32_t epoch, uint32_t node) {
  uint64_t bits;
  memcpy(&bits, &rnd, sizeof bits);
  bits = hash_mix(bits + ((uint64_t)epoch << 32 | node));
  return (double)(bits >> 11) * 0x1p-53;
}


/* What the node's own limits were charged at the claim, less what it used: its
 * next header does not know of the difference. */
static void give_back(struct node_row *own, const struct ticket *t,
                      const drover_outcome *o, double now) {
  uint32_t used = t->sent ? o->tokens : 0;
  if (node_upstream_silent(own))
    return;
  if (used < t->tokens)             /* UINT32_MAX: the booking stands */
    node_upstream_give(own, !t->sent, t->tokens - used, now);
}


/* Averages take only outcomes that say something about the node. The zone's
 * hints follow a change at once; two changes at the same time may leave the
 * wrong one there, which the next tick corrects. */
void feed_node(struct drover_router *r, const struct ticket *t,
               const drover_outcome *o, double now, double rnd) {
  drover_node *row = &r->table.rows[t->node];
  struct node_row *own = &r->table.own[t->node];
  struct breaker_said said = {
    .verdict = verdict_of(o, (int)t->sent), .retry_after = o->retry_after,
  };
  int failed = said.verdict > BREAKER_SUCCESS;
  if (said.verdict != BREAKER_NEUTRAL) {
    struct node_sample s = {
      .failed = failed, .replied = !failed,
      .first_token_ms = o->first_token_ms, .token_ms = o->token_ms,
    };
    node_average_feed(row, own, &s, now);
  }
  if (failed) {
    __atomic_store_n(&own->last_code, o->code, __ATOMIC_RELAXED);
    said.rnd = jitter(rnd, t->permit.epoch, t->node);
  }
  give_back(own, t, o, now);
  if (said.verdict == BREAKER_NEUTRAL && t->permit.probe != BREAKER_PROBE)
    return;                         /* there is no permit to give back */
  switch (node_breaker_settle(row, own, &t->permit, &said, now)) {
  case BREAKER_OUT:
    if (node_breaker_deadline(own) < atom_get_f64(&r->shared->due_at))
      atom_set_f64(&r->shared->due_at, node_breaker_deadline(own));
    break;
  case BREAKER_BACK:
    atom_set_f64(&r->shared->slow_until, now + BREAKER_SLOW);
    break;
  case BREAKER_SAME:
    break;
  }
}


/* A row that is up may still be kept back by what it says of its own rate. */
void feed_stat(const struct drover_router *r, uint32_t node,
               drover_node_stats *out, double now) {
  const struct node_row *own = &r->table.own[node];
  out->why = (int32_t)node_breaker_why(own);
  out->out_for = node_breaker_out_for(own, now);
  out->success_share = node_share_rate(own, now);
  double wait = node_upstream_wait(own, now);
  if (wait > 0 && out->why == DROVER_WHY_NONE) {
    out->why = DROVER_WHY_RATE;
    out->out_for = wait;
  }
}


/* The version guards against a row that got another node while the reply was
 * under way; its ticket is still open when this is called in time. */
void drover_node_upstream(drover_router *r, uint32_t node, uint32_t version,
                          const drover_upstream *u, double now) {
  if (route_known(r, node) &&
      atom_get_u32(&r->table.rows[node].version) == version)
    node_upstream_set(&r->table.own[node], u, now);
}
