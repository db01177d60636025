/* queue_entry: how an entry of the queue lies in the zone: its one word, what
 * it waits for, and the counts that tell when that has moved. What the steps
 * mean is said in queue.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_QUEUE_ENTRY_H
#define DROVER_LIMIT_QUEUE_ENTRY_H

#include <math.h>
#include <stdint.h>

#include "../base/atom.h"
#include "../base/hash.h"
#include "../drover.h"

enum { QUEUE_PRIORITIES = DROVER_BATCH + 1,
       QUEUE_CAUSES = 256 };        /* counters that causes share by hash */

struct queue_entry {                /* two cache lines; its owner writes it */
  uint64_t word;                    /* serial 32 | member 16 | state 16 */
  uint64_t tenant, model;           /* hashes; 0: none, any */
  uint64_t cause;                   /* what refused it; 0: nothing known */
  double   ready_at, deadline;      /* infinity: none */
  uint16_t priority;
  uint16_t wants;                   /* 1: only room is missing; a pop's word */
  uint32_t tokens;                  /* at least 1 */
  uint32_t mark;                    /* the cause's count when it was tried */
  uint32_t seen_any;                /* counts when it was popped, of which */
  uint32_t seen_tenant, seen_model; /* `mark` becomes one */
  uint64_t tag;                     /* a round; pops move it, see above */
  uint64_t seq;                     /* order of entering */
  uint64_t bell, token;             /* how its owner is called */
  double   called_at, rung_at;      /* of the call; the popper's */
  uint16_t only;                    /* this row and no other; 0: any */
  uint16_t row;                     /* found for it when it was popped */
  uint16_t scope, kind;             /* of its refusal */
};

struct queue_shared {
  uint32_t top;                     /* entries in use lie below; 0: nobody */
  uint32_t again;                   /* 1: the holder of `lock` looks again */
  uint64_t lock;                    /* 0, or member_self() of who pops */
  uint64_t seq;
  uint64_t stamp;                   /* of the groups; the holder's */
  uint64_t round[QUEUE_PRIORITIES]; /* V; the holder's to write */
  uint64_t counted;                 /* of moved[0], in the rate; the holder's */
  double   rate;                    /* slots given back a second; 0: unknown */
  double   smooth, rate_at, rate_from;      /* this and below: the holder's */
  uint64_t began;                   /* moved[0] at rate_from */
  double   beat_at;                 /* the holder's */
  uint32_t peak;                    /* no entry above was ever used */
  uint32_t spare;
  uint32_t tenants;                 /* that waited, at the last look */
  uint32_t beat;                    /* part of every cause's count */
  uint32_t moved[QUEUE_CAUSES];     /* slots given back; [0]: any */
};

_Static_assert(sizeof(struct queue_entry) == 128, "two cache lines");
_Static_assert(sizeof(struct queue_shared) % 8 == 0, "entries are aligned");

enum queue_state { QUEUE_FREE, QUEUE_ENTERING, QUEUE_WAITING, QUEUE_CALLED };


static inline uint64_t queue_word(uint32_t serial, uint32_t member,
                                  enum queue_state state) {
  return (uint64_t)serial << 32 | (uint64_t)member << 16 | (uint64_t)state;
}


static inline uint32_t queue_serial(uint64_t word) {
  return (uint32_t)(word >> 32);
}


static inline uint32_t queue_member(uint64_t word) {
  return (uint32_t)(word >> 16 & 0xffff);
}


static inline enum queue_state queue_state(uint64_t word) {
  return (enum queue_state)(word & 0xffff);
}


/* Sequentially consistent, as the swaps: who sees a state sees what was filled
 * in ahead of it, and looks and enterings are in one order. */
static inline uint64_t queue_load(const uint64_t *word) {
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}


static inline int queue_swap(uint64_t *word, uint64_t from, uint64_t to) {
  return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}


static inline uint32_t queue_get(const uint16_t *p) {
  return __atomic_load_n(p, __ATOMIC_RELAXED);
}


static inline void queue_set(uint16_t *p, uint32_t v) {
  __atomic_store_n(p, (uint16_t)v, __ATOMIC_RELAXED);
}


/* The name of a limit: all requests that it holds up have the same. Never
 * 0. */
static inline uint64_t queue_cause(uint32_t scope, uint64_t tenant,
                                   uint64_t model, uint32_t only) {
  uint64_t name = 0;
  if (scope == DROVER_SCOPE_TENANT)
    name = tenant;
  else if (scope != DROVER_SCOPE_ROUTER)
    name = model;
  if (scope > DROVER_SCOPE_NODE)
    scope = DROVER_SCOPE_NODE;      /* a key's refusal is one of the node's */
  if (scope == DROVER_SCOPE_NODE)
    name ^= hash_mix(only + 1);
  return hash_mix(name + (scope + 1) * UINT64_C(0x9e3779b97f4a7c15)) | 1;
}


/* Which count tells that a cause has moved: what frees a tenant's or a
 * model's slot names it, all else may be freed by anything. */
static inline uint32_t queue_count_of(uint64_t cause, uint32_t scope) {
  return scope == DROVER_SCOPE_TENANT || scope == DROVER_SCOPE_MODEL
         ? 1 + (uint32_t)((cause >> 32) % (QUEUE_CAUSES - 1)) : 0;
}


static inline uint32_t queue_moved(const struct queue_shared *s, uint64_t cause,
                                   uint32_t scope) {
  return __atomic_load_n(&s->moved[queue_count_of(cause, scope)],
                         __ATOMIC_SEQ_CST);
}


/* 1 while an entry has to wait for its time or its cause. One without a time
 * is tried at each beat all the same: what frees a limit by time, or by a new
 * configuration, tells nobody. */
static inline int queue_held(const struct queue_shared *s,
                             const struct queue_entry *e, double now) {
  double ready = atom_get_f64(&e->ready_at);
  if (ready <= now)
    return 0;
  uint64_t cause = atom_get_u64(&e->cause);
  uint32_t beat = isinf(ready) ? atom_get_u32(&s->beat) : 0;
  return !cause || queue_moved(s, cause, queue_get(&e->scope)) + beat ==
                   atom_get_u32(&e->mark);
}

#endif
