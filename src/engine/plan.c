/* plan: who is in the next step, and with which rows: the engine's requests
 * as numbers for sched.c, and what it decides done to their blocks.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "inside.h"


/* A vector needs its prompt's states, so what others computed is of no use;
 * but for that of the last token. */
static int shares(const struct engine_request *r) {
  return r->pool == DROVER_POOL_NONE || r->pool == DROVER_POOL_LAST;
}


/* What tells apart the block that a prompt computes next; 0 where it is its
 * last one. */
static uint64_t twin(const struct engine *e, const struct engine_request *r) {
  uint32_t at = r->computed / ENGINE_BLOCK_TOKENS;
  if (!r->running || !shares(r) || r->computed % ENGINE_BLOCK_TOKENS
      || r->seat.kept != at
      || r->computed + ENGINE_BLOCK_TOKENS >= r->ids.count)
    return 0;
  struct engine_prefix_key key = {
    r->seat.salt, at ? r->seat.block[at - 1] : -1, r->ids.at + r->computed
  };
  return engine_prefix_hash(&e->kv.prefix, &key);
}


/* Guesses for one that decodes; those that no place or limit allows would be
 * thrown away. */
static void guess(const struct engine *e, struct engine_request *r,
                  uint32_t rest) {
  uint32_t want = engine_draft_want(r->gain);
  int decodes = r->running && !r->pool && r->computed + 1 == r->ids.count;
  r->drafts = 0;
  if (decodes && e->draft != DROVER_DRAFT_NEVER)
    r->drafts = engine_draft_find(r->ids.at, r->ids.count,
                                  rest < want ? rest : want, r->draft);
}


static void number(const struct engine *e, struct engine_request *r,
                   struct engine_sched_seq *s) {
  uint32_t known = (uint32_t)r->ids.count;
  uint32_t rest = r->pool ? 0 : r->prompt + r->max_tokens - 1 - known;
  guess(e, r, rest);
  *s = (struct engine_sched_seq){
    .known = known, .computed = r->computed, .rest = rest,
    .held = r->seat.held, .priority = r->priority, .running = r->running,
    .arrived_ns = r->arrived_ns, .twin = twin(e, r), .offered = r->drafts,
    .gain = r->gain
  };
}


/* ---- preempt ---- */

/* What it computed stays in the pool until others take it, and may be found
 * again there. */
static void preempt(struct engine *e, struct engine_request *r) {
  engine_seat_close(&e->kv, &r->seat);
  r->running = 0;
  r->computed = 0;
  if (r->vector)
    memset(r->vector, 0, e->model->shape.width * sizeof *r->vector);
  e->running--;
  e->preemptions++;
}


/* 1 when somebody had to go. */
static int make_room(struct engine *e, struct engine_sched_limits *limits) {
  struct engine_plan *p = &e->plan;
  int some = 0, at;
  while ((at = engine_sched_victim(limits, p->seq, p->count)) >= 0) {
    preempt(e, p->request[at]);
    number(e, p->request[at], &p->seq[at]);
    limits->free_blocks = e->kv.free;
    some = 1;
  }
  return some;
}


/* ---- admit ---- */

/* Free blocks that it would take: found ones that somebody holds cost none. */
static uint32_t take(const struct engine *e, struct engine_request *r) {
  uint32_t need = engine_kv_need((uint32_t)r->ids.count);
  if (!shares(r))
    return need;
  uint32_t hits = engine_kv_find(&e->kv, r->seat.salt, r->ids.at,
                                 r->ids.count - 1, r->seat.block);
  for (uint32_t i = 0; i < hits; i++)
    need -= e->kv.link[r->seat.block[i]].holders > 0;
  return need;
}


/* What others have computed of its prompt by now, it need not. Of a last block
 * that is known it takes a copy, to compute the last token in. */
static void advance(struct engine *e, struct engine_request *r) {
  if (!r->running || !shares(r))
    return;
  uint32_t known = (uint32_t)r->ids.count;
  uint32_t to = engine_seat_advance(&e->kv, &r->seat, r->ids.at, r->computed,
                                    known);
  int32_t last = engine_seat_last(&e->kv, &r->seat, r->ids.at, to, known);
  if (last >= 0) {
    e->model->backend->kv_copy(e->step.state, &last,
                               &r->seat.block[r->seat.kept], 1);
    to = known - 1;
  }
  if (known == r->prompt)           /* not one that was preempted */
    e->prefix_tokens += to - r->computed;
  r->computed = to;
}


static int admit(struct engine *e, struct engine_request *r) {
  uint32_t known = (uint32_t)r->ids.count;
  long found = 0;
  if (shares(r))
    found = engine_seat_open(&e->kv, &r->seat, r->ids.at, known);
  else if (engine_seat_grow(&e->kv, &r->seat, known))
    found = -1;
  if (found < 0)
    return 0;
  r->computed = (uint32_t)found;
  r->running = 1;
  e->running++;
  if (known == r->prompt) {
    e->prompt_tokens += known;
    e->prefix_tokens += (double)found;
  }
  advance(e, r);
  return 1;
}


/* Whom the blocks do not hold lets smaller ones pass, until it is old. */
static void admit_all(struct engine *e, struct engine_sched_limits *limits) {
  struct engine_plan *p = &e->plan;
  for (int looks = 0; looks < ENGINE_LOOKS;) {
    int at = engine_sched_next(limits, p->seq, p->count);
    if (at < 0)
      return;
    struct engine_request *r = p->request[at];
    struct engine_sched_seq *s = &p->seq[at];
    s->take = take(e, r);
    if (engine_sched_fits(limits, p->seq, p->count, (uint32_t)at)
        && admit(e, r)) {
      number(e, r, s);
      limits->free_blocks = e->kv.free;
      continue;
    }
    if (engine_sched_aged(limits, s))
      return;
    s->passed = 1;
    looks++;
  }
}


/* ---- a step ---- */

/* The blocks that the plan counted on are free: nobody else takes any. */
static void grow(struct engine *e, struct engine_request *r,
                 struct engine_sched_seq *s) {
  if (engine_seat_grow(&e->kv, &r->seat, s->computed + s->rows + s->draft))
    s->rows = s->draft = 0;
}


/* Under the lock: it lasts microseconds, and others read what it changes. */
uint32_t engine_plan_make(struct engine *e, int64_t now_ns) {
  struct engine_plan *p = &e->plan;
  pthread_mutex_lock(&e->lock);
  struct engine_sched_limits limits = {
    .seqs = e->batch, .rows = e->rows, .free_blocks = e->kv.free,
    .knee = e->model->backend->knee, .drafts = ENGINE_DRAFTS,
    .draft = e->draft, .share = e->share, .step_seconds = e->step_seconds,
    .now_ns = now_ns
  };
  if (e->steps == 0 && limits.rows > ENGINE_ROWS_FIRST)
    limits.rows = e->batch > ENGINE_ROWS_FIRST ? e->batch : ENGINE_ROWS_FIRST;
  for (uint32_t i = 0; i < p->count; i++) {
    advance(e, p->request[i]);
    number(e, p->request[i], &p->seq[i]);
  }
  limits.free_blocks = e->kv.free;
  int preempted = make_room(e, &limits);
  e->share = engine_sched_share(e->share, preempted);
  if (!preempted)
    admit_all(e, &limits);
  uint32_t rows = engine_sched_rows(&limits, &e->cost, p->seq, p->count);
  for (uint32_t i = 0; i < p->count; i++)
    if (p->seq[i].rows)
      grow(e, p->request[i], &p->seq[i]);
  pthread_mutex_unlock(&e->lock);
  return rows;
}


/* Which of a request's new rows, `from` to the end, are wanted: the last one
 * that is known and the guesses behind it; for a vector what is pooled. */
static void add_outs(struct engine_plan *p, const struct engine_request *r,
                     const struct engine_sched_seq *s, int from) {
  struct engine_rows *rows = &p->rows;
  int is_last = r->computed + s->rows == r->ids.count;
  int end = rows->rows, at = is_last ? from + (int)s->rows - 1 : end;
  if (r->pool == DROVER_POOL_MEAN || r->pool == DROVER_POOL_CLS)
    at = from;
  if (r->pool == DROVER_POOL_CLS)
    end = from + (r->computed == 0);
  for (; at < end; at++)
    p->out_row[rows->outs++] = at;
}


/* Append one sequence's rows to the step. */
static void add_rows(struct engine_plan *p, struct engine_request *r,
                     const struct engine_sched_seq *s) {
  struct engine_rows *rows = &p->rows;
  int32_t *block = p->block + (size_t)rows->seqs * (size_t)rows->block_ld;
  int from = rows->rows;
  memcpy(block, r->seat.block, r->seat.held * sizeof *block);
  r->drafts = s->draft;
  p->owner[rows->seqs] = r;
  for (uint32_t i = 0; i < s->rows + s->draft; i++, rows->rows++) {
    p->token[rows->rows] = i < s->rows ? r->ids.at[r->computed + i]
                                       : r->draft[i - s->rows];
    p->pos[rows->rows] = (int32_t)(r->computed + i);
    p->load.keys += r->computed + i + 1;
  }
  add_outs(p, r, s, from);
  p->seq_start[++rows->seqs] = rows->rows;
  p->out_start[rows->seqs] = rows->outs;
}


/* Sequences in the order of arrival, each with its rows together: what the
 * ops expect of seq_start. Those built are not built again: by the second
 * call they may be gone. */
void engine_plan_build(struct engine *e, int pooled) {
  struct engine_plan *p = &e->plan;
  p->rows.rows = p->rows.seqs = p->rows.outs = 0;
  p->seq_start[0] = p->out_start[0] = 0;
  p->load = (struct engine_load){ 0, 0 };
  for (uint32_t i = 0; i < p->count; i++) {
    if (!p->seq[i].rows || (p->request[i]->pool != 0) != pooled)
      continue;
    add_rows(p, p->request[i], &p->seq[i]);
    p->seq[i].rows = 0;
  }
  p->load.rows = (uint32_t)p->rows.rows;
}
