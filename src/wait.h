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
