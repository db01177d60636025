/* step: see step.h.
 *
 * SPDX-License-Identifier: MIT */
#include "step.h"

#include <string.h>


/* Widths of the buffers: x, act, y, qkv, gu, logits. */
static void widths(const struct engine_shape *s, uint32_t *w) {
  uint32_t q = s->heads * s->head_dim;
  uint32_t most = s->width > s->ff ? s->width : s->ff;
  w[0] = s->width;
  w[1] = most > q ? most : q;
  w[2] = s->width;
  w[3] = q + 2 * s->kv_heads * s->head_dim;
  w[4] = 2 * s->ff;
  w[5] = s->vocab;
}


/* Buffers in the order of widths(): the sixth, logits, has a row only for
 * each out. */
uint64_t engine_step_bytes(const struct engine_backend *backend,
                           const struct engine_shape *shape,
                           const struct engine_limits *limits) {
  uint64_t bytes = backend->state_bytes(shape, limits);
  uint32_t w[6];
  widths(shape, w);
  for (int i = 0; i < 6; i++) {
    uint64_t more = (uint64_t)w[i] * (i < 5 ? limits->rows : limits->outs);
    if (__builtin_add_overflow(bytes, more * sizeof(float), &bytes))
      return UINT64_MAX;
  }
  return bytes;
}


/* On an error the parts built so far stay for engine_step_deinit(). */
int engine_step_init(struct engine_step *s, const struct engine_model *m,
                     const struct engine_shape *shape,
                     const struct engine_limits *limits, drover_err *err) {
  struct engine_buffer **buffers[] = { &s->x, &s->act, &s->y, &s->qkv, &s->gu,
                                       &s->logits };
  uint32_t w[6];
  memset(s, 0, sizeof *s);
  s->model = m;
  s->backend = m->backend;
  widths(shape, w);
  int rc = s->backend->state_new(&s->state, shape, limits, err);
  for (int i = 0; i < 6 && !rc; i++)
    rc = s->backend->buffer_new(buffers[i],
                                i < 5 ? limits->rows : limits->outs, w[i],
                                err);
  return rc;
}


/* Zeroed, so without a backend: one that was never built does nothing. */
void engine_step_deinit(struct engine_step *s) {
  if (!s->backend)
    return;
  s->backend->state_free(s->state);
  s->backend->buffer_free(s->x);
  s->backend->buffer_free(s->act);
  s->backend->buffer_free(s->y);
  s->backend->buffer_free(s->qkv);
  s->backend->buffer_free(s->gu);
  s->backend->buffer_free(s->logits);
  memset(s, 0, sizeof *s);
}


/* q, k and v into their places of a row. */
static void project(struct engine_step *s, const struct engine_layer *l) {
  const struct engine_backend *b = s->backend;
  const struct engine_shape *shape = &s->model->shape;
  uint32_t q = shape->heads * shape->head_dim;
  uint32_t kv = shape->kv_heads * shape->head_dim;
  if (l->qkv.w) {
    b->matmul(s->state, s->qkv, 0, s->act, &l->qkv);
    return;
  }
  b->matmul(s->state, s->qkv, 0, s->act, &l->q);
  b->matmul(s->state, s->qkv, q, s->act, &l->k);
  b->matmul(s->state, s->qkv, q + kv, s->act, &l->v);
}


/* Where gate and up are one matrix, gate comes first in it. */
static void feed_forward(struct engine_step *s, const struct engine_layer *l) {
  const struct engine_backend *b = s->backend;
  if (s->model->shape.experts) {
    b->moe(s->state, s->y, s->act, &l->moe);
    return;
  }
  if (l->gate.w)
    b->matmul(s->state, s->gu, 0, s->act, &l->gate);
  b->matmul(s->state, s->gu, l->gate.w ? s->model->shape.ff : 0, s->act,
            &l->up);
  b->glu(s->state, s->act, s->gu);
  b->matmul(s->state, s->y, 0, s->act, &l->down);
}


/* x += what the layer before left in y, norm, attention, x += y, norm, feed
 * forward. The last product's y is added by the next layer's norm, or by
 * gather_norm; norms behind a part work on y before that. */
static void run_layer(struct engine_step *s, uint32_t i,
                      const struct engine_buffer *add) {
  const struct engine_backend *b = s->backend;
  const struct engine_layer *l = &s->model->layer[i];
  b->norm(s->state, s->act, s->x, add, l->attn_norm);
  project(s, l);
  b->qkv_store(s->state, i, s->qkv, l->q_norm, l->k_norm);
  b->attention(s->state, s->act, i, s->qkv, l->sinks);
  b->matmul(s->state, s->y, 0, s->act, &l->attn_output);
  if (l->attn_post)
    b->norm_own(s->state, s->y, l->attn_post);
  b->norm(s->state, s->act, s->x, s->y, l->ffn_norm);
  feed_forward(s, l);
  if (l->ffn_post)
    b->norm_own(s->state, s->y, l->ffn_post);
}


static void run_layers(struct engine_step *s, const struct engine_rows *rows) {
  const struct engine_backend *b = s->backend;
  const struct engine_model *m = s->model;
  b->step_begin(s->state, rows);
  b->embed(s->state, s->x, m->embed);
  for (uint32_t i = 0; i < m->shape.layers; i++)
    run_layer(s, i, i ? s->y : NULL);
  b->gather_norm(s->state, s->act, s->x, s->y, m->output_norm);
}


int engine_step_states(struct engine_step *s, const struct engine_rows *rows,
                       drover_err *err) {
  run_layers(s, rows);
  return s->backend->step_end(s->state, err);
}


const float *engine_step_state(struct engine_step *s, int out) {
  return s->backend->read(s->act, (uint32_t)out);
}


/* `output` is NULL where the file ties it to the embedding: the same matrix
 * both ways. */
int engine_step_run(struct engine_step *s, const struct engine_rows *rows,
                    drover_err *err) {
  const struct engine_backend *b = s->backend;
  const struct engine_model *m = s->model;
  run_layers(s, rows);
  b->logits(s->state, s->logits, s->act, m->output ? m->output : m->embed);
  return b->step_end(s->state, err);
}


const float *engine_step_logits(struct engine_step *s, int out) {
  return s->backend->read(s->logits, (uint32_t)out);
}
