/* queue_word: an entry's word and its cause, as the two files of the queue
 * read them. Nobody else includes it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_QUEUE_WORD_H
#define DROVER_LIMIT_QUEUE_WORD_H

#include <math.h>

#include "../base/hash.h"
#include "queue.h"

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
