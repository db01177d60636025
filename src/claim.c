/* claim: takes all limits that an attempt on a chosen row falls under, all or
 * none, and opens the ticket; or gives everything back and says which limit
 * refused. Those of router, tenant and model come with the pick, those of
 * node and key lie in the row; what in-flight means for the row and the whole
 * router is known to the zone. The room `limit` knows the limits (hold.h).
 *
 * What is not the usual claim is kept out of its code (cold, noinline): inlined
 * all of it would cost 3 ns of 35.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "hall.h"
#include "node/upstream.h"
#include "wait.h"

enum { TRIES = 4, GLOBAL = DROVER_SCOPE_NODE,
       ROWS = 2 };                  /* of every claim: the node's, the whole */

struct claim {                      /* one, on its way to a ticket */
  uint32_t node;
  uint32_t number;                  /* of the ticket that it would open */
  struct breaker_permit permit;
  struct limit_holds *holds;        /* of its names; NULL: it has none */
  uint64_t sum;                     /* the row's, when it is taken */
};


static void mark(uint64_t *bits, uint32_t node) {
  bits[(node - 1) >> 6] |= UINT64_C(1) << ((node - 1) & 63);
}


/* Masked for this decision only: the next one starts with an empty mask,
 * since a slot may be free by then. */
__attribute__((cold, noinline))
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


/* ---- refusals ---- */

static int code_of(const struct limit_refusal *no) {
  switch (no->kind) {
  case DROVER_LIMIT_DAY: case DROVER_LIMIT_MONTH:
    return DROVER_EQUOTA;
  case DROVER_LIMIT_TABLE:
    return DROVER_EOVERLOADED;
  case DROVER_LIMIT_CONCURRENT:
    return no->scope == DROVER_SCOPE_TENANT ? DROVER_ERATELIMITED
                                            : DROVER_EOVERLOADED;
  default:
    return DROVER_ERATELIMITED;
  }
}


/* Of the rows that refuse in one decision, the one is told that passes first;
 * one that waits for an end passes at a time that nobody knows. */
static void tell_soonest(drover_pick *p, const struct limit_refusal *no) {
  if (p->refused_kind != DROVER_LIMIT_NONE && p->wait > 0 &&
      !(no->wait > 0 && no->wait < p->wait))
    return;
  p->refused_scope = no->scope;
  p->refused_kind = no->kind;
  p->wait = no->wait;
}


static int say(drover_err *err, int code, const char *who,
               const struct limit_refusal *no) {
  static const char *const kinds[] = {
    "", "requests in flight", "requests a minute", "tokens a minute",
    "dollars a day", "dollars a month" };
  if (no->kind == DROVER_LIMIT_TABLE)
    return drover_fail(err, code, "the %s is one name too many: the table of "
                       "limits is full of others that are in use", who);
  if (no->kind == DROVER_LIMIT_UPSTREAM)
    return drover_fail(err, code, "the %s says that nothing is left of its "
                       "rate", who);
  return drover_fail(err, code, "the %s has its %.10g %s", who, no->max,
                     kinds[no->kind]);
}


/* A row's limit sends the policy on to another; one of router, tenant or model
 * ends the decision, because no row could help. */
__attribute__((cold, noinline))
static int tell(struct drover_router *r, drover_pick *p, uint32_t node,
                const struct limit_refusal *no, drover_err *err) {
  static const char *const scopes[] = { "router", "tenant", "model", "node",
                                        "key" };
  uint32_t limit = tally_limit(no->scope, no->kind);
  atom_bump_u64(&r->tally.routers[r->slot].refused[limit], 1);
  if (no->scope >= GLOBAL) {
    mark(p->masked, node);
    tell_soonest(p, no);
    p->node = 0;
    return say(err, DROVER_EAGAIN, scopes[no->scope], no);
  }
  p->refused_scope = no->scope;
  p->refused_kind = no->kind;
  p->wait = no->wait;
  p->node = 0;
  return say(err, code_of(no), scopes[no->scope], no);
}


/* ---- what is asked ---- */

static int is_set(const drover_limit *l) {
  return l->rpm || l->tpm || l->concurrent || l->dollars_per_day > 0 ||
         l->dollars_per_month > 0;
}


static void add(struct limit_claim *c, uint32_t scope, uint64_t name,
                const drover_limit *limit, int requests) {
  uint32_t i = c->holds->count++;
  c->holds->of[i].tag = limit_keys_tag(scope, name);
  c->want[i].limit = limit;
  c->want[i].requests = (uint32_t)requests;
  c->want[i].dollars = limit->dollars_per_day > 0 ||
                       limit->dollars_per_month > 0;
  c->dollars |= c->want[i].dollars;
}


/* A copy, word by word: the row may be configured anew meanwhile. */
static void read_limits(const struct node_row *own, drover_limit out[2]) {
  const uint64_t *from = (const uint64_t *)(const void *)own->limits;
  uint64_t words[2 * sizeof *out / sizeof *from];
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    words[i] = atom_get_u64(&from[i]);
  memcpy(out, words, sizeof words);
}


/* Names of this attempt, global ones first. A key's rates that hosts share go
 * by its label, which is the same on all of them; else by its identity, which
 * stays when the label changes. */
static void list_names(struct drover_router *r, const drover_pick *p,
                       uint32_t node, struct limit_claim *c,
                       drover_limit row[2]) {
  const uint64_t names[GLOBAL] = { 0, p->key, p->model };
  const struct node_row *own = &r->table.own[node];
  c->holds->count = c->dollars = 0;
  for (uint32_t i = 0; i < GLOBAL; i++)
    if (p->limits[i])
      add(c, i, names[i], p->limits[i], !p->paid);
  c->global = c->holds->count;
  if (!atom_get_u32(&r->shared->limited))
    return;
  read_limits(own, row);
  if (is_set(&row[0]))
    add(c, DROVER_SCOPE_NODE, atom_get_u64(&own->group), &row[0], 1);
  if (is_set(&row[1]))
    add(c, DROVER_SCOPE_KEY, row[1].flags & 1 ? atom_get_u64(&own->label)
                             : atom_get_u64(&own->identity), &row[1], 1);
}


/* Millionths of a dollar; what a row without a price would cost passes under
 * no limit. By the row's prices a million tokens. */
static int64_t price(const drover_node *row, uint32_t prompt, uint32_t output) {
  double micro = (double)atom_get_f32(&row->price_input) * prompt +
                 (double)atom_get_f32(&row->price_output) * output;
  return isnan(micro) ? LIMIT_UNPRICED : limit_spend_micro(micro * 1e-6);
}


static void fill(struct drover_router *r, const drover_pick *p, uint32_t node,
                 struct limit_claim *c) {
  const drover_node *row = &r->table.rows[node];
  c->keys = &r->keys;
  c->self = r->self;
  c->tokens = tokens_of(p);
  c->asks = !p->called;
  c->now = p->now;
  c->now_ns = limit_gcra_ns(p->now);
  c->holds->input_tokens = p->prompt_tokens;
  if (!c->dollars)
    return;
  c->holds->hour = limit_spend_hour(p->now);
  c->holds->input_micro = price(row, p->prompt_tokens, 0);
  c->holds->micro = price(row, p->prompt_tokens, p->max_tokens);
}


/* ---- taking ---- */

/* One of the two rows that every claim has refuses. */
static void is_full(const struct limit_ask *ask, int i,
                    struct limit_refusal *no) {
  *no = (struct limit_refusal){
    i == 0 ? DROVER_SCOPE_NODE : DROVER_SCOPE_ROUTER,
    DROVER_LIMIT_CONCURRENT, ask->of[i].max, 0 };
}


/* Without names only the cells. 1 when taken. */
static inline int take_cells(struct drover_router *r,
                             const struct limit_ask *ask, struct claim *at,
                             struct limit_refusal *no) {
  int full = limit_cells_take_two(&r->cells, ask, &at->sum);
  if (full == LIMIT_TAKEN)
    return 1;
  is_full(ask, full, no);
  return 0;
}


/* The cells, and behind them what `c` wants of its names. 1 when taken; 0 and
 * no refusal: a name has moved meanwhile. The fence keeps the record ahead of
 * the cells that it is the record of. */
static int take_once(struct drover_router *r, struct limit_ask *ask,
                     struct limit_claim *c, uint64_t *sum,
                     struct limit_refusal *no) {
  ask->count = ROWS;
  limit_hold_look(c, no);
  if (no->kind)
    return 0;
  limit_hold_rows(c, ask);
  __atomic_thread_fence(__ATOMIC_RELEASE);      /* partner: the reaper */
  int full = limit_cells_take(&r->cells, ask, sum);
  if (full >= ROWS)
    limit_hold_full(c, (uint32_t)full - ROWS, no);
  else if (full != LIMIT_TAKEN)
    is_full(ask, full, no);
  else if (limit_hold_take(c, no))
    return 1;
  else
    limit_cells_give(&r->cells, ask);
  return 0;
}


/* Where there may be names. Their record lies beside the ticket. */
__attribute__((noinline))
static int take_names(struct drover_router *r, const drover_pick *p,
                      struct limit_ask *ask, struct claim *at,
                      struct limit_refusal *no) {
  struct limit_claim c;
  drover_limit row[2];
  c.holds = ticket_draft(r, at->number);
  list_names(r, p, at->node, &c, row);
  if (c.holds->count == 0)
    return take_cells(r, ask, at, no);
  fill(r, p, at->node, &c);
  at->holds = c.holds;
  for (int i = 0; i < TRIES; i++)
    if (take_once(r, ask, &c, &at->sum, no))
      return 1;
    else if (no->kind)
      return 0;
  *no = (struct limit_refusal){ DROVER_SCOPE_ROUTER, DROVER_LIMIT_TABLE, 0, 0 };
  return 0;
}


/* Give everything back: nothing was sent. */
__attribute__((cold, noinline))
static void undo(struct drover_router *r, const struct limit_ask *ask,
                 const struct claim *at) {
  if (at->holds) {
    struct limit_bill nothing = { .self = r->self };
    limit_hold_settle(&r->keys, at->holds, &nothing);
  }
  limit_cells_give(&r->cells, ask);
}


/* ---- the claim ---- */

/* The breaker's word, and what the node itself says is left. */
static int enter(struct drover_router *r, drover_pick *p, struct claim *at,
                 drover_err *err) {
  drover_node *row = &r->table.rows[at->node];
  struct node_row *own = &r->table.own[at->node];
  struct limit_refusal no = { DROVER_SCOPE_NODE, DROVER_LIMIT_UPSTREAM, 0, 0 };
  if (!node_breaker_enter(row, own, p->now, &at->permit) &&
      !(p->panic && node_breaker_panic(own, &at->permit)))
    return refuse(p, at->node, err, "may not be chosen");
  if (node_upstream_silent(own) ||
      node_upstream_take(own, tokens_of(p), p->now, &no.wait))
    return DROVER_OK;
  node_breaker_leave(row, own, &at->permit, BREAKER_NEUTRAL, p->now, 0);
  return tell(r, p, at->node, &no, err);
}


__attribute__((cold, noinline))
static void leave(struct drover_router *r, const drover_pick *p,
                  const struct claim *at) {
  drover_node *row = &r->table.rows[at->node];
  struct node_row *own = &r->table.own[at->node];
  node_upstream_give(own, 1, tokens_of(p), p->now);
  if (at->permit.probe)
    node_breaker_leave(row, own, &at->permit, BREAKER_NEUTRAL, p->now, 0);
}


/* All is taken and the permit held. The breaker's word is read again behind
 * the claim's fence: a row that was removed or opened meanwhile must not get
 * another node under this claim. */
static int open_ticket(struct drover_router *r, drover_pick *p,
                       const struct limit_ask *ask, const struct claim *at,
                       drover_err *err) {
  uint32_t node = at->node;
  if (!node_breaker_holds(&r->table.own[node], &at->permit)) {
    undo(r, ask, at);
    leave(r, p, at);
    return refuse(p, node, err, "went out meanwhile");
  }
  ticket_open(r, at->number, node, ask->tokens, &at->permit, at->holds != NULL);
  p->ticket = at->number;
  p->serial = r->serial;
  p->node = node;
  p->version = __atomic_load_n(&r->table.rows[node].version,
                               __ATOMIC_ACQUIRE);
  return DROVER_OK;
}


/* Of a row that may be chosen, room aside. */
int claim_row(struct drover_router *r, drover_pick *p, uint32_t node,
              drover_err *err) {
  int member = ticket_member(r, err);
  if (member < 0)
    return member;
  struct claim at = { .node = node, .number = ticket_next(r) };
  if (!at.number)
    return drover_fail(err, DROVER_ERESOURCE, "all %u tickets of this member "
                       "are open", r->tickets_max);
  int rc = wait_ahead(r, p, node, err);
  if (rc)
    return rc == DROVER_EAGAIN ? refuse(p, node, err, "is kept for those who "
                                        "wait") : rc;
  rc = enter(r, p, &at, err);
  if (rc)
    return rc;
  drover_node *row = &r->table.rows[node];
  struct limit_ask ask = {
    .member = (uint32_t)member, .tokens = tokens_of(p), .count = 2, .of = {
      { node, hall_room(atom_get_u32(&row->capacity), p->priority) },
      { 0, hall_room(atom_get_u32(&r->shared->concurrent), p->priority) } },
  };
  struct limit_refusal no = { 0 };
  int named = p->limits[0] || p->limits[1] || p->limits[2] ||
              atom_get_u32(&r->shared->limited);
  if (!(named ? take_names(r, p, &ask, &at, &no)
              : take_cells(r, &ask, &at, &no))) {
    leave(r, p, &at);
    route_renew(r, node);
    return tell(r, p, node, &no, err);
  }
  atom_set_u32(&row->inflight, (uint32_t)at.sum);
  atom_set_u32(&row->inflight_tokens, (uint32_t)(at.sum >> 32));
  return open_ticket(r, p, &ask, &at, err);
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
