/* wait: the router's queue as requests see it: enter, go, go back, leave; and
 * the pump, which pops as many as there is room for.
 *
 * What must hold: while an entry could run and none is called for that room,
 * somebody is about to pump. So whatever makes room pumps behind it (a settling,
 * a node that comes, a call that ends in a claim, in a going back or in
 * nothing), and so does each entry behind its entering. A process that dies in
 * between is made good by the next tick of any other.
 *
 * A popped entry counts as a request in flight on the row that was found for
 * it, until it leaves or goes back: no room is given away twice. It may still
 * claim another row; the pump behind its leaving then sees both as they are.
 *
 * SPDX-License-Identifier: MIT */
#include "wait.h"

#include <math.h>

#include "base/err.h"
#include "base/process.h"
#include "net/bell.h"
#include "ring.h"

enum { ASKED = 8 };                 /* kinds of entries remembered in a look */

struct asked {                      /* what was found for entries of one kind */
  uint64_t model;
  uint32_t only, priority;
  uint32_t row;                     /* 0: none, for as long as the look lasts */
  uint32_t called;                  /* how many were when it was found */
};

struct look {                       /* of one holder at all entries */
  struct drover_router *r;
  drover_pick pick;                 /* what an entry asks for */
  uint32_t inflight;                /* on all rows, as it began */
  uint32_t called[NODE_MAX + 1];    /* see queue_look */
  struct asked asked[ASKED];
  uint32_t count;                   /* of those */
};


static struct queue_ask ask_of(const drover_pick *p) {
  uint64_t tokens = (uint64_t)p->prompt_tokens + p->max_tokens;
  return (struct queue_ask){
    .tenant = p->key, .model = p->model, .only = p->only,
    .priority = p->priority < QUEUE_PRIORITIES ? p->priority : DROVER_BATCH,
    .tokens = tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX,
    .wait = p->wait > 0 && p->wait < INFINITY ? p->wait : 0,
    .scope = p->refused_scope, .kind = p->refused_kind,
  };
}


/* ---- the pump ---- */

/* What was found for such an entry, with room for one more kind to remember;
 * NULL when there is none. */
static struct asked *remember(struct look *l) {
  const drover_pick *p = &l->pick;
  for (uint32_t i = 0; i < l->count; i++) {
    struct asked *a = &l->asked[i];
    if (a->model == p->model && a->only == p->only &&
        a->priority == p->priority)
      return a;
  }
  if (l->count == ASKED)
    return NULL;
  l->asked[l->count] = (struct asked){ p->model, p->only, p->priority,
                                       UINT32_MAX, 0 };
  return &l->asked[l->count++];
}


/* The word first, then the cells, as drover_pick_may(). A row that is out
 * takes one request, its probe. */
static int has_room(struct look *l, const struct node_view *v, uint32_t row) {
  uint32_t called = l->called[row];
  uint32_t room = hall_room(atom_get_u32(&v->rows[row].capacity),
                            l->pick.priority);
  if (called && atom_get_u32(&v->rows[row].state) != DROVER_UP)
    return 0;
  return atom_get_u32(&v->rows[row].inflight) + called < room ||
         route_renew(l->r, row) + called < room;
}


static uint32_t find_row(struct look *l) {
  struct drover_router *r = l->r;
  const drover_pick *p = &l->pick;
  if (l->inflight + l->called[0] >=
      hall_room(atom_get_u32(&r->shared->concurrent), p->priority))
    return 0;
  struct node_view v = hall_view(r, p, 0);
  uint32_t first = p->only ? p->only : 1, last = p->only ? p->only : v.count;
  for (uint32_t row = first; row <= last && row <= v.count; row++)
    if (node_able(&v, row) && has_room(l, &v, row))
      return row;
  return 0;
}


/* Room only shrinks while a look lasts (what grows meanwhile asks for another
 * one), so "none" stays true, and a row until the next is called. */
static uint32_t row_for(void *arg, const struct queue_entry *e) {
  struct look *l = arg;
  l->pick.model = atom_get_u64(&e->model);
  l->pick.only = __atomic_load_n(&e->only, __ATOMIC_RELAXED);
  l->pick.priority = __atomic_load_n(&e->priority, __ATOMIC_RELAXED);
  struct asked *a = remember(l);
  if (!a)
    return find_row(l);
  if (a->row && (a->row == UINT32_MAX || a->called != l->called[0])) {
    a->row = find_row(l);
    a->called = l->called[0];
  }
  return a->row;
}


static void ring(void *arg, const struct queue_entry *e) {
  struct look *l = arg;
  net_bell_send(&l->r->bell, atom_get_u64(&e->bell), atom_get_u64(&e->token));
}


static void look(struct drover_router *r, double now) {
  struct look l = { .r = r, .pick = { .again = 1, .now = now } };
  struct queue_look how = { .row = row_for, .ring = ring, .arg = &l,
                            .called = l.called, .rows = NODE_MAX };
  l.inflight = (uint32_t)limit_cells_sum(&r->cells, 0);
  limit_queue_sweep(&r->queue, &how, now);
  while (limit_queue_pop(&r->queue, &how, now))
    ;
}


/* As many looks as are asked for; each is for something that has moved. */
void wait_pump(struct drover_router *r, double now) {
  uint64_t self = r->pid == process_pid() ? r->self : member_self();
  if (!limit_queue_any(&r->queue) || !limit_queue_hold(&r->queue, self))
    return;
  do
    look(r, now);
  while (limit_queue_let(&r->queue, self));
}


void wait_tick(struct drover_router *r, double now) {
  if (!limit_queue_any(&r->queue))
    return;
  limit_queue_heal(&r->queue,
                   r->pid == process_pid() ? r->self : member_self());
  wait_pump(r, now);
}


void wait_tell(struct drover_router *r, const drover_pick *p, double now) {
  if (p)
    limit_queue_moved(&r->queue, p->key, p->model);
  else
    limit_queue_moved_all(&r->queue);
  wait_pump(r, now);
}


/* ---- newcomers ---- */

static int takes(void *arg, uint64_t model) {
  const struct node_row *own = arg;
  return model == 0 || node_table_takes(own, model);
}


static int refuse(drover_pick *p, const struct queue_ahead *a,
                  drover_err *err) {
  int rate = a->scope == DROVER_SCOPE_TENANT ||
             a->kind == DROVER_LIMIT_REQUESTS || a->kind == DROVER_LIMIT_TOKENS;
  p->node = 0;
  p->refused_scope = a->scope;
  p->refused_kind = a->kind;
  p->wait = a->wait;
  return drover_fail(err, rate ? DROVER_ERATELIMITED : DROVER_EOVERLOADED,
                     "others wait for the same limit");
}


/* Advisory: the claim that follows is exact on what is in flight, and who is
 * called waits on when it was passed by. */
__attribute__((noinline))
int wait_look(struct drover_router *r, drover_pick *p, uint32_t node,
              drover_err *err) {
  struct queue_ask ask = ask_of(p);
  struct queue_ahead a = { .row = node, .now = p->now, .takes = takes,
                           .arg = &r->table.own[node] };
  const drover_node *row = &r->table.rows[node];
  limit_queue_ahead(&r->queue, &ask, &a);
  if (a.kind)
    return refuse(p, &a, err);
  uint32_t all = (uint32_t)limit_cells_sum(&r->cells, 0) + a.called;
  uint32_t room = hall_room(atom_get_u32(&row->capacity), ask.priority);
  if (!a.kept &&
      all < hall_room(atom_get_u32(&r->shared->concurrent), ask.priority) &&
      (atom_get_u32(&row->inflight) + a.called_row < room ||
       route_renew(r, node) + a.called_row < room))
    return DROVER_OK;
  p->refused_scope = DROVER_SCOPE_NODE;
  p->refused_kind = DROVER_LIMIT_CONCURRENT;
  return DROVER_EAGAIN;
}


/* ---- the door ---- */

/* An entry belongs to the handle and the process that made it. */
static int is_ours(const struct drover_router *r, const drover_wait *w) {
  return w->place != 0 && r->pid == process_pid();
}


static struct queue_place place_of(const struct drover_router *r,
                                   const drover_wait *w) {
  return (struct queue_place){ w->place, w->serial, (uint32_t)r->slot };
}


/* The bell comes before the entry: it may be popped at once, by anybody. */
int drover_wait_begin(drover_router *r, drover_port *port, drover_pick *p,
                      drover_wait *w, double now, drover_err *err) {
  if (w->place || p->ticket)
    return drover_fail(err, DROVER_EINVAL, w->place ? "it waits already"
                       : "the pick holds a ticket");
  int member = ticket_member(r, err);
  if (member < 0)
    return member;
  struct queue_ask ask = ask_of(p);
  struct queue_place at;
  ask.deadline = w->deadline;
  ask.hold = w->hold;
  ask.member = (uint32_t)member;
  wait_ready(r->shared);
  int rc = ring_open(port, w->call, &ask.bell, &ask.token, err);
  if (rc)
    return rc;
  rc = limit_queue_enter(&r->queue, &ask, now, &at, &p->wait);
  if (rc) {
    ring_close(ask.token);
    return drover_fail(err, DROVER_EOVERLOADED, rc == DROVER_ETIMEOUT
                       ? "its turn in the queue would come too late"
                       : "all %u places of the queue are taken", r->queue.room);
  }
  w->place = at.place;
  w->serial = at.serial;
  w->token = ask.token;
  wait_pump(r, now);
  return DROVER_OK;
}


int drover_wait_called(drover_router *r, const drover_wait *w) {
  if (!is_ours(r, w))
    return DROVER_ECLOSED;
  struct queue_place at = place_of(r, w);
  return limit_queue_called(&r->queue, &at);
}


int drover_wait_again(drover_router *r, const drover_pick *p, drover_wait *w,
                      double now) {
  if (!is_ours(r, w))
    return DROVER_ECLOSED;
  struct queue_place at = place_of(r, w);
  struct queue_ask ask = ask_of(p);
  int rc = limit_queue_again(&r->queue, &at, &ask, now);
  wait_pump(r, now);
  return rc;
}


/* In a forked child it is the parent's, entry and bell. */
void drover_wait_end(drover_router *r, drover_wait *w, double now) {
  if (!is_ours(r, w))
    return;
  struct queue_place at = place_of(r, w);
  limit_queue_leave(&r->queue, &at);
  ring_close(w->token);
  w->place = 0;
  wait_pump(r, now);
}


void drover_wait_pump(drover_router *r, double now) {
  wait_pump(r, now);
}


uint32_t drover_waiting(drover_router *r) {
  return limit_queue_count(&r->queue);
}
