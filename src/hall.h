/* hall: what the files of the hall share: the zone's own span, the tickets,
 * the handle, and who asks whom. No room includes it.
 *
 * Spans of a zone, in the order of enum hall_span:
 *
 *   router   sizes, limits, and words that all members read
 *   members  one word each                                   base/member
 *   cells    in flight, a row's together; nodes, then names  limit/cells
 *   tags, names, spend, locks   names that have limits       limit/keys
 *   budget   sends and retries of late                       limit/budget
 *   rows, own, texts   the nodes                             node/table
 *   tickets, holds  a member's together                      ticket.c
 *   tallies  counters, a member's together                   tally.c
 *   queue    who waits                                       limit/queue
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_HALL_H
#define DROVER_HALL_H

#include "base/member.h"
#include "base/zone.h"
#include "limit/budget.h"
#include "limit/hold.h"
#include "limit/keys.h"
#include "limit/queue.h"
#include "node/policy.h"
#include "node/table.h"
#include "tally.h"

enum hall_span { SPAN_ROUTER, SPAN_MEMBERS, SPAN_CELLS, SPAN_ROWS, SPAN_OWN,
                 SPAN_TEXTS, SPAN_TAGS, SPAN_NAMES, SPAN_SPEND, SPAN_LOCKS,
                 SPAN_BUDGET, SPAN_TICKETS, SPAN_HOLDS, SPAN_TALLIES,
                 SPAN_QUEUE, SPAN_COUNT };

struct hall_shared {
  /* Written where routers are opened and applied, read by all. */
  uint32_t nodes_max, members_max, tickets_max;
  uint32_t members_top;             /* see member_table */
  uint32_t count;                   /* node rows used */
  uint32_t concurrent;              /* requests in flight, all nodes */
  uint32_t generation;              /* the last number given out */
  uint32_t applied;                 /* the last configuration applied */
  double   due_at;                  /* no probe is due before; a hint */
  double   slow_until;              /* no row ramps up after; a hint */
  uint32_t keys_max, queue_max;
  uint32_t limited;                 /* 1: a row has limits, or had once */
  uint32_t retry_reserve;           /* retries that any 10 s may have */
  uint32_t turn;                    /* round_robin's */
  uint32_t pad[15];
  uint64_t share;                   /* that all names have: limit/keys.h */
  double   ticked_at;               /* `now` of the last tick */
  uint32_t retry_milli;             /* retries that 1000 first sends earn */
  uint32_t waits;                   /* 1: requests may wait, or did once */
  double   share_until;             /* the time that came with `share` */
  uint32_t more[8];
};

/* States of a ticket: free -> picked -> sent -> settling -> counted -> free. */
enum ticket_state { TICKET_FREE, TICKET_PICKED, TICKET_SENT, TICKET_SETTLING,
                    TICKET_COUNTED };

struct ticket {                     /* one attempt; its member's owner writes */
  uint32_t state;                   /* enum ticket_state */
  uint32_t serial;                  /* of this opening; 0: never used */
  uint32_t node;                    /* its row */
  uint32_t tokens;                  /* booked in the cells */
  struct breaker_permit permit;     /* under which it was let in */
  uint16_t sent;                    /* 1: the body went out */
  uint16_t held;                    /* 1: its holds are in use */
  uint32_t next;                    /* free list: number of the next, 0: end */
};

struct drover_router {              /* a handle; one thread's */
  struct zone *zone;
  struct hall_shared *shared;
  struct node_table table;
  struct limit_cells cells;
  struct limit_keys keys;
  struct limit_budget budget;
  struct tally tally;
  struct limit_queue queue;
  struct ticket *tickets;           /* [member][tickets_max] */
  struct limit_holds *holds;        /* a record for each ticket */
  struct member_table members;
  uint32_t tickets_max;
  uint32_t policy;                  /* row of node_policies */
  /* Claimed with the first ticket, and anew in a forked child. */
  int      pid;                     /* 0: none yet */
  int      slot;                    /* this handle's member */
  struct ticket *mine;              /* that member's tickets, holds */
  struct limit_holds *my_holds;
  uint64_t self;                    /* member_self() of `pid` */
  uint32_t free;                    /* number of a free ticket, 0: none */
  uint32_t fresh;                   /* tickets above were never used by us */
  uint32_t serial;
  uint32_t named;                   /* the zone has a name: not ours to drop */
  int      maker;                   /* pid of who made the zone */
  int      bell;                    /* the socket that rings others; -1 */
};

_Static_assert(offsetof(struct hall_shared, turn) == 64 &&
               sizeof(struct hall_shared) == 192, "`turn` on its own line");
_Static_assert(sizeof(struct ticket) == 32, "two fill a cache line");


/* This handle's member, claimed if need be: its number, or DROVER_ERESOURCE
 * with the reason. Makes no system call when it is claimed. */
int ticket_member(struct drover_router *r, drover_err *err);


/* The number from 1 of the ticket that would be opened next, or 0 when the
 * member's tickets are all open. */
uint32_t ticket_next(const struct drover_router *r);


/* Where that ticket's holds are written, before it is opened. */
struct limit_holds *ticket_draft(struct drover_router *r, uint32_t number);


/* Open it, for what was just taken. `held`: its holds were written. */
void ticket_open(struct drover_router *r, uint32_t number, uint32_t node,
                 uint32_t tokens, const struct breaker_permit *permit,
                 int held);


/* Settle what the handle holds, as cancelled; give the member's slot back. */
void ticket_leave(struct drover_router *r);


/* Take back all that a dead member held; its slot is free afterwards. */
void ticket_reclaim(struct drover_router *r, uint32_t member);


/* Take the limits of a row that may be chosen, room aside, and open a ticket:
 * see drover_pick_claim(). */
int claim_row(struct drover_router *r, drover_pick *p, uint32_t node,
              drover_err *err);


/* What an attempt's outcome says about its node: to the averages and the
 * breaker. `rnd` is the decision's. */
void feed_node(struct drover_router *r, const struct ticket *t,
               const drover_outcome *o, double now, double rnd);


/* Why a node is not simply up, for how long, and its share of successes. */
void feed_stat(const struct drover_router *r, uint32_t node,
               drover_node_stats *out, double now);


/* Write the sum of the cells into the row; the requests of it. */
uint32_t route_renew(struct drover_router *r, uint32_t node);


/* The zone's hints, over all rows: when the next probe is due or the next row
 * has cooled, and how long some row is in its slow start. */
void route_plan(struct drover_router *r);


/* The last configuration that was applied. */
static inline uint32_t hall_applied(const struct drover_router *r) {
  return __atomic_load_n(&r->shared->applied, __ATOMIC_SEQ_CST);
}


/* 1 when a node has the row now. */
static inline int hall_present(const struct drover_router *r, uint32_t node) {
  return node > 0 && node <= atom_get_u32(r->table.count) &&
         atom_get_u32(&r->table.rows[node].state) != DROVER_REMOVED;
}


/* 1 when the table has such a row. 0 wraps to the top. */
static inline int route_known(const struct drover_router *r, uint32_t node) {
  return node - 1 < atom_get_u32(r->table.count);
}


/* What a request may use of a capacity: batches leave an eighth of it free
 * for others, of less than 8 nothing. */
static inline uint32_t hall_room(uint32_t capacity, uint32_t priority) {
  return priority < DROVER_BATCH ? capacity : capacity - capacity / 8;
}


/* What a policy, or a question about one row, looks at. */
static inline struct node_view hall_view(struct drover_router *r,
                                         const drover_pick *p, double rnd) {
  return (struct node_view){
    .rows = r->table.rows, .own = r->table.own, .pick = p,
    .count = atom_get_u32(r->table.count), .turn = &r->shared->turn,
    .rnd = rnd,
    .ramping = p->now < atom_get_f64(&r->shared->slow_until),
  };
}

#endif
