/* timers: a heap of deadlines, the next one on top. Reads no clock. One
 * thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_TIMERS_H
#define DROVER_NET_TIMERS_H

#include <stddef.h>
#include <stdint.h>

struct net_timer {
  int64_t at_ns;                    /* due then, on the caller's clock */
  size_t  slot;                     /* in the heap, from 1; 0: not in it */
};

struct net_timers {
  struct net_timer **heap;          /* heap[1..count] */
  size_t count;                     /* timers in it */
  size_t room;                      /* slots allocated, the unused one too */
};


/* The timers themselves are the caller's. */
void net_timers_deinit(struct net_timers *t);


/* Set or move a timer. DROVER_ENOMEM: it is as it was; moving never fails. */
int net_timers_set(struct net_timers *t, struct net_timer *timer,
                   int64_t at_ns);


/* Take a timer out; nothing when it is not in. */
void net_timers_drop(struct net_timers *t, struct net_timer *timer);


/* The timer that is due first, still in the heap; NULL when there is none. */
struct net_timer *net_timers_first(const struct net_timers *t);

#endif
