/* ticket: threads on one zone, under ThreadSanitizer. Each thread has a handle
 * of its own, so a member of its own: workers pick, send and settle; one
 * thread adds, removes and drains nodes; one ticks, reads texts and writes the
 * exposition. The exact limit holds, and nothing is left at the end. TSan sees
 * one process; spec/kill/cells.c does the same over several.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "drover.h"

enum { WORKERS = 4, LIMIT = 5, HELD = 3, TURNS = 400000, NODES = 6 };

static uint32_t inside, most, running;
static uint64_t admitted;


static drover_router *attach(void) {
  drover_router *r = NULL;
  drover_err err;
  drover_router_config c = { .name = "tsan", .shared = 1, .create = 1,
                             .concurrent = LIMIT, .nodes_max = 8,
                             .members_max = 16, .tickets_max = 16 };
  if (drover_router_open(&r, &c, &err)) {
    printf("%s\n", err.text);
    exit(1);
  }
  return r;
}


static void add(drover_router *r, int i, const char *spec) {
  char id[16], url[32];
  snprintf(id, sizeof id, "n%d", i);
  snprintf(url, sizeof url, "http://10.0.0.%d", i);
  uint64_t model = drover_hash("m", 1);
  drover_node_config n = { .id = id, .url = url, .capacity = 3, .weight = 1,
                           .spec = spec, .spec_size = strlen(spec),
                           .models = &model, .models_count = (uint32_t)i & 1,
                           .tier = (uint32_t)i % 2, .memory_gb = NAN };
  drover_node_add(r, &n, 1, NULL);
}


static void enter(void) {
  uint32_t now = __atomic_add_fetch(&inside, 1, __ATOMIC_RELAXED);
  uint32_t seen = __atomic_load_n(&most, __ATOMIC_RELAXED);
  while (now > seen && !__atomic_compare_exchange_n(&most, &seen, now, 0,
                         __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
  __atomic_add_fetch(&admitted, 1, __ATOMIC_RELAXED);
}


static void leave(drover_router *r, drover_pick *p, int code, double now) {
  drover_outcome o = { .code = code, .first_token_ms = 5, .token_ms = 1,
                       .prompt_tokens = 3 };
  __atomic_sub_fetch(&inside, 1, __ATOMIC_RELAXED);
  drover_ticket_done(r, p, &o, now);
  drover_request_done(r, p->node, code, 1e-5, 0.1);
  drover_pick_reset(p);
}


static void *work(void *arg) {
  struct rand_state rnd = { (uint64_t)(uintptr_t)arg };
  drover_router *r = attach();
  drover_pick held[HELD];
  memset(held, 0, sizeof held);
  for (int i = 0; i < TURNS; i++) {
    drover_pick *p = &held[rand_next(&rnd) % HELD];
    double now = 1 + i * 1e-3;
    if (i % 64 == 0)
      drover_router_policy(r, (uint32_t)(rand_next(&rnd) % 7));
    if (p->ticket) {
      leave(r, p, rand_next(&rnd) % 8 ? DROVER_OK : DROVER_ERESET, now);
    } else {
      p->prompt_tokens = 10;
      p->model = i & 1 ? drover_hash("m", 1) : 0;
      if (drover_pick_node(r, p, now, rand_unit(&rnd), NULL) == 0) {
        enter();
        drover_ticket_sent(r, p);
      }
    }
  }
  for (int i = 0; i < HELD; i++)
    if (held[i].ticket)
      leave(r, &held[i], DROVER_OK, 1);
  drover_router_close(r);
  __atomic_sub_fetch(&running, 1, __ATOMIC_RELEASE);
  return NULL;
}


static void *change(void *arg) {
  struct rand_state rnd = { 77 };
  drover_router *r = attach();
  (void)arg;
  while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
    int i = 1 + (int)(rand_next(&rnd) % NODES);
    char id[16];
    snprintf(id, sizeof id, "n%d", i);
    drover_report report = { 10, 20, 3, 0.5f, 2 };
    switch (rand_next(&rnd) % 6) {
    case 0: drover_node_remove(r, id); break;
    case 1: drover_node_drain(r, id, 1); break;
    case 2: drover_node_drain(r, id, 0); break;
    case 3: drover_node_report(r, id, &report, 2); break;
    default: add(r, i, rand_next(&rnd) & 1 ? "{}" : "{\"a\":1}");
    }
  }
  drover_router_close(r);
  return NULL;
}


static void *look(void *arg) {
  static char page[1 << 18];
  static drover_node_text text;
  drover_router *r = attach();
  drover_node_stats stats;
  drover_totals totals;
  double now = 1;
  (void)arg;
  while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
    drover_tick(r, now += 0.01);
    drover_expose(r, page, sizeof page);
    drover_router_totals(r, &totals, now);
    for (uint32_t i = 1; i <= drover_node_count(r); i++) {
      drover_node_stat(r, i, &stats, now);
      if (drover_node_read(r, i, &text) == 0 && text.id[0] != 'n')
        abort();                    /* a torn text */
    }
  }
  drover_router_close(r);
  return NULL;
}


int main(void) {
  pthread_t threads[WORKERS + 3];
  drover_router *r = attach();
  for (int i = 1; i <= NODES; i++)
    add(r, i, "{}");
  running = WORKERS;
  for (uintptr_t i = 0; i < WORKERS; i++)
    pthread_create(&threads[i], NULL, work, (void *)(i + 1));
  pthread_create(&threads[WORKERS], NULL, change, NULL);
  pthread_create(&threads[WORKERS + 1], NULL, change, NULL);
  pthread_create(&threads[WORKERS + 2], NULL, look, NULL);
  for (int i = 0; i < WORKERS + 3; i++)
    pthread_join(threads[i], NULL);
  int bad = (most > LIMIT) + (most < 2) + (admitted < TURNS / 10) +
            (drover_inflight(r, 0) != 0);
  for (uint32_t i = 1; i <= drover_node_count(r); i++)
    bad += drover_inflight(r, i) != 0;
  printf("%llu admissions by %d threads, %u at most inside\n",
         (unsigned long long)admitted, WORKERS, most);
  drover_router_close(r);
  printf("%d passed, %d failed\n", bad == 0, bad != 0);
  return bad != 0;
}
