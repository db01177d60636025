/* queue: the requests that wait for a slot, in one fixed array in the zone.
 * It knows no node and no socket: whether an entry could run now, and how its
 * owner is called, are two functions of its caller's.
 *
 *   FREE --enter--> WAITING --pop--> CALLED --leave--> FREE
 *                      ^  ^-- again,  |  1 s without an answer
 *                      |______________|
 *
 * An entry's state is one word with its serial and its member, and every step
 * is one compare-and-swap: entering, going back and leaving need no lock, and
 * a member that dies anywhere is swept out by its number. Only popping is one
 * at a time: under a word that is taken without waiting. Who finds it taken
 * leaves a mark, and the holder looks again; a dead holder's is taken over.
 *
 * The order, exactly. An entry may run when
 *   - its deadline is later than `now`;
 *   - it is not held up: the time that its refusal gave has come, or it has a
 *     cause (the limit that refused it) and a slot of that cause has been given
 *     back since it was popped; without a time it may also run once as it
 *     enters, and at each beat;
 *   - no other entry of the same or a better priority is held up by a cause
 *     that it shares (router, tenant, model, or model and row), or is called
 *     to try it (not for a row's room, nor the router's: row() counts those);
 *   - the caller's row() finds a row for it.
 * Popped is, among those that may run:
 *   - the best priority (the lowest number) and no other;
 *   - in it the tenant with the earliest finish, by deficit round robin with
 *     a quantum of one token (Shreedhar and Varghese 1995): in each round
 *     every tenant that has something waiting earns one token, and a request
 *     goes when its tenant has earned its tokens. Rounds are computed and not
 *     walked: V is the round of that priority, an entry's tag the round from
 *     which its tenant earns (V when it entered), and
 *         finish = max(min of the tags of the tenant's entries that may run
 *                      + tokens of its head, V).
 *     What was earned while nothing of the tenant could run is not saved up.
 *     Two tenants that both always wait are never further apart than the
 *     largest request of each;
 *   - of that tenant its head: the entry with the earliest deadline, or among
 *     equal ones that which entered first.
 * Equal finishes go by the heads' deadlines, then by which entered first. V
 * becomes the finish, and so do the tags of the tenant's other entries that
 * wait in that priority. An entry that goes back keeps its tag and its turn.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_QUEUE_H
#define DROVER_LIMIT_QUEUE_H

#include <stddef.h>

#include "queue_entry.h"

enum { QUEUE_ENDS = 8 };            /* before the rate is believed */
/* Seconds. An answer takes well under a millisecond; a worker whose garbage
 * collector or disk is slow may take a hundred. */
#define QUEUE_ANSWER 1.0            /* then a call is over, and as long none */
#define QUEUE_RING   0.25           /* one tick: then a lost call is repeated */
#define QUEUE_BEAT   0.25           /* one tick: causes are tried anyway */
#define QUEUE_SMOOTH 5.0            /* time constant of the rate */
#define QUEUE_FORGET 1.0            /* without a look: the rate begins anew */
/* A deadline cannot be met when even at this many times the rate of late the
 * turn would come behind it: a refusal in error costs more than a wait. */
#define QUEUE_HOPE   2.0

/* Scratch of one pop: a tenant that has something to run, or a cause. */
struct queue_group {
  uint64_t key, stamp;              /* another stamp: empty */
  uint64_t tag, word;               /* the least tag; its entry's word */
  uint32_t head, row;               /* its entry's place (0: none), its row */
  uint32_t next;                    /* of the groups of this pop; from 1 */
  uint32_t priority;                /* a cause's: the best that it holds up */
};

struct limit_queue {                /* a view: all of it lies in the zone */
  struct queue_shared *shared;
  struct queue_entry  *entries;
  struct queue_group  *groups;
  uint32_t max;
  uint32_t room;                    /* of max, how many this handle may fill */
  uint32_t mask;                    /* of the groups: their number - 1 */
};

/* What asks: a request that would wait, or one that would pass. */
struct queue_ask {
  uint64_t tenant, model;
  uint64_t bell, token;
  double   deadline;
  double   wait;                    /* seconds until what refused may pass; 0:
                                     * when something ends */
  uint32_t priority, tokens, only;
  uint32_t hold;                    /* 1: waits for a node, not for its turn */
  uint32_t member;
  uint32_t scope, kind;             /* of the refusal; kind 0: none known */
};

struct queue_place {                /* whose entry: its owner's memory */
  uint32_t place;                   /* from 1; 0: none */
  uint32_t serial, member;
};

/* One look of a holder: how rows are found and owners called. */
struct queue_look {
  uint32_t (*row)(void *arg, const struct queue_entry *e);    /* 0: none */
  void (*ring)(void *arg, const struct queue_entry *e);
  void *arg;
  uint32_t *called;                 /* [0]: all that are called; [row] */
  uint32_t rows;                    /* the last of `called` */
};

struct queue_ahead {                /* what a newcomer asks, and then finds */
  uint32_t row;
  double   now;
  int (*takes)(void *arg, uint64_t model);      /* does the row? 0: any */
  void *arg;
  uint32_t called, called_row;      /* all; to that row */
  uint32_t kept;                    /* 1: one waits that may have the row */
  uint32_t scope, kind;             /* kind not 0: one waits for that limit */
  double   wait;                    /* and is ready in so many seconds; or 0 */
};


/* Bytes of the span for `max` entries, and its view. */
size_t limit_queue_size(uint32_t max);
struct limit_queue limit_queue_view(void *span, uint32_t max);


/* 1 while anybody may be waiting: one load. */
static inline int limit_queue_any(const struct limit_queue *q) {
  return atom_get_u32(&q->shared->top) != 0;
}


/* Enter. DROVER_ERESOURCE: full; DROVER_ETIMEOUT: the deadline cannot be met;
 * *retry is the seconds until it is worth while to come again. Any thread. */
int limit_queue_enter(const struct limit_queue *q, const struct queue_ask *ask,
                      double now, struct queue_place *out, double *retry);


/* 1: called. 0: waits. DROVER_ECLOSED: not there any more. Any thread. */
int limit_queue_called(const struct limit_queue *q,
                       const struct queue_place *at);


/* Called, and refused again as `ask` says: back to where it was. Without a
 * kind it waits for any slot. DROVER_ECLOSED: not there. Its owner. */
int limit_queue_again(const struct limit_queue *q, const struct queue_place *at,
                      const struct queue_ask *ask, double now);


/* Leave. 1 when it was there. Its owner. */
int limit_queue_leave(const struct limit_queue *q,
                      const struct queue_place *at);


/* Free all that a dead member holds. Its reaper, or its owner at the end. */
void limit_queue_reclaim(const struct limit_queue *q, uint32_t member);


/* A slot of that tenant and model was given back, or (`all`) perhaps any.
 * Any thread. */
void limit_queue_moved(const struct limit_queue *q, uint64_t tenant,
                       uint64_t model);
void limit_queue_moved_all(const struct limit_queue *q);


/* How many are in the queue. Any thread. */
uint32_t limit_queue_count(const struct limit_queue *q);


/* What stands before a request that would take a->row at a->now. Any
 * thread. */
void limit_queue_ahead(const struct limit_queue *q, const struct queue_ask *ask,
                       struct queue_ahead *a);


/* ---- popping ---- */

/* Ask for a look, and become the holder when nobody is: 1. 0: the holder will
 * look again. `self` is the process's word (base/member.h). Any thread. */
int limit_queue_hold(const struct limit_queue *q, uint64_t self);


/* Give it back. 1 when somebody asked meanwhile and the caller holds it
 * again: look once more. */
int limit_queue_let(const struct limit_queue *q, uint64_t self);


/* Take a dead holder's word away. Makes system calls: for ticks. */
void limit_queue_heal(const struct limit_queue *q, uint64_t self);


/* The holder's first step of a look: frees who is late, takes back calls that
 * were not answered, rings again, counts `called`. */
void limit_queue_sweep(const struct limit_queue *q,
                       const struct queue_look *look, double now);


/* The holder's second step, until it says 0: pop one. Its row is counted in
 * `called`, its owner is rung. */
int limit_queue_pop(const struct limit_queue *q, const struct queue_look *look,
                    double now);

#endif
