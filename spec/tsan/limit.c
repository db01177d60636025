/* limit: threads under the same limits, under ThreadSanitizer. Each has a
 * handle of its own on one zone, whose table of names is small: names come
 * and are forgotten all the time beside a busy one. The clock stands still for
 * a phase, so what passes in it is a burst and no more: requests, tokens after
 * what was given back, retries. What the busy one has in flight is never above
 * its limit, nor what one has that is forgotten whenever that is nothing; and
 * nothing is left at the end.
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

enum { WORKERS = 4, PHASES = 10, TURNS = 8000, HELD = 8, SLOTS = 4,
       REQUESTS = 40, TOKENS = 9000, RESERVE = 10, NAMES = 60, FAME = 2 };

static const drover_limit BUSY = {
  .rpm = 60, .burst_requests = REQUESTS, .tpm = 60000, .burst_tokens = TOKENS,
  .concurrent = SLOTS, .dollars_per_day = 1, .flags = 1 };
static const drover_limit OTHER = {
  .rpm = 6000, .tpm = 60000, .burst_tokens = 5000, .concurrent = 2 };
static const drover_limit BRIEF = { .concurrent = SLOTS };
static const drover_limit ALL = { .rpm = 4000000, .tpm = 4000000000u };

static pthread_barrier_t barrier;
static uint32_t inside[FAME], most[FAME], over;
static uint64_t requests, tokens, sends, retries, admitted, no_room;


static drover_router *attach(void) {
  drover_router *r = NULL;
  drover_err err;
  drover_router_config c = { .name = "tsan", .shared = 1, .create = 1,
                             .nodes_max = 4, .members_max = 8,
                             .tickets_max = 32, .keys_max = 16 };
  if (drover_router_open(&r, &c, &err)) {
    printf("%s\n", err.text);
    exit(1);
  }
  return r;
}


static void add(drover_router *r, int i, uint32_t rpm) {
  char id[16], url[32];
  snprintf(id, sizeof id, "n%d", i);
  snprintf(url, sizeof url, "http://10.0.0.%d", i);
  drover_node_config n = { .id = id, .url = url, .capacity = 20, .weight = 1,
                           .memory_gb = NAN, .price_input = 1,
                           .price_output = 2, .group = 9,
                           .limit_node = { .rpm = 4000000, .concurrent = 30 },
                           .limit_key = { .rpm = rpm } };
  drover_node_add(r, &n, 1, NULL);
}


static void count(uint64_t *at, uint64_t by) {
  __atomic_add_fetch(at, by, __ATOMIC_RELAXED);
}


/* Names 1 and 2 are watched. */
static void enter(uint64_t name) {
  uint32_t i = (uint32_t)name - 1;
  if (i >= FAME)
    return;
  uint32_t now = __atomic_add_fetch(&inside[i], 1, __ATOMIC_RELAXED);
  uint32_t seen = __atomic_load_n(&most[i], __ATOMIC_RELAXED);
  while (now > seen && !__atomic_compare_exchange_n(&most[i], &seen, now, 0,
                         __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
}


/* Settle: never sent, as booked, or with less. */
static void leave(drover_router *r, drover_pick *p, struct rand_state *rnd,
                  double now) {
  drover_outcome o = { .first_token_ms = 5, .token_ms = 1,
                       .tokens = UINT32_MAX };
  uint32_t booked = p->prompt_tokens + p->max_tokens, real = booked;
  int busy = p->key == 1, sent = rand_next(rnd) % 4 != 0;
  if (rand_next(rnd) & 1)
    o.tokens = real = (uint32_t)(rand_next(rnd) % booked);
  if (p->key <= FAME)
    __atomic_sub_fetch(&inside[p->key - 1], 1, __ATOMIC_RELAXED);
  if (sent) {
    drover_ticket_sent(r, p);
    count(&sends, 1);
  }
  if (busy && sent) {
    count(&requests, 1);
    count(&tokens, real);
  }
  drover_ticket_done(r, p, &o, now);
}


static void ask(drover_router *r, drover_pick *p, struct rand_state *rnd,
                double now) {
  memset(p, 0, sizeof *p);
  uint64_t who = rand_next(rnd) % 6;
  p->key = who < 4 ? 1 + who % 2 : 3 + rand_next(rnd) % NAMES;
  p->limits[DROVER_SCOPE_ROUTER] = &ALL;
  p->limits[DROVER_SCOPE_TENANT] = p->key == 1 ? &BUSY
                                 : p->key % 4 ? &BRIEF : &OTHER;
  p->prompt_tokens = 1 + (uint32_t)(rand_next(rnd) % 100);
  p->max_tokens = (uint32_t)(rand_next(rnd) % 200);
  if (drover_pick_node(r, p, now, rand_unit(rnd), NULL) == 0) {
    count(&admitted, 1);
    enter(p->key);
  } else if (p->refused_kind == DROVER_LIMIT_TABLE) {
    count(&no_room, 1);
  }
}


static void phase(drover_router *r, struct rand_state *rnd, double now) {
  drover_pick held[HELD];
  memset(held, 0, sizeof held);
  for (int i = 0; i < TURNS; i++) {
    drover_pick *p = &held[rand_next(rnd) % HELD];
    if (p->ticket)
      leave(r, p, rnd, now);
    else
      ask(r, p, rnd, now);
    if (i % 8 == 0) {
      count(&retries, (uint64_t)drover_retry_take(r, now));
      sched_yield();                /* few cores: let the others in between */
    }
  }
  for (int i = 0; i < HELD; i++)
    if (held[i].ticket)
      leave(r, &held[i], rnd, now);
}


/* One of the threads looks at the sums, while the others wait. */
static void check(double now) {
  if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
    uint64_t allowed = sends / 5 + RESERVE;
    if (requests > REQUESTS || tokens > TOKENS || retries > allowed) {
      over++;
      printf("phase of %g: %llu requests, %llu tokens, %llu retries of %llu\n",
             now, (unsigned long long)requests, (unsigned long long)tokens,
             (unsigned long long)retries, (unsigned long long)allowed);
    }
    requests = tokens = retries = sends = 0;
  }
  pthread_barrier_wait(&barrier);
}


static void *work(void *arg) {
  struct rand_state rnd = { (uint64_t)(uintptr_t)arg };
  drover_router *r = attach();
  for (int i = 1; i <= PHASES; i++) {
    double now = i * 1000.0;        /* all is paid for, and the budget anew */
    phase(r, &rnd, now);
    check(now);
  }
  drover_router_close(r);
  return NULL;
}


/* Beside them: shares come and go, nodes get other limits, figures are read. */
static void *meddle(void *arg) {
  static char page[1 << 16];
  struct rand_state rnd = { 99 };
  drover_router *r = attach();
  uint32_t *running = arg;
  while (__atomic_load_n(running, __ATOMIC_ACQUIRE)) {
    drover_share share;
    drover_totals totals;
    uint32_t place = 0;
    while ((place = drover_share_next(r, place, &share)))
      drover_share_set(r, share.id, 0.5f, 1e6);
    add(r, 1 + (int)(rand_next(&rnd) % 3),
        rand_next(&rnd) & 1 ? 0 : 4000000 + (uint32_t)(rand_next(&rnd) % 9));
    drover_router_totals(r, &totals, 1);
    drover_expose(r, page, sizeof page);
    drover_tick(r, 1);
  }
  drover_router_close(r);
  return NULL;
}


/* The busy one gets all its slots again, and no more: none is left taken. */
static int all_free(drover_router *r) {
  drover_pick held[SLOTS + 1];
  int got = 0;
  memset(held, 0, sizeof held);
  for (int i = 0; i <= SLOTS; i++) {
    held[i].key = 1;
    held[i].limits[DROVER_SCOPE_TENANT] = &BUSY;
    got += drover_pick_node(r, &held[i], 1e6, 0.5, NULL) == 0;
  }
  return got == SLOTS;
}


int main(void) {
  pthread_t threads[WORKERS], other;
  uint32_t running = 1;
  drover_router *r = attach();
  for (int i = 1; i <= 3; i++)
    add(r, i, 0);
  pthread_barrier_init(&barrier, NULL, WORKERS);
  pthread_create(&other, NULL, meddle, &running);
  for (uintptr_t i = 0; i < WORKERS; i++)
    pthread_create(&threads[i], NULL, work, (void *)(i + 1));
  for (int i = 0; i < WORKERS; i++)
    pthread_join(threads[i], NULL);
  __atomic_store_n(&running, 0, __ATOMIC_RELEASE);
  pthread_join(other, NULL);
  int bad = (most[0] > SLOTS) + (most[0] < 2) + (most[1] > SLOTS) +
            (most[1] < 2) + (over > 0) + (admitted < TURNS) +
            (drover_inflight(r, 0) != 0) + !all_free(r);
  printf("%llu admissions by %d threads, %u and %u of %d at most inside, %llu "
         "times no room for a name\n", (unsigned long long)admitted, WORKERS,
         most[0], most[1], SLOTS, (unsigned long long)no_room);
  drover_router_close(r);
  printf("%d passed, %d failed\n", bad == 0, bad != 0);
  return bad != 0;
}
