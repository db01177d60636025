/* claim: takes the limits of a row that was chosen, all or none, and opens the
 * ticket; or gives everything back and says which limit refused.
 *
 * SPDX-License-Identifier: MIT */
#include "base/err.h"
#include "hall.h"
#include "node/upstream.h"


static void mark(uint64_t *bits, uint32_t node) {
  bits[(node - 1) >> 6] |= UINT64_C(1) << ((node - 1) & 63);
}


/* Masked for this decision only: the next one starts with an empty mask,
 * since a slot may be free by then. */
static int refuse(drover_pick *p, uint32_t node, drover_err *err,
                  const char *why) {
  mark(p->masked, node);
  p->node = 0;
  return drover_fail(err, DROVER_EAGAIN, "node %u %s", node, why);
}


static uint32_t tokens_of(const drover_pick *p) {
  uint32_t sum = p->prompt_tokens + p->max_tokens;
  return sum < p->max_tokens ? UINT32_MAX : sum;
}


/* The slot is taken and the permit held: open the ticket, or give both back.
 * The word is read again behind the claim's fence: a row that was removed or
 * opened meanwhile must not get another node under this claim. */
static int open_ticket(struct drover_router *r, drover_pick *p,
                       const struct limit_ask *take,
                       const struct breaker_permit *permit, drover_err *err) {
  uint32_t node = take->row;
  int holds = node_breaker_holds(&r->table.own[node], permit);
  p->ticket = holds ? ticket_open(r, node, take->tokens, permit) : 0;
  if (!p->ticket) {
    limit_cells_give(&r->cells, take->member, node, take->tokens);
    node_upstream_give(&r->table.own[node], 1, take->tokens, p->now);
    node_breaker_leave(&r->table.rows[node], &r->table.own[node], permit,
                       BREAKER_NEUTRAL, p->now, 0);
    return holds ? drover_fail(err, DROVER_ERESOURCE, "all %u tickets of this "
                               "member are open", r->tickets_max)
                 : refuse(p, node, err, "went out meanwhile");
  }
  p->serial = r->serial;
  p->node = node;
  p->version = __atomic_load_n(&r->table.rows[node].version,
                               __ATOMIC_ACQUIRE);
  return DROVER_OK;
}


/* A full row sends the policy on to another; a full router ends the
 * decision, because no row could help. */
static int full(struct drover_router *r, drover_pick *p,
                const struct limit_ask *take, enum limit_verdict verdict,
                drover_err *err) {
  int limit = verdict == LIMIT_ALL_FULL ? TALLY_LIMIT_ROUTER
                                        : TALLY_LIMIT_NODE;
  atom_bump_u64(&r->tally.routers[take->member].refused[limit], 1);
  if (verdict == LIMIT_ROW_FULL)
    return refuse(p, take->row, err, "is at its capacity");
  p->node = 0;
  return drover_fail(err, DROVER_EOVERLOADED, "the router has its %u requests "
                     "in flight", take->all_max);
}


/* The breaker's word, and what the node itself says is left. */
static int enter(struct drover_router *r, drover_pick *p, uint32_t node,
                 struct breaker_permit *permit, drover_err *err) {
  drover_node *row = &r->table.rows[node];
  struct node_row *own = &r->table.own[node];
  double wait;
  if (!node_breaker_enter(row, own, p->now, permit) &&
      !(p->panic && node_breaker_panic(own, permit)))
    return refuse(p, node, err, "may not be chosen");
  if (node_upstream_take(own, tokens_of(p), p->now, &wait))
    return DROVER_OK;
  node_breaker_leave(row, own, permit, BREAKER_NEUTRAL, p->now, 0);
  p->refused_scope = DROVER_SCOPE_NODE;
  p->refused_kind = DROVER_LIMIT_UPSTREAM;
  if (!(p->wait > 0) || wait < p->wait)
    p->wait = wait;
  return refuse(p, node, err, "says that nothing is left of its rate");
}


/* Of a row that may be chosen, room aside. */
int claim_row(struct drover_router *r, drover_pick *p, uint32_t node,
                 drover_err *err) {
  int member = ticket_member(r, err);
  if (member < 0)
    return member;
  drover_node *row = &r->table.rows[node];
  struct node_row *own = &r->table.own[node];
  struct breaker_permit permit;
  int rc = enter(r, p, node, &permit, err);
  if (rc)
    return rc;
  struct limit_ask take = {
    .member = (uint32_t)member, .row = node, .tokens = tokens_of(p),
    .all_max = atom_get_u32(&r->shared->concurrent),
    .row_max = atom_get_u32(&row->capacity),
  };
  uint64_t sum;
  enum limit_verdict verdict = limit_cells_take(&r->cells, &take, &sum);
  if (verdict != LIMIT_TAKEN) {
    node_upstream_give(own, 1, take.tokens, p->now);
    if (permit.probe)
      node_breaker_leave(row, own, &permit, BREAKER_NEUTRAL, p->now, 0);
    route_renew(r, node);
    return full(r, p, &take, verdict, err);
  }
  atom_set_u32(&row->inflight, (uint32_t)sum);
  atom_set_u32(&row->inflight_tokens, (uint32_t)(sum >> 32));
  return open_ticket(r, p, &take, &permit, err);
}


/* For policies of the caller's own: whatever they answer is checked here as
 * if it were wrong. */
int drover_pick_claim(drover_router *r, drover_pick *p, uint32_t node,
                      drover_err *err) {
  struct node_view v = hall_view(r, p, p->rnd);
  if (!route_known(r, node) || p->ticket)
    return drover_fail(err, DROVER_EINVAL, p->ticket
                       ? "the pick holds a ticket" : "no such node");
  if ((p->only && p->only != node) || !node_able(&v, node))
    return refuse(p, node, err, "may not be chosen");
  return claim_row(r, p, node, err);
}
