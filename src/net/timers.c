/* timers: see timers.h. A binary heap, heap[i / 2] due no later than heap[i].
 * Each timer knows its slot, so moving one needs no search: a deadline moves
 * with each look at a call.
 *
 * SPDX-License-Identifier: MIT */
#include "timers.h"

#include "../base/mem.h"
#include "../drover.h"


void net_timers_deinit(struct net_timers *t) {
  mem_free(t->heap);
  t->heap = NULL;
  t->count = t->room = 0;
}


static void put(struct net_timers *t, size_t slot, struct net_timer *timer) {
  t->heap[slot] = timer;
  timer->slot = slot;
}


/* Move `timer`, for which `slot` is free, up or down to its place. */
static void settle(struct net_timers *t, size_t slot, struct net_timer *timer) {
  while (slot > 1 && t->heap[slot / 2]->at_ns > timer->at_ns) {
    put(t, slot, t->heap[slot / 2]);
    slot /= 2;
  }
  for (size_t child; (child = slot * 2) <= t->count; slot = child) {
    if (child < t->count && t->heap[child + 1]->at_ns < t->heap[child]->at_ns)
      child++;
    if (t->heap[child]->at_ns >= timer->at_ns)
      break;
    put(t, slot, t->heap[child]);
  }
  put(t, slot, timer);
}


/* Memory grows and is kept: what calls at once have needed they need again.
 * heap[0] is unused, so the slot `count` must be below `room`. */
int net_timers_set(struct net_timers *t, struct net_timer *timer,
                   int64_t at_ns) {
  if (!timer->slot) {
    if (t->count + 1 >= t->room) {
      size_t room = t->room ? t->room * 2 : 32;
      void *heap = mem_realloc(t->heap, room * sizeof *t->heap);
      if (!heap)
        return DROVER_ENOMEM;
      t->heap = heap;
      t->room = room;
    }
    timer->slot = ++t->count;
  }
  timer->at_ns = at_ns;
  settle(t, timer->slot, timer);
  return DROVER_OK;
}


/* The last one fills the gap, and may have to go either way from there. */
void net_timers_drop(struct net_timers *t, struct net_timer *timer) {
  size_t slot = timer->slot;
  if (!slot)
    return;
  timer->slot = 0;
  struct net_timer *last = t->heap[t->count--];
  if (last != timer)
    settle(t, slot, last);
}


struct net_timer *net_timers_first(const struct net_timers *t) {
  return t->count ? t->heap[1] : NULL;
}
