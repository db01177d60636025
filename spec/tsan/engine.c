/* Races the engine's door: threads submit, cancel and look, while its own
 * thread steps. Wanted: every request that was accepted and not cancelled
 * ends exactly once; no event comes for one whose cancel has returned.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "../support/tiny.h"
#include "engine/engine.h"

enum { THREADS = 4, REQUESTS = 60 };

struct request {
  atomic_int ends, events;
  int cancelled;                    /* its thread alone */
  int late;                         /* events that came behind the cancel */
};

struct worker {
  struct engine *engine;
  struct request request[REQUESTS];
  int refused;
  unsigned seed;
};


static void note(void *ctx, const drover_event *ev) {
  struct request *r = ctx;
  atomic_fetch_add(&r->events, 1);
  atomic_fetch_add(&r->ends, ev->type == DROVER_EVENT_END
                             || ev->type == DROVER_EVENT_FAIL);
}


static void one(struct worker *w, struct request *r) {
  drover_generate g = { .call = 1, .prompt = { "abc abc", 7 }, .top_p = 1,
                        .temperature = 1, .seed = w->seed,
                        .max_tokens = 1 + (uint32_t)rand_r(&w->seed) % 28 };
  if (rand_r(&w->seed) % 4 == 0)
    g.prompt = (drover_text){ "abc abc abc abc abc abc abc abc ab", 34 };
  g.priority = (uint32_t)rand_r(&w->seed) % 3;
  g.salt = (uint64_t)rand_r(&w->seed) % 2;
  if (rand_r(&w->seed) % 6 == 0) {
    g.pool = DROVER_POOL_MEAN;
  } else {
    g.n = (uint32_t)rand_r(&w->seed) % 3;
    g.frequency = 0.5f;
    g.logprobs = 1;
    g.format = (uint32_t)rand_r(&w->seed) % 2;
  }
  if (engine_prefix(w->engine, &g, NULL, NULL) > 32)
    r->late++;                      /* more than the longest prompt has */
  drover_engine_load load;
  uint64_t id;
  while (engine_submit(w->engine, &g, note, r, &id, NULL)) {
    w->refused++;                   /* the queue is full: look, and ask again */
    engine_busy(w->engine, &load);
    usleep(200);
  }
  if (rand_r(&w->seed) % 3)
    return;
  usleep((unsigned)rand_r(&w->seed) % 2000);
  engine_cancel(w->engine, id);
  r->cancelled = 1;
  int events = atomic_load(&r->events);
  usleep(100);
  r->late += atomic_load(&r->events) - events;
}


static void *run(void *user) {
  struct worker *w = user;
  for (int i = 0; i < REQUESTS; i++)
    one(w, &w->request[i]);
  return NULL;
}


static int check(const struct worker *w) {
  int wrong = 0;
  for (int i = 0; i < REQUESTS; i++) {
    const struct request *r = &w->request[i];
    int ends = atomic_load(&r->ends);
    wrong += r->late || (r->cancelled ? ends > 1 : ends != 1);
  }
  return wrong;
}


/* With half of the blocks that its batch may need: some are preempted. */
static int open_small(struct engine **e, drover_engine_config *c,
                      drover_err *err) {
  drover_engine_info all;
  drover_engine_load load;
  if (engine_open(e, c, err))
    return -1;
  engine_describe(*e, &all);
  engine_busy(*e, &load);
  engine_close(*e);
  uint64_t block = 2 * 16 * 4 * 2;  /* keys and values, halves, of 4 */
  c->memory_cap_bytes = all.memory_bytes - load.kv_tokens / 32 * block;
  return engine_open(e, c, err);
}


int main(void) {
  static struct tiny t;
  static struct worker workers[THREADS];
  pthread_t threads[THREADS];
  char path[64];
  int wrong = 0, refused = 0;
  tiny_build(&t, 1);
  int fd = tiny_file(t.bytes, t.size, path);
  drover_engine_config c = { .path = path, .batch = 4, .queue = 8,
                             .draft = DROVER_DRAFT_ALWAYS };
  struct engine *e;
  drover_err err;
  if (open_small(&e, &c, &err)) {
    printf("%s\n0 passed, 1 failed\n", err.text);
    return 1;
  }
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){ .engine = e, .seed = (unsigned)i + 1 };
    pthread_create(&threads[i], NULL, run, &workers[i]);
  }
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  drover_engine_load load;
  engine_busy(e, &load);
  engine_close(e);                  /* what still ran has ended as closed */
  for (int i = 0; i < THREADS; i++) {
    wrong += check(&workers[i]);
    refused += workers[i].refused;
  }
  close(fd);
  printf("%d requests, %d refusals, %.0f preemptions of %u tokens' room\n",
         THREADS * REQUESTS, refused, load.preemptions, load.kv_tokens);
  printf("%d passed, %d failed\n", !wrong, !!wrong);
  return wrong != 0;
}
