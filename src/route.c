/* route: one decision. A policy proposes a row, the claim takes the limits of
 * router and node at once and opens the ticket; a row that refuses is masked
 * and the policy asked again. Whoever has just summed a row's cells stores the
 * sum in the row (`inflight`): policies read that, only the claim is exact.
 *
 * A row that is out and due for its probe goes before the policy: a policy
 * that prefers what answers well would never choose it again. Where too few
 * are up for the load, those that are out take part (in_panic()).
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "hall.h"


void drover_pick_reset(drover_pick *p) {
  memset(p->tried, 0, sizeof p->tried);
  p->paid = 0;
}


/* Readers may see the new count with the old tokens; both are advisory. */
uint32_t route_renew(struct drover_router *r, uint32_t node) {
  uint64_t sum = limit_cells_sum(&r->cells, node);
  atom_set_u32(&r->table.rows[node].inflight, (uint32_t)sum);
  atom_set_u32(&r->table.rows[node].inflight_tokens, (uint32_t)(sum >> 32));
  return (uint32_t)sum;
}


/* ---- probes ---- */

/* By each tick and after an operator's word, over all rows. Changes in
 * between move the hints themselves (feed.c), so they are late for nobody by
 * more than a tick. */
void route_plan(struct drover_router *r) {
  uint32_t count = atom_get_u32(r->table.count);
  double due = INFINITY, slow = 0;
  for (uint32_t i = 1; i <= count; i++) {
    due = fmin(due, node_breaker_deadline(&r->table.own[i]));
    slow = fmax(slow, node_breaker_slow_until(&r->table.own[i]));
  }
  atom_set_f64(&r->shared->due_at, due);
  atom_set_f64(&r->shared->slow_until, slow);
}


/* The hint in the zone makes this one comparison while nothing is due. */
static inline int any_due(const struct drover_router *r, double now) {
  return !(now < atom_get_f64(&r->shared->due_at));
}


/* A row that may be probed by this request, or 0. Rows that have cooled need
 * no probe: they are up again, for the policy to choose. */
__attribute__((noinline))
static uint32_t due_row(struct drover_router *r, const struct node_view *v) {
  double now = v->pick->now;
  uint32_t woken = 0, row = 0;
  for (uint32_t i = 1; i <= v->count && !row; i++) {
    if (atom_get_u32(&v->rows[i].state) == DROVER_UP)
      continue;
    if (node_breaker_wake(&r->table.rows[i], &r->table.own[i], now))
      woken++;
    else if (!v->pick->only && node_may(v, i))
      row = i;
  }
  if (woken)
    route_plan(r);
  return row;
}


/* ---- asking ---- */

/* A rnd out of [0, 1) becomes 0: a row number is computed from it, and a NaN
 * there would be undefined. */
static inline void begin(struct drover_router *r, drover_pick *p, double now,
                         double rnd) {
  memset(p->masked, 0, sizeof p->masked);
  p->now = now;
  p->rnd = rnd >= 0 && rnd < 1 ? rnd : 0;
  p->panic = p->refused_scope = p->refused_kind = 0;
  p->wait = 0;
  if (any_due(r, now)) {
    struct node_view v = hall_view(r, p, p->rnd);
    p->node = due_row(r, &v);
  }
}


void drover_pick_begin(drover_router *r, drover_pick *p, double now,
                       double rnd) {
  begin(r, p, now, rnd);
}


/* The row's word says full first; only then are the cells summed, because
 * the word may be stale after two settlings at once. */
int drover_pick_may(drover_router *r, const drover_pick *p, uint32_t node) {
  struct node_view v = hall_view(r, p, p->rnd);
  if (!route_known(r, node) || (p->only && p->only != node) ||
      !node_able(&v, node))
    return 0;
  return !node_full(&v, node) ||
         route_renew(r, node) < atom_get_u32(&v.rows[node].capacity);
}


int drover_pick_tried(const drover_pick *p, uint32_t node) {
  return node - 1 < 512 && (p->tried[(node - 1) >> 6] >> ((node - 1) & 63) & 1);
}


static int is_masked(const drover_pick *p, uint32_t node) {
  return p->masked[(node - 1) >> 6] >> ((node - 1) & 63) & 1;
}


/* Rows that look full: are they? 1 when one is not. */
static int renew_full(struct drover_router *r, const struct node_view *v) {
  int room = 0;
  for (uint32_t i = 1; i <= v->count; i++)
    if (node_able(v, i) && node_full(v, i))
      room |= route_renew(r, i) < atom_get_u32(&v->rows[i].capacity);
  return room;
}


/* Fewer than half of the model's rows are up, and those have no room: then the
 * rows that are out for their health take part too. Not while one that is up
 * has room, though this request has tried it: with three of four dead, a
 * load spread over all would fail where one node still serves it. Not when
 * all are out: there the probes find the first that is back. Batches have what
 * others leave, which is nothing then. */
static int in_panic(const struct node_view *v) {
  uint32_t rows = 0, up = 0;
  if (v->pick->priority >= DROVER_BATCH)
    return 0;
  for (uint32_t i = 1; i <= v->count; i++) {
    uint32_t state = atom_get_u32(&v->rows[i].state);
    if (state >= DROVER_DRAINING ||
        !node_table_takes(&v->own[i], v->pick->model))
      continue;
    rows++;
    if (state != DROVER_UP)
      continue;
    up++;
    if (!node_full(v, i) && !is_masked(v->pick, i))
      return 0;
  }
  return up > 0 && up * 2 < rows;
}


/* The policy has answered none. Where only rows in their slow start could, they
 * do; what looks full is renewed from the cells, because policies see advisory
 * words; and in panic more rows take part. */
__attribute__((noinline))
static uint32_t look_harder(struct drover_router *r, drover_pick *p,
                            struct node_view *v) {
  const struct node_policy *policy = &node_policies[r->policy];
  v->ramping = 0;
  uint32_t node = policy->pick(v);
  if (!node && renew_full(r, v))
    node = policy->pick(v);
  if (!node && !p->panic && in_panic(v)) {
    p->panic = 1;
    node = policy->pick(v);
    if (node)
      drover_count(r, DROVER_PANIC);
  }
  return node;
}


static uint32_t ask(struct drover_router *r, drover_pick *p,
                    struct node_view *v) {
  if (p->only)
    return drover_pick_may(r, p, p->only) ? p->only : 0;
  if (v->count == 0)
    return 0;
  uint32_t node = any_due(r, p->now) ? due_row(r, v) : 0;
  if (!node)
    node = node_policies[r->policy].pick(v);
  if (!node)
    node = look_harder(r, p, v);
  if (v->unqualified)
    drover_count(r, DROVER_UNQUALIFIED);
  return node;
}


/* Claims nothing: for policies in Lua that fall back on the built-in one,
 * and for trials. */
int drover_pick_choose(drover_router *r, drover_pick *p, drover_err *err) {
  struct node_view v = hall_view(r, p, p->rnd);
  p->node = ask(r, p, &v);
  return p->node ? DROVER_OK : drover_pick_why(r, p, err);
}


/* ---- why none will do ---- */

#define SOON 1.0                    /* seconds, that a probe's answer takes */

struct census {                     /* of the rows that are not removed */
  uint32_t present, takes, up, untried, full, kept, cooling;
  double cooled, back;              /* seconds until the first of them is */
};


/* One row that takes the model. `kept`: it has room, but refused this decision
 * for a limit of its own. */
static void count_row(const struct node_view *v, uint32_t row,
                      struct census *c) {
  const struct node_row *own = &v->own[row];
  const drover_pick *p = v->pick;
  uint32_t state = atom_get_u32(&v->rows[row].state);
  if (state >= DROVER_DRAINING)
    return;
  if (node_breaker_cooling(own, p->now)) {
    c->cooling++;
    c->cooled = fmin(c->cooled, node_breaker_out_for(own, p->now));
  } else if (state != DROVER_UP && !node_breaker_due(own, p->now)) {
    c->back = fmin(c->back, state == DROVER_PROBING
                            ? SOON : node_breaker_out_for(own, p->now));
  } else {
    c->up++;
    if (!p->again && drover_pick_tried(p, row))
      return;
    c->untried++;
    c->kept += is_masked(p, row) && !node_full(v, row);
    c->full += node_full(v, row);
  }
}


static struct census take_census(const struct node_view *v) {
  struct census c = { .cooled = INFINITY, .back = INFINITY };
  for (uint32_t i = 1; i <= v->count; i++) {
    if (atom_get_u32(&v->rows[i].state) == DROVER_REMOVED ||
        (v->pick->only && v->pick->only != i))
      continue;
    c.present++;
    if (!node_table_takes(&v->own[i], v->pick->model))
      continue;
    c.takes++;
    count_row(v, i, &c);
  }
  return c;
}


/* A refusal that no claim has counted. */
static int refuse(struct drover_router *r, drover_pick *p,
                  enum drover_limit_kind kind, double wait) {
  int m = ticket_member(r, NULL);
  uint32_t limit = tally_limit(DROVER_SCOPE_NODE, kind);
  if (m >= 0)
    atom_bump_u64(&r->tally.routers[m].refused[limit], 1);
  p->refused_scope = DROVER_SCOPE_NODE;
  p->refused_kind = kind;
  p->wait = wait;
  return kind == DROVER_LIMIT_CONCURRENT ? DROVER_EOVERLOADED
                                         : DROVER_ERATELIMITED;
}


/* Rows with room refused: refused_* and `wait` are what the claims left, the
 * soonest of theirs; one that cools may be back before. */
static int kept_back(drover_pick *p, const struct census *c, drover_err *err) {
  int code = DROVER_EOVERLOADED;    /* in flight, or kept for who waits */
  switch (p->refused_kind) {
  case DROVER_LIMIT_REQUESTS: case DROVER_LIMIT_TOKENS:
  case DROVER_LIMIT_UPSTREAM: code = DROVER_ERATELIMITED; break;
  case DROVER_LIMIT_DAY: case DROVER_LIMIT_MONTH: code = DROVER_EQUOTA; break;
  default: break;
  }
  if (p->wait > c->cooled)
    p->wait = c->cooled;
  return drover_fail(err, code, "each of %u nodes is at a limit of its own",
                     c->untried + c->cooling);
}


/* Only after a decision failed, so it may walk all rows. The narrowest true
 * reason is given, in this order, because it decides what the caller does:
 * the configuration is wrong, wait until a node has cooled, or is probed, or
 * has room. */
int drover_pick_why(drover_router *r, drover_pick *p, drover_err *err) {
  struct node_view v = hall_view(r, p, p->rnd);
  struct census c = take_census(&v);
  if (!c.present)
    return drover_fail(err, DROVER_ENONODE, p->only ? "the node is gone"
                       : "the router has no nodes");
  if (!c.takes)
    return drover_fail(err, DROVER_ENOTFOUND, "no node takes the model");
  if (!c.up && c.cooling)
    return drover_fail(err, refuse(r, p, DROVER_LIMIT_UPSTREAM, c.cooled),
                       "each of %u nodes that could is out of its rate",
                       c.cooling);
  if (!c.up) {
    p->wait = isinf(c.back) ? 0 : c.back;
    return drover_fail(err, DROVER_ENONODE, "none of %u nodes is up", c.takes);
  }
  if (!c.untried)
    return drover_fail(err, DROVER_ENONODE, "each of %u nodes that are up was "
                       "tried", c.up);
  if (c.kept && !c.full)
    return kept_back(p, &c, err);
  return drover_fail(err, refuse(r, p, DROVER_LIMIT_CONCURRENT, 0), "each of "
                     "%u nodes is at its capacity", c.untried);
}


/* ---- ask and claim ---- */

/* At most one try a row, each of which masks its row, so the loop ends. What
 * ask() found able needs no check before its claim; the claim itself looks
 * at the breaker's word again. */
int drover_pick_node(drover_router *r, drover_pick *p, double now, double rnd,
                     drover_err *err) {
  if (p->ticket)
    return drover_fail(err, DROVER_EINVAL, "the pick holds a ticket");
  begin(r, p, now, rnd);
  struct node_view v = hall_view(r, p, p->rnd);
  uint32_t tries = v.count;
  do {
    uint32_t node = ask(r, p, &v);
    if (!node)
      break;
    int rc = claim_row(r, p, node, err);
    if (rc != DROVER_EAGAIN)
      return rc;
  } while (tries--);
  return drover_pick_why(r, p, err);
}
