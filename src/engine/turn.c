/* turn: one turn of the engine's loop: sweep, plan (plan.c), step, sample,
 * emit. See inside.h for who may touch what.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "engine.h"
#include "inside.h"

static const double FADE = 0.95;    /* of the figures of late, a step */


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


/* Take the request at `at` out of the list and give its blocks back; who asks
 * on will find them. The lock is held; the request is the caller's to free. */
static void cut_out(struct engine *e, struct engine_request **at) {
  struct engine_request *r = *at;
  *at = r->next;
  if (e->last == &r->next)
    e->last = at;
  if (r->running) {
    engine_seat_keep(&e->kv, &r->seat, r->ids.at, r->computed);
    engine_seat_close(&e->kv, &r->seat);
  }
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


/* ---- what a step gave ---- */

/* What is known of a request now is computed up to `computed`. */
static void keep(struct engine *e, struct engine_request *r) {
  pthread_mutex_lock(&e->lock);
  engine_seat_keep(&e->kv, &r->seat, r->ids.at, r->computed);
  pthread_mutex_unlock(&e->lock);
}


/* Put a token behind the reply, with its text and what is told of it. 1 when
 * it ends the reply, or completes what does, or the grammar lets nothing
 * follow it; DROVER_ENOMEM or DROVER_ETOOLARGE. */
static int add_token(struct engine *e, struct engine_request *r,
                     const struct engine_row *row, int32_t id) {
  int ends = engine_choose_ends(&r->choose, e->model->vocab, id);
  int rc = DROVER_OK;
  if (!ends && r->choose.logprobs)
    rc = engine_logprob_write(&r->choose, e->model->vocab, row, id,
                              &r->reply.logprobs);
  if (!rc)
    rc = engine_ids_add(&r->ids, id);
  if (!rc && !ends) {
    size_t size = engine_vocab_piece(e->model->vocab, id, e->piece);
    rc = engine_reply_add(&r->reply, e->piece, size);
  }
  if (rc)
    return rc;
  return ends || r->reply.stopped
    || (r->choose.mask && engine_mask_take(r->choose.mask, id));
}


/* Take one chosen token: text goes out, and the end if it is one. Returns 1
 * while the request lives. */
static int take_token(struct engine *e, struct engine_request *r,
                      const struct engine_row *row, int32_t id) {
  r->group->started = 1;
  int rc = add_token(e, r, row, id), stop = rc == 1;
  int last = stop || r->ids.count - r->prompt == r->max_tokens;
  if (rc >= 0 && last)
    rc = engine_reply_end(&r->reply);
  if (rc < 0) {
    drover_err why;
    drover_fail(&why, rc, "no memory for a reply");
    engine_fail(e, r, DROVER_PHASE_STREAM, &why);
    return 0;
  }
  emit_text(e, r, last);
  if (!last)
    return 1;
  finish(e, r, stop ? DROVER_FINISH_STOP : DROVER_FINISH_LENGTH);
  return 0;
}


/* Returns 1 while the request lives. One that was cancelled in this turn, as
 * its sibling failed, still has its rows here; the next sweep frees it. */
static int sample(struct engine *e, struct engine_request *r, int out,
                  int32_t *id) {
  struct engine_row row = {
    engine_step_logits(&e->step, out), e->model->shape.vocab, e->work,
    e->scratch, &r->ids, r->prompt
  };
  drover_err why;
  if (engine_choose_next(&r->choose, &row, id, &why)) {
    engine_fail(e, r, DROVER_PHASE_STREAM, &why);
    return 0;
  }
  return take_token(e, r, &row, *id);
}


static void count_draft(struct engine *e, uint32_t tried, uint32_t came) {
  pthread_mutex_lock(&e->lock);
  e->drafted += tried;
  e->accepted += came;
  e->tokens += came;                /* the one that was sure is counted */
  e->late_tokens += came;
  pthread_mutex_unlock(&e->lock);
}


/* The token drawn behind the last known one, and behind each guess that was
 * drawn too: a draw depends on nothing but what is before it, so this is what
 * it would have been one by one. The rows of wrong guesses are written over
 * by the next step, and no block that holds one is known to others. */
static void settle(struct engine *e, int seq) {
  struct engine_plan *p = &e->plan;
  struct engine_request *r = p->owner[seq];
  uint32_t tried = r->drafts, came = 0;
  r->computed += (uint32_t)(p->seq_start[seq + 1] - p->seq_start[seq]) - tried;
  if (tried)
    count_draft(e, tried, 0);
  for (int out = p->out_start[seq]; out < p->out_start[seq + 1]; out++) {
    int32_t id;
    if (!sample(e, r, out, &id))
      return;
    if (came == tried || r->draft[came] != id)
      break;
    came++;
    r->computed++;
    count_draft(e, 0, 1);
  }
  r->gain = engine_draft_learn(r->gain, tried, came);
  keep(e, r);
}


/* ---- vectors ---- */

/* Of length 1; an infinity or a NaN has no direction. 0 or the length's
 * fault. */
static int normalise(struct engine *e, const struct engine_request *r,
                     drover_err *why) {
  uint32_t width = e->model->shape.width;
  double sum = 0;
  for (uint32_t i = 0; i < width; i++)
    sum += r->vector[i] * r->vector[i];
  if (!(sum > 0 && sum < INFINITY))
    return drover_fail(why, DROVER_EINTERNAL, "nan_states: the prompt's "
                       "vector has no finite length");
  for (uint32_t i = 0; i < width; i++)
    e->vector[i] = (float)(r->vector[i] / sqrt(sum));
  return DROVER_OK;
}


static void give_vector(struct engine *e, struct engine_request *r) {
  drover_err why;
  if (normalise(e, r, &why)) {
    engine_fail(e, r, DROVER_PHASE_STREAM, &why);
    return;
  }
  drover_event ev = {
    .type = DROVER_EVENT_VECTOR, .data = (const char *)e->vector,
    .data_size = e->model->shape.width * sizeof *e->vector
  };
  engine_emit(e, r, &ev);
  finish(e, r, DROVER_FINISH_STOP);
}


/* The mean of what was pooled has the direction of its sum. */
static void settle_vector(struct engine *e, int seq) {
  struct engine_plan *p = &e->plan;
  struct engine_request *r = p->owner[seq];
  for (int out = p->out_start[seq]; out < p->out_start[seq + 1]; out++) {
    const float *state = engine_step_state(&e->step, out);
    for (uint32_t i = 0; i < e->model->shape.width; i++)
      r->vector[i] += (double)state[i];
  }
  r->computed += (uint32_t)(p->seq_start[seq + 1] - p->seq_start[seq]);
  if (r->computed == r->ids.count)
    give_vector(e, r);
  else
    keep(e, r);
}


/* ---- a step ---- */

/* A fault of the device says nothing about single rows: all that took part
 * fail. */
static void fail_step(struct engine *e, const drover_err *why) {
  for (int i = 0; i < e->plan.rows.seqs; i++)
    engine_fail(e, e->plan.owner[i], DROVER_PHASE_STREAM, why);
}


/* Before any event goes out, so that who has seen an end finds it counted. */
static void count_step(struct engine *e, int outs, double seconds) {
  engine_cost_learn(&e->cost, e->model->backend->knee, e->plan.load, seconds);
  pthread_mutex_lock(&e->lock);
  e->steps++;
  e->tokens += outs;
  e->late_tokens = e->late_tokens * FADE + outs;
  e->late_seconds = e->late_seconds * FADE + seconds;
  pthread_mutex_unlock(&e->lock);
}


/* Sequences whose last known token is in the step: each gives a token. */
static int last_rows(const struct engine_plan *p) {
  int count = 0;
  for (int i = 0; i < p->rows.seqs; i++)
    count += p->out_start[i + 1] > p->out_start[i];
  return count;
}


/* Text leaves before the next step begins, so a stream is a step behind at
 * most. Requests that end in here are dropped at once; their blocks are free
 * in the next plan. */
static void run_step(struct engine *e, int pooled) {
  struct engine_plan *p = &e->plan;
  drover_err why = { 0 };
  int64_t from_ns = clock_now_ns();
  int rc = pooled ? engine_step_states(&e->step, &p->rows, &why)
                  : engine_step_run(&e->step, &p->rows, &why);
  if (rc) {
    fail_step(e, &why);
    return;
  }
  count_step(e, pooled ? 0 : last_rows(p),
             clock_seconds(clock_now_ns() - from_ns));
  for (int i = 0; i < p->rows.seqs; i++) {
    if (pooled)
      settle_vector(e, i);
    else
      settle(e, i);
  }
}


int engine_turn(struct engine *e, int64_t now_ns) {
  drover_err why;
  collect(e);
  expire(e, now_ns);
  if (!e->plan.count)
    return 0;
  uint32_t rows = engine_plan_make(e, now_ns);
  if (!rows) {                      /* cannot be: submit refuses those */
    drover_fail(&why, DROVER_EINTERNAL, "a request that cannot be scheduled");
    engine_fail(e, e->plan.request[0], DROVER_PHASE_FIRST_TOKEN, &why);
    return 0;
  }
  for (int pooled = 0; pooled < 2; pooled++) {
    engine_plan_build(e, pooled);
    if (e->plan.rows.rows)
      run_step(e, pooled);
  }
  return (int)rows;
}
