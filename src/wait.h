/* wait: where the hall's other files meet the queue: what frees a slot says
 * so, what takes one asks whether others stand before it. Each costs one load
 * while nobody waits.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_WAIT_H
#define DROVER_WAIT_H

#include "hall.h"


/* Pop whoever may go now, unless another process is at it: that one then
 * looks once more. */
void wait_pump(struct drover_router *r, double now);


/* Of wait_freed() and wait_ahead(), once it is known that somebody waits. */
void wait_tell(struct drover_router *r, const drover_pick *p, double now);
int wait_look(struct drover_router *r, drover_pick *p, uint32_t node,
              drover_err *err);


/* A tick: repeat what was lost, and pump. */
void wait_tick(struct drover_router *r, double now);


/* What `p` held was given back (NULL: something was): the next may go. The
 * fence parts the giving back from the look at the queue; its partners are the
 * last store of an entering and the first of a pump, behind which the cells
 * are read. So one of both sees the other. */
static inline void wait_freed(struct drover_router *r, const drover_pick *p,
                              double now) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (limit_queue_any(&r->queue))
    wait_tell(r, p, now);
}


/* The same behind a settling, where no fence is needed while nothing has ever
 * waited. `waits` is raised by configurations that let requests wait, and by
 * each entering ahead of its entry (wait_ready()). Behind the cells of every
 * claim stands a fence too, and the claim's thread settles: an attempt that was
 * claimed behind the raising sees it. One that was in flight already may miss
 * an entry that enters in the instant of its settling; the next tick lets that
 * one go. */
static inline void wait_settled(struct drover_router *r, const drover_pick *p,
                                double now) {
  if (atom_get_u32(&r->shared->waits))
    wait_freed(r, p, now);
}


/* Requests may wait from now on. */
static inline void wait_ready(struct hall_shared *s) {
  atom_raise_u32(&s->waits, 1);
}


/* Something may have been freed where no clock is at hand: the next tick of
 * any process lets the next go. */
static inline void wait_moved(struct drover_router *r) {
  if (limit_queue_any(&r->queue))
    limit_queue_moved_all(&r->queue);
}


/* May `p` take the row, or do others stand before it? 0: it may. DROVER_EAGAIN:
 * the row is kept for them. DROVER_EOVERLOADED, DROVER_ERATELIMITED: they wait
 * for a limit of its own. A retry was let in before all who wait. */
static inline int wait_ahead(struct drover_router *r, drover_pick *p,
                             uint32_t node, drover_err *err) {
  return limit_queue_any(&r->queue) && !p->called && !p->paid
         ? wait_look(r, p, node, err) : DROVER_OK;
}

#endif
