/* probe: an engine's tokenizer and logits by themselves, for counting tokens
 * and for specs. See engine.h.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/err.h"
#include "engine.h"
#include "inside.h"


const struct engine_vocab *engine_vocab_of(struct engine *e) {
  return e->model->vocab;
}


/* The whole text is one span. With cap 0 it only counts. */
long engine_encode(struct engine *e, const drover_text *text, int special,
                   int bos, int32_t *ids, size_t cap) {
  struct engine_span all = { text->size, special };
  struct engine_prompt p = { text->data, text->size, &all, 1 };
  struct engine_ids out = { 0 };
  int rc = engine_vocab_encode(e->model->vocab, &p, bos, &out, NULL);
  size_t n = out.count < cap ? out.count : cap;
  if (!rc && n)
    memcpy(ids, out.at, n * sizeof *ids);
  long count = rc ? rc : (long)out.count;
  engine_ids_deinit(&out);
  return count;
}


long engine_tokens(struct engine *e, const char *text, size_t size) {
  drover_text t = { text, size };
  return engine_encode(e, &t, 0, 0, NULL, 0);
}


/* Everything that a submit does but for queueing it: so it says what that one
 * would find. The prompt's last token never comes out of the cache. */
long engine_prefix(struct engine *e, const drover_generate *g,
                   uint32_t *tokens, drover_err *err) {
  struct engine_request *r;
  int rc = engine_ours(e, err);
  if (!rc)
    rc = engine_request_new(&r, e->model, e->context, g, 0, err);
  if (rc)
    return rc;
  pthread_mutex_lock(&e->lock);
  uint32_t found = engine_kv_find(&e->kv, r->seat.salt, r->ids.at,
                                  r->ids.count - 1, NULL);
  pthread_mutex_unlock(&e->lock);
  if (tokens)
    *tokens = r->prompt;
  engine_request_free_all(r);
  return (long)found * ENGINE_BLOCK_TOKENS;
}


/* Steps of at most `batch` rows, each of which is an out. */
static int run_rows(struct engine *e, const int32_t *ids, size_t count,
                    float *logits, drover_err *err) {
  struct engine_plan *p = &e->plan;
  size_t vocab = e->model->shape.vocab;
  for (size_t at = 0; at < count;) {
    int n = count - at < e->batch ? (int)(count - at) : (int)e->batch;
    for (int i = 0; i < n; i++) {
      p->token[i] = ids[at + (size_t)i];
      p->pos[i] = (int32_t)at + i;
      p->out_row[i] = i;
    }
    p->seq_start[0] = 0;
    p->seq_start[1] = n;
    p->rows.rows = p->rows.outs = n;
    p->rows.seqs = 1;
    int rc = engine_step_run(&e->step, &p->rows, err);
    if (rc)
      return rc;
    for (int i = 0; i < n; i++, at++)
      memcpy(logits + at * vocab, engine_step_logits(&e->step, i),
             vocab * sizeof *logits);
  }
  return DROVER_OK;
}


/* Through the same steps as a request, in rows of at most a batch, so what
 * it gives is what replies are drawn from. The blocks come from the engine's
 * own pool: nothing may be running. */
int engine_logits(struct engine *e, const int32_t *ids, size_t count,
                  float *logits, drover_err *err) {
  for (size_t i = 0; i < count; i++)
    if (ids[i] < 0 || (uint32_t)ids[i] >= e->model->shape.vocab)
      return drover_fail(err, DROVER_EINVAL, "ids[%zu]: no such token", i);
  if (count > e->context)
    return drover_fail(err, DROVER_ECONTEXT, "%zu tokens pass the context",
                       count);
  uint32_t blocks = engine_kv_need((uint32_t)count);
  int rc = engine_kv_take(&e->kv, blocks, e->plan.block);
  if (rc)
    return drover_fail(err, rc, "the cache is in use");
  rc = run_rows(e, ids, count, logits, err);
  engine_kv_give(&e->kv, e->plan.block, blocks);
  return rc;
}
