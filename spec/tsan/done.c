/* Threads on one completion queue, under ThreadSanitizer: each of what was
 * pushed is taken once, in the order of its thread, and the reader is never
 * left asleep; then a queue that is closed while threads push; and a reader
 * that is awake while it is woken, which must not stay awake for nothing.
 *
 * SPDX-License-Identifier: MIT */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/done.h"

enum { THREADS = 4, EACH = 50000, TURNS = 5000 };

#define WAIT_NS ((int64_t)20 * 1000000000)

struct thing {
  struct net_link link;
  int thread, number;
};

struct work {
  struct net_done *done;
  int thread;
  long refused;                     /* pushes that found it closed */
};


static void *push_all(void *user) {
  struct work *w = user;
  for (int i = 0; i < EACH; i++) {
    struct thing *t = malloc(sizeof *t);
    t->thread = w->thread;
    t->number = i;
    int rc = net_stack_push(&w->done->stack, &t->link);
    if (rc > 0)
      net_done_wake(w->done);
    if (rc < 0) {
      w->refused++;
      free(t);
    }
  }
  net_done_unref(w->done);
  return NULL;
}


/* Count and free; -1 when a thread's things come out of order. */
static long count(struct net_link *l, int next[THREADS]) {
  long n = 0;
  int right = 1;
  while (l) {
    struct thing *t = (struct thing *)l;
    l = l->next;
    right = right && t->number >= next[t->thread];
    next[t->thread] = t->number + 1;
    n++;
    free(t);
  }
  return right ? n : -1;
}


static void start(struct net_done *d, struct work *w, pthread_t *t) {
  for (int i = 0; i < THREADS; i++) {
    w[i] = (struct work){ d, i, 0 };
    net_done_ref(d);
    pthread_create(&t[i], NULL, push_all, &w[i]);
  }
}


/* 1 when all were taken in order (`until` 0), or, when the queue is closed
 * after `until`, all were taken or refused. */
static int round_of(long until) {
  struct net_done *d;
  struct work w[THREADS];
  pthread_t t[THREADS];
  int next[THREADS] = { 0 }, right = 1;
  long taken = 0, wanted = until ? until : (long)THREADS * EACH, refused = 0;
  if (net_done_new(&d, NULL))
    return 0;
  start(d, w, t);
  while (taken < wanted && right && net_done_wait(d, WAIT_NS)) {
    long n = count(net_done_take(d), next);
    right = n >= 0;
    taken += n;
  }
  taken += count(net_stack_close(&d->stack), next);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(t[i], NULL);
    refused += w[i].refused;
  }
  right = right && taken + refused == (long)THREADS * EACH
          && (until || refused == 0) && !net_stack_take(&d->stack);
  net_done_unref(d);
  return right;
}


struct turns {
  struct net_done *done;
  struct net_link link;
  int asked, woken;                 /* atomic: the turn that may go, that went */
};


static void *push_in_turn(void *user) {
  struct turns *s = user;
  for (int i = 1; i <= TURNS; i++) {
    while (__atomic_load_n(&s->asked, __ATOMIC_ACQUIRE) < i)
      sched_yield();
    if (net_stack_push(&s->done->stack, &s->link) > 0)
      net_done_wake(s->done);
    __atomic_store_n(&s->woken, i, __ATOMIC_RELEASE);
  }
  return NULL;
}


/* 1 when the descriptor was quiet each time that a wake-up had been answered
 * by a look, though the reader looked all the while. */
static int quiet_round(void) {
  struct turns s = { 0 };
  pthread_t t;
  int loud = 0;
  if (net_done_new(&s.done, NULL))
    return 0;
  pthread_create(&t, NULL, push_in_turn, &s);
  for (int i = 1; i <= TURNS; i++) {
    __atomic_store_n(&s.asked, i, __ATOMIC_RELEASE);
    while (__atomic_load_n(&s.woken, __ATOMIC_ACQUIRE) < i)
      net_done_take(s.done);
    net_done_take(s.done);
    struct pollfd p = { .fd = s.done->fd, .events = POLLIN };
    loud += poll(&p, 1, 0) > 0;
  }
  pthread_join(t, NULL);
  net_done_unref(s.done);
  return loud == 0;
}


int main(void) {
  int quiet = quiet_round(), passed = quiet, failed = !quiet;
  for (int i = 0; i < 5; i++) {
    int all = round_of(0), closed = round_of(1000 + i * 7001);
    passed += all + closed;
    failed += 2 - all - closed;
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
