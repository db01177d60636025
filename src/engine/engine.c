/* engine: see engine.h. Opening, the thread, and what others call; turn.c
 * has the loop's body.
 *
 * SPDX-License-Identifier: MIT */
#include "engine.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "../base/process.h"
#include "../base/rand.h"
#include "inside.h"


static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for an engine");
}


/* ---- open ---- */

static int check_serving(struct engine *e, const drover_engine_config *c,
                         drover_err *err) {
  if (c->kv > DROVER_KV_Q8_0)
    return drover_fail(err, DROVER_EINVAL, "kv: %" PRIu32 " is unknown",
                       c->kv);
  if (c->draft > DROVER_DRAFT_ALWAYS)
    return drover_fail(err, DROVER_EINVAL, "draft: %" PRIu32 " is unknown",
                       c->draft);
  e->draft = (int)c->draft;
  e->step_seconds = (c->step_ms ? c->step_ms : ENGINE_STEP_MS) / 1000.0;
  e->share = engine_sched_share(1, 0);
  return DROVER_OK;
}


/* A step has room for all sequences that decode, or for ENGINE_ROWS tokens:
 * prompts are read in chunks of up to that many. */
static int check_config(struct engine *e, const drover_engine_config *c,
                        drover_err *err) {
  uint32_t most = e->model->shape.context;
  if (c->context > most)
    return drover_fail(err, DROVER_EINVAL, "context: %" PRIu32
                       " tokens, the model has %" PRIu32, c->context, most);
  if (c->batch > ENGINE_BATCH_MAX)
    return drover_fail(err, DROVER_EINVAL, "batch: %" PRIu32 ", at most %d",
                       c->batch, ENGINE_BATCH_MAX);
  if (c->queue > ENGINE_QUEUE_MAX)
    return drover_fail(err, DROVER_EINVAL, "queue: %" PRIu32 ", at most %d",
                       c->queue, ENGINE_QUEUE_MAX);
  e->context = c->context ? c->context : most;
  e->batch = c->batch ? c->batch : ENGINE_BATCH_DEFAULT;
  e->queue = c->queue ? c->queue : ENGINE_QUEUE_DEFAULT;
  e->rows = e->batch > ENGINE_ROWS ? e->batch : ENGINE_ROWS;
  e->outs = e->batch + ENGINE_DRAFTS;
  if (e->outs > e->rows)
    e->outs = e->rows;
  return check_serving(e, c, err);
}


/* Weights, cache and scratch with a pool of `blocks`; saturates. */
static uint64_t bytes_with(const struct engine *e,
                           const struct engine_backend *backend,
                           const struct engine_shape *shape,
                           struct engine_limits limits, uint64_t blocks) {
  uint64_t bytes;
  limits.blocks = (uint32_t)blocks;
  if (blocks > INT32_MAX
      || __builtin_add_overflow(e->model->weight_bytes,
                                engine_step_bytes(backend, shape, &limits),
                                &bytes))
    return UINT64_MAX;
  return bytes;
}


/* What the system says could be had without swapping. */
static uint64_t memory_free(void) {
  uint64_t kib = 0;
  char line[128];
  FILE *f = fopen("/proc/meminfo", "re");
  while (f && !kib && fgets(line, sizeof line, f))
    if (sscanf(line, "MemAvailable: %" SCNu64, &kib) != 1)
      kib = 0;
  if (f)
    fclose(f);
  return kib ? kib * 1024 : (uint64_t)sysconf(_SC_PHYS_PAGES)
                              * (uint64_t)sysconf(_SC_PAGESIZE);
}


/* A pool for the whole batch, or as much of it as the memory allowed holds,
 * but for one whole sequence at least. Without a cap the pool may take half
 * of what is free beside the rest. */
static int size_pool(struct engine *e, const struct engine_backend *backend,
                     const drover_engine_config *c,
                     struct engine_limits *limits, drover_err *err) {
  struct engine_shape shape;
  uint64_t one = engine_kv_need(e->context), all = one * e->batch;
  uint64_t room = memory_free(), cap = c->memory_cap_bytes;
  engine_model_context(e->model, e->context, &shape);
  uint64_t least = bytes_with(e, backend, &shape, *limits, one);
  if (least > room || (cap && least > cap))
    return drover_fail(err, DROVER_ERESOURCE, "the model and the cache of one "
                       "sequence need %" PRIu64 " bytes, %s %" PRIu64, least,
                       cap && cap < room ? "allowed are" : "free are",
                       cap && cap < room ? cap : room);
  uint64_t allowed = cap && cap < room ? cap : least + (room - least) / 2;
  if (bytes_with(e, backend, &shape, *limits, all) > allowed)
    all = one + (allowed - least)
      / (bytes_with(e, backend, &shape, *limits, one + 1) - least);
  limits->blocks = (uint32_t)all;
  e->memory_bytes = bytes_with(e, backend, &shape, *limits, all);
  return DROVER_OK;
}


/* Everything that a turn needs, at its largest: no turn allocates for its
 * plan. `alive` never passes batch + queue (append()), so the lists of
 * requests hold. */
static int open_plan(struct engine *e, drover_err *err) {
  struct engine_plan *p = &e->plan;
  size_t most = (size_t)e->batch + e->queue;
  p->rows.block_ld = (int)engine_kv_need(e->context);
  p->request = mem_calloc(most, sizeof *p->request);
  p->seq = mem_calloc(most, sizeof *p->seq);
  p->owner = mem_calloc(e->batch, sizeof *p->owner);
  p->token = mem_calloc(e->rows, sizeof *p->token);
  p->pos = mem_calloc(e->rows, sizeof *p->pos);
  p->seq_start = mem_calloc((size_t)e->batch + 1, sizeof *p->seq_start);
  p->block = mem_calloc((size_t)e->batch * (size_t)p->rows.block_ld,
                        sizeof *p->block);
  p->out_row = mem_calloc(e->rows, sizeof *p->out_row);
  p->out_start = mem_calloc((size_t)e->batch + 1, sizeof *p->out_start);
  e->scratch = mem_calloc(e->model->shape.vocab, sizeof *e->scratch);
  e->work = mem_calloc(e->model->shape.vocab, sizeof *e->work);
  e->piece = mem_calloc(1, e->model->vocab->longest + 1);
  e->vector = mem_calloc(e->model->shape.width, sizeof *e->vector);
  if (!p->request || !p->seq || !p->owner || !p->token || !p->pos
      || !p->seq_start || !p->block || !p->out_row || !p->out_start
      || !e->scratch || !e->work || !e->piece || !e->vector)
    return no_memory(err);
  p->rows.token = p->token;
  p->rows.pos = p->pos;
  p->rows.seq_start = p->seq_start;
  p->rows.block = p->block;
  p->rows.out_row = p->out_row;
  return DROVER_OK;
}


/* Sizes come before memory: the file's head is checked, the pool sized and
 * what does not fit refused before a weight is read. */
static int open_model(struct engine *e, const struct engine_gguf *g,
                      const drover_engine_config *c, drover_err *err) {
  const struct engine_backend *backend;
  struct engine_limits limits = { 0 };
  int rc = engine_backend_find(&backend, c->device, c->kv, err);
  if (!rc)
    rc = engine_model_new(&e->model, g, err);
  if (!rc)
    rc = check_config(e, c, err);
  limits.rows = e->rows;
  limits.outs = e->outs;
  limits.threads = c->threads;
  limits.kv = c->kv;
  if (!rc)
    rc = engine_model_weigh(e->model, g, backend, err);
  if (!rc)
    rc = size_pool(e, backend, c, &limits, err);
  if (!rc)
    rc = engine_model_load(e->model, g, backend, err);
  if (rc)
    return rc;
  struct engine_shape shape;
  engine_model_context(e->model, e->context, &shape);
  if (engine_kv_init(&e->kv, limits.blocks, rand_entropy()))
    return no_memory(err);
  rc = engine_step_init(&e->step, e->model, &shape, &limits, err);
  return rc ? rc : open_plan(e, err);
}


/* Takes half-built ones: each part's own free takes what its open had left. */
static void free_engine(struct engine *e) {
  struct engine_plan *p = &e->plan;
  engine_step_deinit(&e->step);
  engine_model_free(e->model);
  engine_kv_deinit(&e->kv);
  mem_free(p->request);
  mem_free(p->seq);
  mem_free(p->owner);
  mem_free(p->token);
  mem_free(p->pos);
  mem_free(p->seq_start);
  mem_free(p->block);
  mem_free(p->out_row);
  mem_free(p->out_start);
  mem_free(e->scratch);
  mem_free(e->work);
  mem_free(e->piece);
  mem_free(e->vector);
  if (e->ready) {
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->wake);
    pthread_cond_destroy(&e->emitted);
  }
  mem_free(e);
}


/* The file is closed before this returns; weights are copied, so the file
 * may be replaced under a running engine. */
int engine_open(struct engine **out, const drover_engine_config *c,
                drover_err *err) {
  struct engine_gguf *g = NULL;
  struct engine *e = mem_calloc(1, sizeof *e);
  *out = NULL;
  if (!e)
    return no_memory(err);
  int rc = c->path ? engine_gguf_open(&g, c->path, err)
    : drover_fail(err, DROVER_EINVAL, "path: missing");
  if (!rc)
    rc = open_model(e, g, c, err);
  engine_gguf_close(g);
  if (rc) {
    free_engine(e);
    return rc;
  }
  pthread_mutex_init(&e->lock, NULL);
  pthread_cond_init(&e->wake, NULL);
  pthread_cond_init(&e->emitted, NULL);
  e->ready = 1;
  e->last = &e->first;
  *out = e;
  return DROVER_OK;
}


/* 0, or DROVER_ECLOSED when the thread is another process's. Relaxed: it
 * tells a forked child from its parent, and orders nothing. */
int engine_ours(struct engine *e, drover_err *err) {
  int pid = __atomic_load_n(&e->pid, __ATOMIC_RELAXED);
  if (!pid || pid == process_pid())
    return DROVER_OK;
  return drover_fail(err, DROVER_ECLOSED,
                     "the local model runs in the process that this one was "
                     "forked from");
}


/* In three cases: the thread runs here (joined, then what is left fails); it
 * was never started (the same without a join); it is the parent's (this is a
 * forked child's copy: memory is freed, and no event leaves). */
void engine_close(struct engine *e) {
  if (!e)
    return;
  int own = engine_ours(e, NULL) == DROVER_OK;
  if (e->started && own) {
    pthread_mutex_lock(&e->lock);
    e->closing = 1;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    e->started = 0;                 /* no emission to wait for any more */
  }
  drover_err why;
  drover_fail(&why, DROVER_ECLOSED, "the local model was closed");
  while (own && e->first)
    engine_fail(e, e->first, DROVER_PHASE_STREAM, &why);
  for (struct engine_request *r = e->first, *next; r; r = next) {
    next = r->next;                 /* a child's copies; the parent ends them */
    engine_request_free(r);
  }
  e->ready = e->ready && own;      /* a lock that the parent held stays so */
  free_engine(e);
}


/* ---- the thread ---- */

/* The loop sleeps only while there is no request at all. A cancelled one
 * stays in the list until a turn has swept it, so a cancel needs no wake-up
 * of its own. */
static void *run(void *engine) {
  struct engine *e = engine;
  pthread_mutex_lock(&e->lock);
  while (!e->closing) {
    if (!e->first) {
      pthread_cond_wait(&e->wake, &e->lock);
      continue;
    }
    pthread_mutex_unlock(&e->lock);
    engine_turn(e, clock_now_ns());
    pthread_mutex_lock(&e->lock);
  }
  pthread_mutex_unlock(&e->lock);
  return NULL;
}


/* Start the thread, with all signals blocked. The lock is held. */
static int start(struct engine *e, drover_err *err) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&e->thread, NULL, run, e);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed)
    return drover_fail(err, DROVER_ERESOURCE,
                       "cannot start the local model's thread: %s",
                       strerror(failed));
  __atomic_store_n(&e->pid, process_pid(), __ATOMIC_RELAXED);
  e->started = 1;
  return DROVER_OK;
}


/* ---- what others call ---- */

/* Link a call's choices in and wake the thread, unless there is no room for
 * all of them in the queue. */
static int append(struct engine *e, struct engine_request *r, uint64_t *id,
                  drover_err *err) {
  int rc = DROVER_OK;
  pthread_mutex_lock(&e->lock);
  uint32_t most = e->batch + e->queue, choices = r->group->refs;
  if (choices > most || e->alive > most - choices) {
    rc = drover_fail(err, DROVER_EOVERLOADED, "the local model's queue is "
                     "full (%" PRIu32 " requests)", e->alive);
  } else {
    *id = ++e->next_id;
    *e->last = r;
    for (; r; r = r->next) {
      r->id = *id;
      e->last = &r->next;
    }
    e->alive += choices;
    pthread_cond_signal(&e->wake);
  }
  pthread_mutex_unlock(&e->lock);
  return rc;
}


/* Prompts become tokens here, in the caller's thread and without the lock: a
 * long one delays its caller and no running reply. */
int engine_queue(struct engine *e, const drover_generate *g,
                 engine_emit_fn emit, void *ctx, uint64_t *id,
                 drover_err *err) {
  struct engine_request *r = NULL;
  int rc = engine_ours(e, err);
  if (!rc)
    rc = engine_request_new(&r, e->model, e->context, g, clock_now_ns(), err);
  if (rc)
    return rc;
  for (struct engine_request *one = r; one; one = one->next) {
    one->emit = emit;
    one->ctx = ctx;
  }
  rc = append(e, r, id, err);
  if (rc)
    engine_request_free_all(r);
  return rc;
}


/* The thread is started first: if it cannot be, nothing was queued that
 * nobody would ever answer. */
int engine_submit(struct engine *e, const drover_generate *g,
                  engine_emit_fn emit, void *ctx, uint64_t *id,
                  drover_err *err) {
  int rc = engine_ours(e, err);
  if (rc)
    return rc;
  pthread_mutex_lock(&e->lock);
  if (!e->started)
    rc = start(e, err);
  pthread_mutex_unlock(&e->lock);
  return rc ? rc : engine_queue(e, g, emit, ctx, id, err);
}


/* The mark and `emitting` are both under the lock, as in engine_emit():
 * either that one sees the mark and emits nothing, or this one sees the
 * emission and waits for it. In the engine's own thread (a cancel from
 * inside an emit) waiting would be for itself. */
void engine_cancel(struct engine *e, uint64_t id) {
  if (engine_ours(e, NULL))
    return;
  pthread_mutex_lock(&e->lock);
  for (struct engine_request *r = e->first; r; r = r->next)
    if (r->id == id && !r->cancelled) {
      r->cancelled = 1;
      e->alive--;
    }
  int inside = e->started && pthread_equal(e->thread, pthread_self());
  while (e->started && !inside && e->emitting == id)
    pthread_cond_wait(&e->emitted, &e->lock);
  pthread_mutex_unlock(&e->lock);
}


/* All of it is fixed once the engine is open: no lock. */
void engine_describe(struct engine *e, drover_engine_info *out) {
  const struct engine_model *m = e->model;
  *out = (drover_engine_info){
    .context = e->context, .vocab = m->shape.vocab,
    .layers = m->shape.layers, .width = m->shape.width,
    .has_template = m->chat == ENGINE_CHAT_CHATML,
    .parameters = m->parameters, .file_bytes = m->file_bytes,
    .memory_bytes = e->memory_bytes
  };
  memcpy(out->name, m->name, sizeof out->name);
  memcpy(out->architecture, "llama", 6);
}


/* In a forked child everything but the size is 0: the parent's lock may be
 * taken there for ever. Tokens count whole blocks, which is what is not
 * free. */
void engine_busy(struct engine *e, drover_engine_load *out) {
  memset(out, 0, sizeof *out);
  out->kv_tokens = e->kv.blocks * ENGINE_BLOCK_TOKENS;
  if (engine_ours(e, NULL))
    return;
  pthread_mutex_lock(&e->lock);
  out->running = e->running;
  out->waiting = e->alive > e->running ? e->alive - e->running : 0;
  out->kv_tokens_used = (e->kv.blocks - e->kv.free) * ENGINE_BLOCK_TOKENS;
  out->steps = e->steps;
  out->tokens = e->tokens;
  out->tokens_per_second = e->alive && e->late_seconds > 0
    ? e->late_tokens / e->late_seconds : 0;
  out->prompt_tokens = e->prompt_tokens;
  out->prefix_tokens = e->prefix_tokens;
  out->preemptions = e->preemptions;
  out->drafted = e->drafted;
  out->accepted = e->accepted;
  pthread_mutex_unlock(&e->lock);
}
