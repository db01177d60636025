/* turn: one turn of the engine's loop: sweep, plan, step, sample, emit.
 * See inside.h for who may touch what.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "engine.h"
#include "inside.h"


/* ---- events ---- */

/* `emitting` is set under the same lock under which a cancel marks: see
 * engine_cancel(). The function itself is called without it, since it may
 * cancel. */
void engine_emit(struct engine *e, struct engine_request *r,
                 drover_event *ev) {
  pthread_mutex_lock(&e->lock);
  int wanted = !r->cancelled;
  if (wanted)
    e->emitting = r->id;
  pthread_mutex_unlock(&e->lock);
  if (!wanted)
    return;
  ev->call = r->call;
  ev->at = clock_seconds(clock_now_ns());
  r->emit(r->ctx, ev);
  pthread_mutex_lock(&e->lock);
  e->emitting = 0;
  pthread_cond_broadcast(&e->emitted);
  pthread_mutex_unlock(&e->lock);
}


/* Take the request at `at` out of the list and give its blocks back. The lock
 * is held; the request is the caller's to free. */
static void cut_out(struct engine *e, struct engine_request **at) {
  struct engine_request *r = *at;
  *at = r->next;
  if (e->last == &r->next)
    e->last = at;
  if (r->running)
    engine_kv_give(&e->kv, r->block, r->blocks);
  e->running -= (uint32_t)r->running;
}


/* Only the thread that steps unlinks, so the request is in the list. */
static void drop(struct engine *e, struct engine_request *r) {
  pthread_mutex_lock(&e->lock);
  struct engine_request **at = &e->first;
  while (*at != r)
    at = &(*at)->next;
  cut_out(e, at);
  e->alive -= !r->cancelled;
  pthread_mutex_unlock(&e->lock);
  engine_request_free(r);
}


/* `why` may not point into the request, which is gone afterwards. A call has
 * one end, so its other choices go without an event. */
void engine_fail(struct engine *e, struct engine_request *r, int phase,
                 const drover_err *why) {
  drover_event ev = { .type = DROVER_EVENT_FAIL, .code = why->code,
                      .phase = phase, .data = why->text,
                      .data_size = strlen(why->text) };
  engine_emit(e, r, &ev);
  if (r->group->left > 1)
    engine_cancel(e, r->id);
  drop(e, r);
}


/* What is held back gives no event: a token may end in the middle of a
 * character or of a stop string. Log-probabilities wait with it, until `last`:
 * then they go out even where no text does. */
static void emit_text(struct engine *e, struct engine_request *r, int last) {
  struct buf *out = &r->reply.out, *logprobs = &r->reply.logprobs;
  if (!out->size && !(last && logprobs->size))
    return;
  drover_event ev = {
    .type = DROVER_EVENT_TEXT, .data = out->at, .data_size = out->size,
    .choice = (int32_t)r->choice,
    .logprobs = logprobs->at, .logprobs_size = logprobs->size
  };
  engine_emit(e, r, &ev);
  buf_drop(out, out->size);
  buf_drop(logprobs, logprobs->size);
}


/* The reply's ids hold its end token too, which was computed and counts. The
 * last choice ends the call, with the tokens of all. */
static void finish(struct engine *e, struct engine_request *r, int how) {
  r->group->completion += (uint32_t)r->ids.count - r->prompt;
  int last = --r->group->left == 0;
  drover_event ev = {
    .type = last ? DROVER_EVENT_END : DROVER_EVENT_CHOICE, .finish = how,
    .choice = (int32_t)r->choice, .prompt_tokens = r->prompt,
    .completion_tokens = r->group->completion
  };
  engine_emit(e, r, &ev);
  drop(e, r);
}


/* ---- sweep ---- */

/* Requests that are alive, into the plan; the cancelled ones are let go. */
static void collect(struct engine *e) {
  struct engine_request *gone = NULL;
  pthread_mutex_lock(&e->lock);
  e->plan.count = 0;
  for (struct engine_request **at = &e->first; *at;) {
    struct engine_request *r = *at;
    if (!r->cancelled) {
      e->plan.request[e->plan.count++] = r;
      at = &r->next;
      continue;
    }
    cut_out(e, at);
    r->next = gone;
    gone = r;
  }
  pthread_mutex_unlock(&e->lock);
  while (gone) {
    struct engine_request *next = gone->next;
    engine_request_free(gone);
    gone = next;
  }
}


static int is_late(int64_t by_ns, int64_t now_ns) {
  return by_ns && now_ns >= by_ns;
}


/* Fail those whose deadline has passed. */
static void expire(struct engine *e, int64_t now_ns) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < e->plan.count; i++) {
    struct engine_request *r = e->plan.request[i];
    int started = r->group->started;
    int first = !started && is_late(r->first_by_ns, now_ns);
    if (!first && !is_late(r->total_by_ns, now_ns)) {
      e->plan.request[kept++] = r;
      continue;
    }
    drover_err why;
    drover_fail(&why, DROVER_ETIMEOUT, "the local model gave %s in time",
                first ? "no first token" : "no whole reply");
    engine_fail(e, r, started ? DROVER_PHASE_STREAM : DROVER_PHASE_FIRST_TOKEN,
                &why);
  }
  e->plan.count = kept;
}


/* ---- plan ---- */

/* Planning is outside the lock; only what others read (kv, running) is
 * written under it. The blocks that the plan counted on are still free:
 * nobody else takes any. */
static uint32_t schedule(struct engine *e) {
  struct engine_plan *p = &e->plan;
  struct engine_sched_limits limits = {
    .seqs = e->batch, .rows = e->rows, .chunk = ENGINE_CHUNK,
    .free_blocks = e->kv.free       /* only this thread changes it */
  };
  for (uint32_t i = 0; i < p->count; i++) {
    const struct engine_request *r = p->request[i];
    p->seq[i] = (struct engine_sched_seq){
      .known = (uint32_t)r->ids.count, .computed = r->computed,
      .blocks = r->blocks, .running = r->running
    };
  }
  uint32_t rows = engine_sched_plan(&limits, p->seq, p->count);
  pthread_mutex_lock(&e->lock);
  for (uint32_t i = 0; i < p->count; i++) {
    struct engine_request *r = p->request[i];
    if (r->running || !p->seq[i].running)
      continue;
    r->running = engine_kv_take(&e->kv, r->blocks, r->block) == DROVER_OK;
    e->running += (uint32_t)r->running;
  }
  pthread_mutex_unlock(&e->lock);
  return rows;
}


/* Append one sequence's rows to the step. */
static void add_rows(struct engine_plan *p, struct engine_request *r,
                     uint32_t count) {
  struct engine_rows *rows = &p->rows;
  int32_t *block = p->block + (size_t)rows->seqs * (size_t)rows->block_ld;
  memcpy(block, r->block, r->blocks * sizeof *block);
  p->owner[rows->seqs] = r;
  for (uint32_t i = 0; i < count; i++, rows->rows++) {
    p->token[rows->rows] = r->ids.at[r->computed + i];
    p->pos[rows->rows] = (int32_t)(r->computed + i);
  }
  r->computed += count;
  if (r->computed == r->ids.count) {
    p->out_row[rows->outs] = rows->rows - 1;
    p->out_seq[rows->outs++] = rows->seqs;
  }
  p->seq_start[++rows->seqs] = rows->rows;
}


/* Sequences in the order of arrival, each with its rows together: what the
 * ops expect of seq_start. */
static void build(struct engine *e) {
  struct engine_plan *p = &e->plan;
  p->rows.rows = p->rows.seqs = p->rows.outs = 0;
  p->seq_start[0] = 0;
  for (uint32_t i = 0; i < p->count; i++)
    if (p->seq[i].rows)
      add_rows(p, p->request[i], p->seq[i].rows);
}


/* ---- what a step gave ---- */

/* Take one sampled token: text goes out, and the end if it is one, or if the
 * grammar lets nothing follow it. */
static void take_token(struct engine *e, struct engine_request *r,
                       const struct engine_row *row, int32_t id) {
  int ends = engine_choose_ends(&r->choose, e->model->vocab, id);
  int rc = DROVER_OK;
  r->group->started = 1;
  if (!ends && r->choose.logprobs)
    rc = engine_logprob_write(&r->choose, e->model->vocab, row, id,
                              &r->reply.logprobs);
  if (!rc)
    rc = engine_ids_add(&r->ids, id);
  if (!rc && !ends) {
    size_t size = engine_vocab_piece(e->model->vocab, id, e->piece);
    rc = engine_reply_add(&r->reply, e->piece, size);
  }
  uint32_t made = (uint32_t)r->ids.count - r->prompt;
  int stop = ends || r->reply.stopped
    || (r->choose.mask && engine_mask_take(r->choose.mask, id));
  if (!rc && (stop || made == r->max_tokens))
    rc = engine_reply_end(&r->reply);
  if (rc) {
    drover_err why;
    drover_fail(&why, rc, "no memory for a reply");
    engine_fail(e, r, DROVER_PHASE_STREAM, &why);
    return;
  }
  emit_text(e, r, stop || made == r->max_tokens);
  if (stop || made == r->max_tokens)
    finish(e, r, stop ? DROVER_FINISH_STOP : DROVER_FINISH_LENGTH);
}


/* One that was cancelled in this turn, as its sibling failed, still has its
 * row here; the next sweep frees it. */
static void sample(struct engine *e, int out) {
  struct engine_request *r = e->plan.owner[e->plan.out_seq[out]];
  struct engine_row row = {
    engine_step_logits(&e->step, out), e->model->shape.vocab, e->work,
    e->scratch, &r->ids, r->prompt
  };
  drover_err why;
  int32_t id;
  if (engine_choose_next(&r->choose, &row, &id, &why))
    engine_fail(e, r, DROVER_PHASE_STREAM, &why);
  else
    take_token(e, r, &row, id);
}


/* A fault of the device says nothing about single rows: all that took part
 * fail. */
static void fail_step(struct engine *e, const drover_err *why) {
  for (int i = 0; i < e->plan.rows.seqs; i++)
    engine_fail(e, e->plan.owner[i], DROVER_PHASE_STREAM, why);
}


/* Text leaves before the next step begins, so a stream is a step behind at
 * most. Requests that end in here are dropped at once; their blocks are free
 * in the next plan. */
int engine_turn(struct engine *e, int64_t now_ns) {
  drover_err why = { 0 };
  collect(e);
  expire(e, now_ns);
  if (!e->plan.count)
    return 0;
  uint32_t rows = schedule(e);
  if (!rows) {                      /* cannot be: submit refuses those */
    drover_fail(&why, DROVER_EINTERNAL, "a request that cannot be scheduled");
    engine_fail(e, e->plan.request[0], DROVER_PHASE_FIRST_TOKEN, &why);
    return 0;
  }
  build(e);
  int outs = e->plan.rows.outs;
  if (engine_step_run(&e->step, &e->plan.rows, &why)) {
    fail_step(e, &why);
    return (int)rows;
  }
  pthread_mutex_lock(&e->lock);
  e->steps++;
  e->tokens += outs;
  pthread_mutex_unlock(&e->lock);
  for (int i = 0; i < outs; i++)
    sample(e, i);
  return (int)rows;
}
