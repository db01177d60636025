/* Races the pool: phases of all sizes, back to back and far enough apart that
 * the workers sleep. Wanted: every chunk ran exactly once, by a thread of its
 * own number, and the caller sees what it wrote (plain memory: the pool alone
 * orders it).
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "engine/cpu_pool.h"

enum { POOLS = 12, PHASES = 600, CHUNKS = 97, THREADS = 5 };

struct phase {
  uint32_t ran[CHUNKS];             /* times; plain */
  uint32_t by[THREADS];             /* chunks of each thread; plain */
  uint32_t spin;
};


static void chunk(void *ctx, uint32_t at, uint32_t thread) {
  struct phase *p = ctx;
  volatile uint32_t work = 0;
  for (uint32_t i = 0; i < p->spin; i++)
    work = work + i;
  p->ran[at]++;
  p->by[thread]++;
}


static int run(struct engine_pool *pool, struct phase *p, uint32_t chunks) {
  uint32_t sum = 0;
  int wrong = 0;
  memset(p->ran, 0, sizeof p->ran);
  memset(p->by, 0, sizeof p->by);
  engine_pool_run(pool, chunks, chunk, p);
  for (uint32_t i = 0; i < CHUNKS; i++)
    wrong += p->ran[i] != (i < chunks);
  for (uint32_t i = 0; i < THREADS; i++)
    sum += p->by[i];
  return wrong + (sum != chunks);
}


/* Past the 20 us that a worker stays awake. */
static void pause_a_little(void) {
  int64_t until = clock_now_ns() + 60000;
  while (clock_now_ns() < until)
    continue;
}


int main(void) {
  static struct phase p;
  int wrong = 0, phases = 0;
  for (uint32_t i = 0; i < POOLS; i++) {
    struct engine_pool *pool;
    if (engine_pool_new(&pool, 1 + i % THREADS, NULL))
      return 1;
    for (uint32_t j = 0; j < PHASES; j++, phases++) {
      p.spin = j % 7 * 40;
      wrong += run(pool, &p, (i * 31 + j * 17) % (CHUNKS + 1));
      if (j % 50 == 0)
        pause_a_little();
    }
    engine_pool_free(pool);         /* asleep or awake, as it comes */
  }
  printf("%d phases\n", phases);
  printf("%d passed, %d failed\n", !wrong, !!wrong);
  return wrong != 0;
}
