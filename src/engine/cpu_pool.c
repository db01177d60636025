/* cpu_pool: see cpu_pool.h.
 *
 *   phase even: closed, the job's fields are the caller's
 *   phase odd:  open, whoever has come inside may take chunks
 *
 * A worker comes inside (inside + 1), looks again whether the same phase is
 * still open, and leaves (inside - 1) when no chunk is left. The caller closes
 * the phase and waits until nobody is inside: a worker that wakes too late
 * finds the phase closed and touches nothing.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "../base/process.h"

enum { SPIN_NS = 20000 };           /* then sleep: a wake-up costs 5 to 10 us */

struct worker {
  struct engine_pool *pool;
  uint32_t number;                  /* 1 .. threads - 1 */
  pthread_t thread;
};

struct engine_pool {
  uint32_t threads;
  uint32_t workers;                 /* that run; the caller alone writes */
  int      pid;                     /* theirs; 0: none was started yet */
  engine_chunk_fn fn;               /* the job: written while closed */
  void    *ctx;
  uint32_t chunks;
  _Atomic uint32_t phase, next, inside;
  _Atomic uint32_t sleepers;        /* workers at `wake`, or about to be */
  _Atomic int waiting;              /* the caller at `done`, or about to be */
  _Atomic int closing;
  pthread_mutex_t lock;             /* of the two conditions alone */
  pthread_cond_t wake, done;
  struct worker worker[];           /* [threads - 1] */
};


/* What a loop that looks at memory tells its core. */
static void relax(void) {
#if defined __x86_64__ || defined __i386__
  __builtin_ia32_pause();
#elif defined __aarch64__
  __asm__ volatile("yield");
#endif
}


uint32_t engine_pool_count(uint32_t wanted) {
  cpu_set_t set;
  if (!wanted || wanted == UINT32_MAX) {
    uint32_t cores = sched_getaffinity(0, sizeof set, &set) ? 1
      : (uint32_t)CPU_COUNT(&set);
    wanted = wanted && cores > 1 ? cores - 1 : cores;
  }
  return wanted > ENGINE_THREADS_MAX ? ENGINE_THREADS_MAX : wanted;
}


uint32_t engine_pool_threads(const struct engine_pool *p) {
  return p->threads;
}


int engine_pool_new(struct engine_pool **out, uint32_t threads,
                    drover_err *err) {
  struct engine_pool *p = mem_calloc(1, sizeof *p
                                     + threads * sizeof p->worker[0]);
  *out = p;
  if (!p)
    return drover_fail(err, DROVER_ENOMEM, "no memory for threads");
  p->threads = threads;
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  pthread_cond_init(&p->done, NULL);
  return DROVER_OK;
}


/* ---- a worker ---- */

/* Until the phase is another than `seen`: 20 us awake, then asleep. The
 * sleeper is counted before it looks, open_phase() looks for sleepers after it
 * has opened (both in one order for all, seq_cst): one of them sees the
 * other. */
static void wait_change(struct engine_pool *p, uint32_t seen) {
  int64_t until = clock_now_ns() + SPIN_NS;
  do {
    for (int i = 0; i < 16; i++, relax())
      if (atomic_load_explicit(&p->phase, memory_order_relaxed) != seen)
        return;
  } while (clock_now_ns() < until);
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->sleepers, 1);
  while (atomic_load(&p->phase) == seen && !atomic_load(&p->closing))
    pthread_cond_wait(&p->wake, &p->lock);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->lock);
}


static void take_chunks(struct engine_pool *p, uint32_t thread) {
  for (;;) {
    uint32_t chunk = atomic_fetch_add_explicit(&p->next, 1,
                                               memory_order_relaxed);
    if (chunk >= p->chunks)
      return;
    p->fn(p->ctx, chunk, thread);
  }
}


/* The decrement releases what was computed to the caller, who sees 0. */
static void work(struct engine_pool *p, uint32_t phase, uint32_t thread) {
  atomic_fetch_add(&p->inside, 1);
  if (atomic_load(&p->phase) == phase)
    take_chunks(p, thread);
  if (atomic_fetch_sub(&p->inside, 1) == 1 && atomic_load(&p->waiting)) {
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
  }
}


static void *run_worker(void *user) {
  const struct worker *w = user;
  struct engine_pool *p = w->pool;
  uint32_t last = 0;
  while (!atomic_load(&p->closing)) {
    uint32_t phase = atomic_load(&p->phase);
    if (phase % 2 && phase != last)
      work(p, phase, w->number);
    last = phase;
    wait_change(p, phase);
  }
  return NULL;
}


/* Signals are the host's: its handlers must not run here. A thread that
 * cannot be had is done without. */
static void start(struct engine_pool *p) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (uint32_t i = 0; i + 1 < p->threads; i++) {
    struct worker *w = &p->worker[i];
    w->pool = p;
    w->number = i + 1;
    if (pthread_create(&w->thread, NULL, run_worker, w))
      break;
    p->workers++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  p->pid = process_pid();
}


/* ---- the caller ---- */

/* Nobody is inside: the job may be written. */
static void open_phase(struct engine_pool *p, uint32_t chunks,
                       engine_chunk_fn fn, void *ctx) {
  p->fn = fn;
  p->ctx = ctx;
  p->chunks = chunks;
  atomic_store_explicit(&p->next, 0, memory_order_relaxed);
  atomic_fetch_add(&p->phase, 1);   /* pairs with the load in run_worker() */
  if (!atomic_load(&p->sleepers))
    return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
}


static void close_phase(struct engine_pool *p) {
  atomic_fetch_add(&p->phase, 1);
  int64_t until = clock_now_ns() + SPIN_NS;
  do {
    for (int i = 0; i < 16; i++, relax())
      if (!atomic_load(&p->inside))
        return;
  } while (clock_now_ns() < until);
  pthread_mutex_lock(&p->lock);
  atomic_store(&p->waiting, 1);
  while (atomic_load(&p->inside))
    pthread_cond_wait(&p->done, &p->lock);
  atomic_store(&p->waiting, 0);
  pthread_mutex_unlock(&p->lock);
}


void engine_pool_run(struct engine_pool *p, uint32_t chunks,
                     engine_chunk_fn fn, void *ctx) {
  int alone = p->threads < 2 || chunks < 2;
  if (!alone && !p->pid)
    start(p);
  if (alone || !p->workers || p->pid != process_pid()) {
    for (uint32_t i = 0; i < chunks; i++)
      fn(ctx, i, 0);
    return;
  }
  open_phase(p, chunks, fn, ctx);
  take_chunks(p, 0);
  close_phase(p);
}


void engine_pool_free(struct engine_pool *p) {
  if (!p)
    return;
  if (p->workers && p->pid == process_pid()) {
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->closing, 1);
    atomic_fetch_add(&p->phase, 2);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->workers; i++)
      pthread_join(p->worker[i].thread, NULL);
  }
  if (!p->workers || p->pid == process_pid()) {
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
  }
  mem_free(p);
}
