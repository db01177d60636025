/* route: one decision. A policy proposes a row, the claim takes the limits of
 * router and node at once and opens the ticket; a row that refuses is masked
 * and the policy asked again. Whoever has just summed a row's cells stores the
 * sum in the row (`inflight`): policies read that, only the claim is exact.
 *
 * A row that is out and due for its probe goes before the policy: a policy
 * that prefers what answers well would never choose it again.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "hall.h"


void drover_pick_reset(drover_pick *p) {
  memset(p->tried, 0, sizeof p->tried);
}


/* Readers may see the new count with the old tokens; both are advisory. */
uint32_t route_renew(struct drover_router *r, uint32_t node) {
  uint64_t sum = limit_cells_sum(&r->cells, node);
  atom_set_u32(&r->table.rows[node].inflight, (uint32_t)sum);
  atom_set_u32(&r->table.rows[node].inflight_tokens, (uint32_t)(sum >> 32));
  return (uint32_t)sum;
}


/* ---- probes ---- */

/* By each tick and after an operator's word, over all rows. Openings in
 * between lower the hint themselves (ticket.c), so it is late for nobody by
 * more than a tick. */
void route_plan_probes(struct drover_router *r) {
  uint32_t count = atom_get_u32(r->table.count);
  double due = INFINITY;
  for (uint32_t i = 1; i <= count; i++)
    due = fmin(due, node_breaker_deadline(&r->table.own[i]));
  atom_set_f64(&r->shared->due_at, due);
}


/* The hint in the zone makes this one comparison while nothing is due. */
static inline int any_due(const struct drover_router *r, double now) {
  return !(now < atom_get_f64(&r->shared->due_at));
}


/* A row that may be probed by this request, or 0. */
static uint32_t due_row(const struct node_view *v) {
  if (v->pick->only)
    return 0;
  for (uint32_t i = 1; i <= v->count; i++)
    if (atom_get_u32(&v->rows[i].state) != DROVER_UP && node_may(v, i))
      return i;
  return 0;
}


/* ---- asking ---- */

/* A rnd out of [0, 1) becomes 0: a row number is computed from it, and a NaN
 * there would be undefined. */
void drover_pick_begin(drover_router *r, drover_pick *p, double now,
                       double rnd) {
  memset(p->masked, 0, sizeof p->masked);
  p->now = now;
  p->rnd = rnd >= 0 && rnd < 1 ? rnd : 0;
  if (any_due(r, now)) {
    struct node_view v = hall_view(r, p, p->rnd);
    p->node = due_row(&v);
  }
}


/* The row's word says full first; only then are the cells summed, because
 * the word may be stale after two settlings at once. */
int drover_pick_may(drover_router *r, const drover_pick *p, uint32_t node) {
  struct node_view v = hall_view(r, p, p->rnd);
  if (!route_known(r, node) || (p->only && p->only != node) || !node_able(&v, node))
    return 0;
  return !node_full(&v, node) ||
         route_renew(r, node) < atom_get_u32(&v.rows[node].capacity);
}


int drover_pick_tried(const drover_pick *p, uint32_t node) {
  return node - 1 < 512 && (p->tried[(node - 1) >> 6] >> ((node - 1) & 63) & 1);
}


/* Rows that look full: are they? 1 when one is not. */
static int renew_full(struct drover_router *r, const struct node_view *v) {
  int room = 0;
  for (uint32_t i = 1; i <= v->count; i++)
    if (node_able(v, i) && node_full(v, i))
      room |= route_renew(r, i) < atom_get_u32(&v->rows[i].capacity);
  return room;
}


/* What policies see are advisory words, so before "none" is believed those
 * of rows that look full are renewed from the cells and the policy is asked
 * once more. */
static uint32_t ask(struct drover_router *r, struct node_view *v) {
  uint32_t only = v->pick->only;
  if (only)
    return drover_pick_may(r, v->pick, only) ? only : 0;
  if (v->count == 0)
    return 0;
  uint32_t node = any_due(r, v->pick->now) ? due_row(v) : 0;
  if (!node)
    node = node_policies[r->policy].pick(v);
  if (!node && renew_full(r, v))
    node = node_policies[r->policy].pick(v);
  if (v->unqualified)
    drover_count(r, DROVER_UNQUALIFIED);
  return node;
}


/* Claims nothing: for policies in Lua that fall back on the built-in one,
 * and for trials. */
int drover_pick_choose(drover_router *r, drover_pick *p, drover_err *err) {
  struct node_view v = hall_view(r, p, p->rnd);
  p->node = ask(r, &v);
  return p->node ? DROVER_OK : drover_pick_why(r, p, err);
}


/* Only after a decision failed, so it may walk all rows. The narrowest true
 * reason is given, in this order, because it decides what the caller does:
 * configuration is wrong, wait for a probe, wait for room. The last one
 * counts as a refusal by a node's limit. */
int drover_pick_why(drover_router *r, drover_pick *p, drover_err *err) {
  struct node_view v = hall_view(r, p, p->rnd);
  uint32_t present = 0, takes = 0, up = 0, untried = 0;
  for (uint32_t i = 1; i <= v.count; i++) {
    uint32_t state = atom_get_u32(&v.rows[i].state);
    if (state == DROVER_REMOVED || (p->only && p->only != i))
      continue;
    present++;
    if (!node_table_takes(&v.own[i], p->model))
      continue;
    takes++;
    if (state != DROVER_UP && (state >= DROVER_DRAINING ||
                               !node_breaker_due(&v.own[i], p->now)))
      continue;
    up++;
    untried += p->again || !drover_pick_tried(p, i);
  }
  if (!present)
    return drover_fail(err, DROVER_ENONODE, p->only ? "the node is gone"
                       : "the router has no nodes");
  if (!takes)
    return drover_fail(err, DROVER_ENOTFOUND, "no node takes the model");
  if (!up)
    return drover_fail(err, DROVER_ENONODE, "none of %u nodes is up", takes);
  if (!untried)
    return drover_fail(err, DROVER_ENONODE, "each of %u nodes that are up was "
                       "tried", up);
  int m = ticket_member(r, NULL);
  if (m >= 0)
    atom_bump_u64(&r->tally.routers[m].refused[TALLY_LIMIT_NODE], 1);
  return drover_fail(err, DROVER_EOVERLOADED, "each of %u nodes is at its "
                     "capacity", untried);
}


/* ---- ask and claim ---- */

/* At most one try a row, each of which masks its row, so the loop ends. What
 * ask() found able needs no check before its claim; the claim itself looks
 * at the breaker's word again. */
int drover_pick_node(drover_router *r, drover_pick *p, double now, double rnd,
                     drover_err *err) {
  if (p->ticket)
    return drover_fail(err, DROVER_EINVAL, "the pick holds a ticket");
  rnd = rnd >= 0 && rnd < 1 ? rnd : 0;
  drover_pick_begin(r, p, now, rnd);
  struct node_view v = hall_view(r, p, rnd);
  uint32_t tries = v.count;
  do {
    uint32_t node = ask(r, &v);
    if (!node)
      break;
    int rc = claim_row(r, p, node, err);
    if (rc != DROVER_EAGAIN)
      return rc;
  } while (tries--);
  return drover_pick_why(r, p, err);
}
