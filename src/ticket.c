/* ticket: one attempt, from the slot that was taken to the settling; and the
 * member that holds it. A member's tickets are an array in the zone, so that
 * another process finds them when this one is killed; which of them are free
 * only the owner knows (a list through the tickets, its head in the handle).
 *
 * Settling goes feed -> count -> give back what is held -> free: the row cannot
 * get another node while the cells still hold it. Death at any point is safe:
 * the reaper counts a sent attempt as lost unless it was counted (a death in
 * the few instructions of counting may count it twice, once as lost: attempts
 * - lost stays true), gives back the bookings that are not crossed out yet
 * (limit/hold.h), and zeroes all cells of the member.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "base/process.h"
#include "base/rand.h"
#include "hall.h"
#include "wait.h"


static struct ticket *tickets_of(const struct drover_router *r,
                                 uint32_t member) {
  return r->tickets + (size_t)member * r->tickets_max;
}


static struct limit_holds *holds_of(const struct drover_router *r,
                                    uint32_t member) {
  return r->holds + (size_t)member * r->tickets_max;
}


/* ---- the member ---- */

/* With the first ticket and not when the handle is opened: a master that
 * opens and never routes holds no slot, and a forked child gets its own. The
 * serial starts at random, so that a stale pick of the slot's former owner
 * fits no ticket of this one. */
__attribute__((cold, noinline))
static int claim(struct drover_router *r, drover_err *err) {
  r->self = member_self();
  int slot = member_claim(&r->members, r->self);
  if (slot < 0)
    return drover_fail(err, slot, "all %u members of the zone are taken",
                       r->members.count);
  r->pid = process_pid();
  r->slot = slot;
  r->mine = tickets_of(r, (uint32_t)slot);
  r->my_holds = holds_of(r, (uint32_t)slot);
  r->free = r->fresh = 0;
  r->serial = (uint32_t)rand_entropy();
  return slot;
}


int ticket_member(struct drover_router *r, drover_err *err) {
  return r->pid == process_pid() ? r->slot : claim(r, err);
}


/* ---- opening ---- */

/* Free tickets come from the list, else the next that was never used: so the
 * array's pages are touched only as far as the load needs, and the reaper
 * stops at the first that never was. */
uint32_t ticket_next(const struct drover_router *r) {
  if (r->free)
    return r->free;
  return r->fresh == r->tickets_max ? 0 : r->fresh + 1;
}


/* The ticket stays free, but from here on the reaper looks at its holds, and
 * does not stop before it. */
struct limit_holds *ticket_draft(struct drover_router *r, uint32_t number) {
  struct ticket *t = &r->mine[number - 1];
  if (atom_get_u32(&t->serial) == 0)
    atom_set_u32(&t->serial, 1);
  __atomic_store_n(&t->held, 1, __ATOMIC_RELAXED);
  return &r->my_holds[number - 1];
}


/* The state is stored last; its release
 * pairs with the acquire in ticket_reclaim(), which reads the other fields
 * only behind a state that is not FREE. */
void ticket_open(struct drover_router *r, uint32_t number, uint32_t node,
                 uint32_t tokens, const struct breaker_permit *permit,
                 int held) {
  struct ticket *t = &r->mine[number - 1];
  if (number == r->free)
    r->free = t->next;
  else
    r->fresh = number;
  if (++r->serial == 0)
    r->serial = 1;
  atom_set_u32(&t->serial, r->serial);
  atom_set_u32(&t->node, node);
  atom_set_u32(&t->tokens, tokens);
  atom_set_u32(&t->permit.epoch, permit->epoch);
  atom_set_u32(&t->permit.probe, permit->probe);
  __atomic_store_n(&t->sent, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&t->held, held, __ATOMIC_RELAXED);
  __atomic_store_n(&t->state, TICKET_PICKED, __ATOMIC_RELEASE);
}


/* The open ticket of a pick, or NULL: none, settled, or another process's. */
static inline struct ticket *find(struct drover_router *r, const drover_pick *p) {
  if (p->ticket == 0 || p->ticket > r->fresh || r->pid != process_pid())
    return NULL;
  struct ticket *t = &r->mine[p->ticket - 1];
  return atom_get_u32(&t->serial) == p->serial ? t : NULL;
}


/* From here on a death counts as a lost attempt (and may have been billed).
 * `tried` is set now and not at the claim: a node that was claimed but never
 * sent to may be chosen again. */
int drover_ticket_sent(drover_router *r, drover_pick *p) {
  struct ticket *t = find(r, p);
  if (!t || atom_get_u32(&t->state) != TICKET_PICKED)
    return DROVER_ECLOSED;
  if (!p->paid)
    limit_budget_sent(&r->budget, (uint32_t)r->slot, p->now);
  p->paid = 1;
  __atomic_store_n(&t->sent, 1, __ATOMIC_RELAXED);
  __atomic_store_n(&t->state, TICKET_SENT, __ATOMIC_RELEASE);
  p->tried[(t->node - 1) >> 6] |= UINT64_C(1) << ((t->node - 1) & 63);
  return DROVER_OK;
}


/* ---- settling ---- */

/* What is charged in the end. Without an outcome nobody knows what came of
 * it. */
static void settle_holds(struct drover_router *r, const struct ticket *t,
                         struct limit_holds *h, const drover_outcome *o,
                         double now) {
  struct limit_bill bill = { .self = r->self, .now = now, .sent = t->sent,
                             .lost = !o, .tokens = o ? o->tokens : 0,
                             .dollars = o ? o->dollars : 0 };
  limit_hold_settle(&r->keys, h, &bill);
}



/* Tokens by the node's own usage figures, dollars by its prices; negative or
 * NaN dollars are not added, since a counter must not fall. */
static void count(struct drover_router *r, uint32_t member,
                  const struct ticket *t, const drover_outcome *o) {
  struct tally_node *c = tally_of(&r->tally, member, t->node);
  atom_bump_u64(&c->attempts[err_row(o->code)], 1);
  atom_bump_u64(&c->tokens[TALLY_INPUT], o->prompt_tokens);
  atom_bump_u64(&c->tokens[TALLY_OUTPUT], o->completion_tokens);
  if (o->cached_tokens)
    atom_bump_u64(&c->tokens[TALLY_CACHED], o->cached_tokens);
  if (o->dollars > 0)
    atom_bump_f64(&c->dollars, o->dollars);
}


/* Once: the owner's thread alone moves a ticket while its process lives (the
 * reaper waits for its death), so a look and a store do for a swap. */
static int begin_settling(struct ticket *t) {
  uint32_t state = atom_get_u32(&t->state);
  if (state != TICKET_PICKED && state != TICKET_SENT)
    return 0;
  atom_set_u32(&t->state, TICKET_SETTLING);
  return 1;
}


/* `o` is NULL at the closing of a handle: cancelled, and nobody knows what came
 * of it. In the order that the head of the file gives. From COUNTED on the reaper
 * counts nothing for this ticket, from FREE on it is not the ticket's any
 * more. */
static void settle(struct drover_router *r, struct ticket *t,
                   const drover_outcome *o, double now, double rnd) {
  static const drover_outcome left = { .code = DROVER_ECANCELLED,
                                       .first_token_ms = NAN, .token_ms = NAN };
  uint32_t member = (uint32_t)r->slot;
  drover_node *row = &r->table.rows[t->node];
  feed_node(r, t, o ? o : &left, now, rnd);
  if (t->sent)
    count(r, member, t, o ? o : &left);
  __atomic_store_n(&t->state, TICKET_COUNTED, __ATOMIC_RELEASE);
  if (t->held) {
    struct limit_holds *h = &r->my_holds[t - r->mine];
    settle_holds(r, t, h, o, now);
    limit_hold_drop(&r->keys, h, member, t->tokens);
  }
  limit_cells_drop(&r->cells, member, t->node, t->tokens);
  limit_cells_drop(&r->cells, member, 0, t->tokens);
  /* Advisory: two that settle at once may lose one of these; the next claim
   * on the row, or the tick, writes the sum of the cells. */
  uint32_t on = atom_get_u32(&row->inflight);
  uint32_t tokens = atom_get_u32(&row->inflight_tokens);
  atom_set_u32(&row->inflight, on ? on - 1 : 0);
  atom_set_u32(&row->inflight_tokens, tokens > t->tokens ? tokens - t->tokens
                                                         : 0);
  t->next = r->free;
  r->free = (uint32_t)(t - r->mine) + 1;
  __atomic_store_n(&t->state, TICKET_FREE, __ATOMIC_RELEASE);
}


/* The pick's number is forgotten whatever happens, so that a second call is
 * refused before it looks at shared memory. */
int drover_ticket_done(drover_router *r, drover_pick *p,
                       const drover_outcome *o, double now) {
  struct ticket *t = find(r, p);
  p->ticket = 0;
  if (!t || !begin_settling(t))
    return DROVER_ECLOSED;
  settle(r, t, o, now, p->rnd);
  wait_settled(r, p, now);
  return DROVER_OK;
}


/* Runs over all tickets ever used: at close there are few, and no list of
 * open ones has to be kept in every decision. Who waits for what is given back
 * here is called by the next tick of any process. */
void ticket_leave(struct drover_router *r) {
  if (r->pid != process_pid())
    return;                         /* never claimed, or the parent's */
  struct ticket *t = r->mine;
  for (uint32_t i = 0; i < r->fresh; i++)
    if (begin_settling(&t[i]))
      settle(r, &t[i], NULL, 0, 0);
  limit_queue_reclaim(&r->queue, (uint32_t)r->slot);
  wait_moved(r);
  member_leave(&r->members, r->slot);
  r->pid = 0;
}


/* ---- a dead member ---- */

/* Nobody else works on this member now (member_reap()); if this process dies
 * too, the next reaper goes on. Counting comes before freeing, so a death in
 * between counts one lost attempt twice rather than never. */
void ticket_reclaim(struct drover_router *r, uint32_t member) {
  struct ticket *t = tickets_of(r, member);
  struct limit_holds *h = holds_of(r, member);
  drover_outcome lost = { .code = DROVER_ELOST };
  for (uint32_t i = 0; i < r->tickets_max; i++) {
    uint32_t state = __atomic_load_n(&t[i].state, __ATOMIC_ACQUIRE);
    if (atom_get_u32(&t[i].serial) == 0)
      break;                        /* never used, and none above */
    if (t[i].held)
      limit_hold_clear(&r->keys, &h[i], member);
    if (state == TICKET_FREE)
      continue;
    if (t[i].held)
      settle_holds(r, &t[i], &h[i], NULL, 0);
    drover_node *row = &r->table.rows[t[i].node];
    struct node_row *own = &r->table.own[t[i].node];
    node_breaker_leave(row, own, &t[i].permit, BREAKER_NEUTRAL, 0, 0);
    if (t[i].sent && state != TICKET_COUNTED)
      count(r, member, &t[i], &lost);
    __atomic_store_n(&t[i].state, TICKET_FREE, __ATOMIC_RELEASE);
  }
  limit_cells_reclaim(&r->cells, member, r->table.max + 1);
  uint32_t rows = atom_get_u32(r->table.count);
  for (uint32_t i = 1; i <= rows; i++)
    route_renew(r, i);
  limit_queue_reclaim(&r->queue, member);
  member_leave(&r->members, (int)member);
}
