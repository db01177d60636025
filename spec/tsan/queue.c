/* queue: threads that wait for few slots, under ThreadSanitizer: each with a
 * handle and a port of its own on one zone, the transport's thread rings them.
 * Rounds of one request each, some of which give up; between two rounds
 * nothing is in flight and nobody ticks, so a wake-up that is lost stays lost,
 * and is told by its time. The limit holds, and the queue is empty at the end.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "drover.h"

enum { THREADS = 4, SLOTS = 2, ROUNDS = 20000, PATIENCE = 20 };

struct worker {
  int number;
  drover_router *router;
  drover_port *port;
  struct rand_state rnd;
  long waits, lost;
};

static pthread_barrier_t barrier;
static uint32_t inside, most;


static drover_router *attach(void) {
  drover_router *r = NULL;
  drover_err err;
  drover_router_config c = { .name = "tsan", .shared = 1, .create = 1,
                             .concurrent = SLOTS, .members_max = 8,
                             .queue_max = THREADS };
  if (drover_router_open(&r, &c, &err)) {
    printf("%s\n", err.text);
    exit(1);
  }
  return r;
}


/* 1 when it was called and has its slot, 0 when it gave up or was lost. */
static int wait_for(struct worker *w, drover_pick *p, int gives_up) {
  drover_wait at = { .call = 1, .deadline = INFINITY };
  drover_event ev;
  int rc = drover_wait_begin(w->router, w->port, p, &at, drover_clock(), NULL);
  if (rc)
    return 0;
  w->waits++;
  double till = drover_clock() + PATIENCE;
  while (!gives_up && drover_clock() < till) {
    if (!drover_port_next(w->port, &ev)) {
      drover_port_wait(w->port, till - drover_clock());
      continue;
    }
    if (drover_wait_called(w->router, &at) != 1)
      continue;
    p->called = 1;
    rc = drover_pick_node(w->router, p, drover_clock(), 0.5, NULL);
    p->called = 0;
    if (rc == 0) {
      drover_wait_end(w->router, &at, drover_clock());
      return 1;
    }
    drover_wait_again(w->router, p, &at, drover_clock());
  }
  w->lost += !gives_up;
  drover_wait_end(w->router, &at, drover_clock());
  return 0;
}


static void request(struct worker *w) {
  drover_outcome o = { .first_token_ms = NAN, .token_ms = NAN };
  drover_pick p;
  memset(&p, 0, sizeof p);
  p.key = rand_next(&w->rnd) % 3;
  p.priority = (uint32_t)(rand_next(&w->rnd) % 3);
  p.prompt_tokens = (uint32_t)(rand_next(&w->rnd) % 100);
  while (w->lost == 0 &&
         drover_pick_node(w->router, &p, drover_clock(), 0.5, NULL) != 0)
    if (wait_for(w, &p, rand_next(&w->rnd) % 7 == 0))
      break;
  if (!p.ticket)
    return;
  uint32_t now = __atomic_add_fetch(&inside, 1, __ATOMIC_RELAXED);
  uint32_t seen = __atomic_load_n(&most, __ATOMIC_RELAXED);
  while (now > seen && !__atomic_compare_exchange_n(&most, &seen, now, 0,
                         __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
  for (uint64_t i = rand_next(&w->rnd) % 8; i > 0; i--)
    sched_yield();
  __atomic_sub_fetch(&inside, 1, __ATOMIC_RELAXED);
  drover_ticket_done(w->router, &p, &o, drover_clock());
}


static void *work(void *user) {
  struct worker *w = user;
  w->router = attach();
  w->rnd.x = (uint64_t)w->number;
  if (drover_port_open(&w->port, NULL))
    exit(1);
  for (int i = 0; i < ROUNDS; i++) {
    pthread_barrier_wait(&barrier);
    request(w);
  }
  pthread_barrier_wait(&barrier);
  drover_port_close(w->port);
  drover_router_close(w->router);
  return NULL;
}


int main(void) {
  static struct worker workers[THREADS];
  pthread_t threads[THREADS];
  long waits = 0, lost = 0;
  drover_router *r = attach();
  drover_node_config n = { .id = "n", .url = "http://127.0.0.1", .weight = 1,
                           .capacity = SLOTS, .memory_gb = NAN };
  drover_node_add(r, &n, 1, NULL);
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (int i = 0; i < THREADS; i++) {
    workers[i].number = i + 1;
    pthread_create(&threads[i], NULL, work, &workers[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    waits += workers[i].waits;
    lost += workers[i].lost;
  }
  int right = lost == 0 && waits > 0 && most <= SLOTS &&
              drover_waiting(r) == 0 && drover_inflight(r, 0) == 0;
  printf("%ld waits, %ld lost, at most %u inside\n", waits, lost, most);
  drover_router_close(r);
  printf("%d passed, %d failed\n", right, !right);
  return !right;
}
