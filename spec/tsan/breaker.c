/* breaker: threads on one row, under ThreadSanitizer. A probe's permit is never
 * held by two while its lease lasts, no outcome is lost from the share, no more
 * passes than the node said is left, and the row shows what its word says in
 * the end. Time is a counter that the threads move on, 10 ms each turn.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/rand.h"
#include "node/breaker.h"
#include "node/share.h"
#include "node/upstream.h"

enum { WORKERS = 4, TURNS = 2000000, COUNTED = 50000, LEFT = 60000 };

static drover_node row;
static struct node_row own;
static uint64_t turns, holder, permits, openings, closings, passed;
static int failed, running;


static void fail(const char *what) {
  printf("%s\n", what);
  __atomic_store_n(&failed, 1, __ATOMIC_RELAXED);
}


static double tick(void) {
  return 1 + (double)__atomic_add_fetch(&turns, 1, __ATOMIC_RELAXED) * 1e-2;
}


/* `holder` has the time at which the permit that is out was taken, in ms. */
static void hold(double now) {
  uint64_t at = (uint64_t)(now * 1e3);
  uint64_t was = __atomic_exchange_n(&holder, at, __ATOMIC_RELAXED);
  __atomic_add_fetch(&permits, 1, __ATOMIC_RELAXED);
  if (was && (double)at - (double)was < (BREAKER_LEASE - 1) * 1e3)
    fail("two hold a probe's permit");
}


/* Probes fare better, lest the row be out for most of the run. */
static enum breaker_verdict draw(struct rand_state *rnd, int probe) {
  uint64_t lot = rand_next(rnd) % 1000;
  if (probe)
    lot = lot * 2 / 3;
  return lot < 600 ? BREAKER_SUCCESS : lot < 640 ? BREAKER_NEUTRAL
       : lot < 900 ? BREAKER_FAILURE : lot < 999 ? BREAKER_LIMITED
       : BREAKER_REFUSED;
}


static void one(struct rand_state *rnd) {
  struct breaker_permit permit;
  double now = tick();
  if (!node_breaker_enter(&row, &own, now, &permit) &&
      !(rand_next(rnd) % 8 == 0 && node_breaker_panic(&own, &permit)))
    return;
  if (permit.probe == BREAKER_PROBE)
    hold(now);
  node_breaker_holds(&own, &permit);
  struct breaker_said said = { draw(rnd, permit.probe == BREAKER_PROBE), 0,
                               rand_unit(rnd) };
  if (rand_next(rnd) % 4 == 0)
    said.retry_after = 0.5f;
  if (permit.probe == BREAKER_PROBE)
    __atomic_store_n(&holder, 0, __ATOMIC_RELAXED);
  switch (node_breaker_settle(&row, &own, &permit, &said, now)) {
  case BREAKER_OUT: __atomic_add_fetch(&openings, 1, __ATOMIC_RELAXED); break;
  case BREAKER_BACK: __atomic_add_fetch(&closings, 1, __ATOMIC_RELAXED); break;
  case BREAKER_SAME: break;
  }
}


static void *work(void *arg) {
  struct rand_state rnd = { (uint64_t)(uintptr_t)arg };
  for (int i = 0; i < TURNS; i++)
    one(&rnd);
  __atomic_sub_fetch(&running, 1, __ATOMIC_RELEASE);
  return NULL;
}


/* What a tick and an operator do meanwhile. */
static void *change(void *arg) {
  struct rand_state rnd = { 7 };
  (void)arg;
  while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
    double now = tick();
    switch (rand_next(&rnd) % 32) {
    case 0: node_breaker_admin(&row, &own, BREAKER_DRAINING, BREAKER_ACTIVE);
            break;
    case 1: node_breaker_admin(&row, &own, BREAKER_ACTIVE, BREAKER_DRAINING);
            break;
    case 2: node_breaker_eject(&row, &own, now, 0.5); break;
    case 3: node_breaker_why(&own); node_breaker_out_for(&own, now); break;
    default: node_breaker_tend(&row, &own, now);
    }
    node_share_rate(&own, now);
  }
  node_breaker_admin(&row, &own, BREAKER_ACTIVE, -1);
  return NULL;
}


static void *count(void *arg) {
  (void)arg;
  for (int i = 0; i < COUNTED; i++)
    node_share_add(&own, i & 1, 4);
  return NULL;
}


/* Each takes and gives back now and then; what it keeps is counted. */
static void *use(void *arg) {
  struct rand_state rnd = { (uint64_t)(uintptr_t)arg };
  double wait;
  for (int i = 0; i < LEFT; i++) {
    if (!node_upstream_take(&own, 2, 10, &wait))
      continue;
    if (rand_next(&rnd) & 1)
      node_upstream_give(&own, 1, 2, 10);
    else
      __atomic_add_fetch(&passed, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}


static void together(void *(*f)(void *), int workers) {
  pthread_t threads[WORKERS];
  for (int i = 0; i < workers; i++)
    pthread_create(&threads[i], NULL, f, (void *)(uintptr_t)(i + 1));
  for (int i = 0; i < workers; i++)
    pthread_join(threads[i], NULL);
}


static void check_upstream(const drover_upstream *said, const char *what) {
  node_upstream_clear(&own);
  node_upstream_set(&own, said, 10);
  passed = 0;
  together(use, WORKERS);
  if (passed > LEFT || passed < LEFT - WORKERS)
    fail(what);
}


int main(void) {
  pthread_t changer;
  own.weight = row.weight = 1;
  node_breaker_reset(&row, &own, BREAKER_ACTIVE, 0);
  running = WORKERS;
  pthread_create(&changer, NULL, change, NULL);
  together(work, WORKERS);
  pthread_join(changer, NULL);
  uint64_t word = own.breaker;
  uint32_t shown = row.state;
  node_breaker_admin(&row, &own, BREAKER_ACTIVE, -1);
  if (own.breaker != word || row.state != shown)
    fail("the row does not show its word");
  if (permits < 100 || closings < 20)
    fail("hardly anything was probed");
  node_share_clear(&own);
  together(count, WORKERS);
  struct node_share sum = node_share_sum(&own, 4);
  if (sum.all != WORKERS * COUNTED || sum.ok * 2 != sum.all)
    fail("the share has lost outcomes");
  drover_upstream window = { NAN, LEFT, 90, NAN, LEFT * 2, 90 };
  check_upstream(&window, "the window let others pass");
  drover_upstream paced = { LEFT * 3, LEFT, 90, LEFT * 4, LEFT * 2, 90 };
  check_upstream(&paced, "the bucket let others pass");
  printf("%llu permits, %llu changes, %llu closings\n",
         (unsigned long long)permits, (unsigned long long)openings,
         (unsigned long long)closings);
  return failed;
}
