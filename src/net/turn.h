/* turn: what the transport thread does, over and over: one look at sockets,
 * submits and deadlines. The door to the thread is loop.h, and nobody but
 * loop.c includes this.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_TURN_H
#define DROVER_NET_TURN_H

#include <pthread.h>

#include "bell.h"
#include "call.h"
#include "watch.h"

enum { NET_POOLED = 64 };           /* handles kept: 2 to 3 us a request */

struct net_loop {
  int32_t refs;                     /* atomic: the process's, and each call's */
  int32_t stopping;                 /* atomic; set once */
  int pid;                          /* whose thread it is */
  int epoll, wake;                  /* wake: an eventfd, see poke() */
  struct net_stack submits;         /* calls with something asked of them */
  struct net_bell *bell;            /* atomic; NULL until somebody waits */
  pthread_t thread;                 /* joined by the one who set stopping */
  /* From here on the thread's. */
  CURLM *multi;
  struct net_watch watch;
  CURL *pool[NET_POOLED];           /* cleared handles, the last one first */
  int pooled;
  struct net_call *running;         /* a list, to fail them all at the stop */
  struct net_shared shared;         /* the timers and owed wake-ups of all */
  int64_t curl_ns;                  /* when libcurl wants a turn; INT64_MAX */
};


/* Libcurl's multi handle for a loop that has its epoll and eventfd. 0, or -1
 * when there is no memory. Any thread, before the loop's own runs. */
int net_turn_init(struct net_loop *loop);


/* The thread: turns until `stopping`, then an end for each call. */
void *net_turn_run(void *loop);

#endif
