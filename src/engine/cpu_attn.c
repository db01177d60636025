/* cpu_attn: rotary positions, the KV pool and attention, in plain C.
 *
 * The pool is paged: position p of a sequence lies in its block p / 16, at
 * place p mod 16, wherever in the pool that block is. See backend.h for what
 * the ops must compute.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "cpu.h"


/* Angles in double, rounded once: stepping them up in float drifts. */
void engine_cpu_rope(struct engine_state *s) {
  const struct engine_shape *shape = &s->shape;
  uint32_t half = shape->rot / 2;
  for (uint32_t i = 0; i < half; i++) {
    double turn = shape->rope_scale
      * pow(shape->rope_base, -2.0 * i / shape->rot);
    if (shape->rope_divisor)
      turn /= shape->rope_divisor[i];
    for (uint32_t pos = 0; pos < shape->context; pos++) {
      s->cosine[(size_t)pos * half + i] = (float)cos(pos * turn);
      s->sine[(size_t)pos * half + i] = (float)sin(pos * turn);
    }
  }
}


/* Neighbouring pairs (2i, 2i + 1), as a llama's GGUF stores q and k;
 * dimensions from `rot` on pass through. */
static void rotate(const struct engine_state *s, float *head, int32_t pos) {
  uint32_t half = s->shape.rot / 2;
  const float *c = s->cosine + (size_t)pos * half;
  const float *t = s->sine + (size_t)pos * half;
  for (uint32_t i = 0; i < half; i++) {
    float a = head[2 * i], b = head[2 * i + 1];
    head[2 * i] = a * c[i] - b * t[i];
    head[2 * i + 1] = a * t[i] + b * c[i];
  }
}


/* Where a position's values of kv head 0 are: head h is h * head_floats on. */
static size_t place(const struct engine_state *s, uint32_t layer, int seq,
                    int32_t pos) {
  const struct engine_rows *rows = s->rows;
  int32_t block = rows->block[(size_t)seq * (size_t)rows->block_ld
                              + (size_t)pos / ENGINE_BLOCK_TOKENS];
  return layer * s->layer_floats
    + (size_t)block * s->shape.kv_heads * s->head_floats
    + (size_t)(pos % ENGINE_BLOCK_TOKENS) * s->shape.head_dim;
}


/* K is stored rotated, so a position is turned once and not again by each
 * query that looks at it. V is not rotated. */
static void store_row(struct engine_state *s, uint32_t layer, int seq,
                      int32_t pos, float *row) {
  const struct engine_shape *shape = &s->shape;
  float *key = row + (size_t)shape->heads * shape->head_dim;
  float *value = key + (size_t)shape->kv_heads * shape->head_dim;
  size_t to = place(s, layer, seq, pos), bytes = shape->head_dim * sizeof *row;
  for (uint32_t h = 0; h < shape->heads; h++)
    rotate(s, row + (size_t)h * shape->head_dim, pos);
  for (uint32_t h = 0; h < shape->kv_heads; h++, to += s->head_floats) {
    size_t from = (size_t)h * shape->head_dim;
    rotate(s, key + from, pos);
    memcpy(s->key + to, key + from, bytes);
    memcpy(s->value + to, value + from, bytes);
  }
}


/* All rows of the step before any of them attends: rows of one prompt see
 * each other. */
void engine_cpu_qkv_store(struct engine_state *s, uint32_t layer,
                          struct engine_buffer *qkv) {
  const struct engine_rows *rows = s->rows;
  for (int seq = 0; seq < rows->seqs; seq++)
    for (int r = rows->seq_start[seq]; r < rows->seq_start[seq + 1]; r++)
      store_row(s, layer, seq, rows->pos[r], row_of(qkv, (uint32_t)r));
}


/* One query head over positions 0..pos: two passes, the largest score first, so
 * that no exponential overflows. Positions are summed in their order, wherever
 * their blocks lie, and however the prompt was cut into steps: hence the same
 * bits for a prompt in one step and token by token. */
static void attend(struct engine_state *s, const struct head *h,
                   const float *q, float *to) {
  uint32_t dim = s->shape.head_dim;
  float scale = 1.0f / sqrtf((float)dim), most = -INFINITY, sum = 0;
  size_t head = h->group * s->head_floats;
  for (int32_t p = 0; p <= h->pos; p++) {
    const float *k = s->key + place(s, h->layer, h->seq, p) + head;
    float x = scale * dot(q, k, dim);
    s->score[p] = x;
    most = x > most ? x : most;
  }
  memset(to, 0, dim * sizeof *to);
  for (int32_t p = 0; p <= h->pos; p++) {
    const float *v = s->value + place(s, h->layer, h->seq, p) + head;
    float weight = expf(s->score[p] - most);
    sum += weight;
    for (uint32_t i = 0; i < dim; i++)
      to[i] += weight * v[i];
  }
  for (uint32_t i = 0; i < dim; i++)
    to[i] /= sum;
}


/* Grouped-query attention: `share` query heads read one kv head. */
void engine_cpu_attention(struct engine_state *s, struct engine_buffer *act,
                          uint32_t layer, const struct engine_buffer *qkv) {
  const struct engine_rows *rows = s->rows;
  uint32_t dim = s->shape.head_dim;
  uint32_t share = s->shape.heads / s->shape.kv_heads;
  for (int seq = 0; seq < rows->seqs; seq++)
    for (int r = rows->seq_start[seq]; r < rows->seq_start[seq + 1]; r++)
      for (uint32_t i = 0; i < s->shape.heads; i++) {
        struct head h = { layer, seq, rows->pos[r], i / share };
        attend(s, &h, row_of(qkv, (uint32_t)r) + (size_t)i * dim,
               row_of(act, (uint32_t)r) + (size_t)i * dim);
      }
}
