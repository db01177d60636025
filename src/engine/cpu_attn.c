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


/* How far pair i turns a position: all of it scaled, or by yarn's ramp. */
static double turn_of(const struct engine_rope *rope, uint32_t i,
                      uint32_t rot) {
  double turn = pow(rope->base, -2.0 * i / rot);
  if (rope->divisor)
    turn /= (double)rope->divisor[i];
  if (rope->low == 0 && rope->high == 0)
    return turn * rope->scale;
  double at = (i - (double)rope->low)
    / fmax(0.001, (double)rope->high - (double)rope->low);
  double ramp = 1 - fmin(1, fmax(0, at));
  return turn * rope->scale * (1 - ramp) + turn * ramp;
}


/* Angles in double, rounded once: stepping them up in float drifts. */
void engine_cpu_rope_table(const struct engine_shape *shape,
                           const struct engine_rope *rope, float *cosine,
                           float *sine) {
  uint32_t half = shape->rot / 2;
  for (uint32_t i = 0; i < half; i++) {
    double turn = turn_of(rope, i, shape->rot);
    for (uint32_t pos = 0; pos < shape->context; pos++) {
      cosine[(size_t)pos * half + i] = (float)(cos(pos * turn) * rope->stretch);
      sine[(size_t)pos * half + i] = (float)(sin(pos * turn) * rope->stretch);
    }
  }
}


void engine_cpu_rope(struct engine_state *s) {
  const struct engine_shape *shape = &s->shape;
  engine_cpu_rope_table(shape, &shape->rope, s->cosine[0], s->sine[0]);
  if (s->cosine[1] != s->cosine[0])
    engine_cpu_rope_table(shape, &shape->rope_local, s->cosine[1],
                          s->sine[1]);
}


static int is_windowed(const struct engine_state *s, uint32_t layer) {
  return s->shape.windowed && s->shape.windowed[layer];
}


/* Pairs are neighbours (2i, 2i + 1), or lie half a rotation apart; dimensions
 * from `rot` on pass through. */
static void rotate(const struct engine_state *s, uint32_t layer, float *head,
                   int32_t pos) {
  int which = is_windowed(s, layer);
  uint32_t half = s->shape.rot / 2, neox = s->shape.arch->neox;
  const float *c = s->cosine[which] + (size_t)pos * half;
  const float *t = s->sine[which] + (size_t)pos * half;
  for (uint32_t i = 0; i < half; i++) {
    uint32_t first = neox ? i : 2 * i, second = neox ? i + half : 2 * i + 1;
    float a = head[first], b = head[second];
    head[first] = a * c[i] - b * t[i];
    head[second] = a * t[i] + b * c[i];
  }
}


/* Where a position's vector of kv head 0 is: head h is h * head_bytes on. */
static size_t place(const struct engine_state *s, uint32_t layer, int seq,
                    int32_t pos) {
  const struct engine_rows *rows = s->rows;
  int32_t block = rows->block[(size_t)seq * (size_t)rows->block_ld
                              + (size_t)pos / ENGINE_BLOCK_TOKENS];
  return layer * s->layer_bytes
    + (size_t)block * s->shape.kv_heads * s->head_bytes
    + (size_t)(pos % ENGINE_BLOCK_TOKENS) * s->vector_bytes;
}


/* Each head by itself, or all of them as one row; before they turn. */
static void norm_heads(const struct engine_state *s, float *at, uint32_t heads,
                       const struct engine_weight *gain) {
  const struct engine_shape *shape = &s->shape;
  uint32_t n = gain->cols, times = heads * shape->head_dim / n;
  for (uint32_t i = 0; i < times; i++, at += n)
    engine_cpu_norm_row(at, at, floats_of(gain), n, shape->eps);
}


/* K is stored rotated, so a position is turned once and not again by each
 * query that looks at it. V is not rotated. */
static void store_row(struct engine_state *s, uint32_t layer, int seq,
                      int32_t pos, float *row) {
  const struct engine_shape *shape = &s->shape;
  float *key = row + (size_t)shape->heads * shape->head_dim;
  float *value = key + (size_t)shape->kv_heads * shape->head_dim;
  size_t to = place(s, layer, seq, pos);
  uint32_t dim = shape->head_dim;
  for (uint32_t h = 0; h < shape->heads; h++)
    rotate(s, layer, row + (size_t)h * shape->head_dim, pos);
  for (uint32_t h = 0; h < shape->kv_heads; h++, to += s->head_bytes) {
    size_t from = (size_t)h * dim;
    rotate(s, layer, key + from, pos);
    engine_cpu_kv_store(s->kv, key + from, dim, s->key + to);
    engine_cpu_kv_store(s->kv, value + from, dim, s->value + to);
  }
}


/* All rows of the step before any of them attends: rows of one prompt see
 * each other. */
void engine_cpu_qkv_store(struct engine_state *s, uint32_t layer,
                          struct engine_buffer *qkv,
                          const struct engine_weight *q_gain,
                          const struct engine_weight *k_gain) {
  const struct engine_rows *rows = s->rows;
  uint32_t q = s->shape.heads * s->shape.head_dim;
  for (int seq = 0; seq < rows->seqs; seq++)
    for (int r = rows->seq_start[seq]; r < rows->seq_start[seq + 1]; r++) {
      float *row = row_of(qkv, (uint32_t)r);
      if (q_gain)
        norm_heads(s, row, s->shape.heads, q_gain);
      if (k_gain)
        norm_heads(s, row + q, s->shape.kv_heads, k_gain);
      store_row(s, layer, seq, rows->pos[r], row);
    }
}


/* Scores of a group's heads over the positions they see; the largest of each
 * to `most`. A key is read once for all heads that share it. */
static void score(struct engine_state *s, const struct heads *h,
                  const float *q, float *most) {
  uint32_t dim = s->shape.head_dim;
  float scale = s->shape.score_scale, cap = s->shape.score_cap;
  size_t head = h->group * s->head_bytes;
  for (int32_t p = h->first; p <= h->pos; p++) {
    const unsigned char *at = s->key + place(s, h->layer, h->seq, p) + head;
    const float *k = engine_cpu_kv_load(s->kv, at, dim, s->vector);
    for (uint32_t i = 0; i < h->share; i++) {
      float x = scale * dot(q + (size_t)i * dim, k, dim);
      if (cap > 0)
        x = cap * tanhf(x / cap);
      s->score[(size_t)i * s->shape.context + (size_t)p] = x;
      most[i] = x > most[i] ? x : most[i];
    }
  }
}


/* The heads of one group over the positions that they see: two passes, the
 * largest score first, so that no exponential overflows. Positions are summed
 * in their order, wherever their blocks lie, and however the prompt was cut
 * into steps: hence the same bits for a prompt in one step and token by token.
 * A sink takes part in the largest and the sum, last. */
static void attend(struct engine_state *s, const struct heads *h,
                   const float *q, float *to) {
  uint32_t dim = s->shape.head_dim, share = h->share;
  float *most = s->most, *sum = s->most + share;
  size_t head = h->group * s->head_bytes;
  for (uint32_t i = 0; i < share; i++) {
    most[i] = h->sink ? h->sink[i] : -INFINITY;
    sum[i] = 0;
  }
  score(s, h, q, most);
  memset(to, 0, (size_t)share * dim * sizeof *to);
  for (int32_t p = h->first; p <= h->pos; p++) {
    const unsigned char *at = s->value + place(s, h->layer, h->seq, p) + head;
    const float *v = engine_cpu_kv_load(s->kv, at, dim, s->vector);
    for (uint32_t i = 0; i < share; i++) {
      float *out = to + (size_t)i * dim;
      float x = s->score[(size_t)i * s->shape.context + (size_t)p];
      float weight = expf(x - most[i]);
      sum[i] += weight;
      for (uint32_t k = 0; k < dim; k++)
        out[k] += weight * v[k];
    }
  }
  for (uint32_t i = 0; i < share; i++) {
    if (h->sink)
      sum[i] += expf(h->sink[i] - most[i]);
    for (uint32_t k = 0; k < dim; k++)
      to[(size_t)i * dim + k] /= sum[i];
  }
}


/* The first position that a row sees: a window of n keys ends with itself. */
static int32_t first_seen(const struct engine_state *s, uint32_t layer,
                          int32_t pos) {
  int32_t window = (int32_t)s->shape.window;
  return is_windowed(s, layer) && pos >= window ? pos - window + 1 : 0;
}


/* Grouped-query attention: `share` query heads read one kv head. */
void engine_cpu_attention(struct engine_state *s, struct engine_buffer *act,
                          uint32_t layer, const struct engine_buffer *qkv,
                          const struct engine_weight *sinks) {
  const struct engine_rows *rows = s->rows;
  uint32_t share = s->shape.heads / s->shape.kv_heads;
  size_t floats = (size_t)share * s->shape.head_dim;
  for (int seq = 0; seq < rows->seqs; seq++)
    for (int r = rows->seq_start[seq]; r < rows->seq_start[seq + 1]; r++)
      for (uint32_t g = 0; g < s->shape.kv_heads; g++) {
        struct heads h = {
          .layer = layer, .seq = seq, .pos = rows->pos[r], .group = g,
          .share = share, .first = first_seen(s, layer, rows->pos[r]),
          .sink = sinks ? floats_of(sinks) + g * share : NULL,
        };
        attend(s, &h, row_of(qkv, (uint32_t)r) + g * floats,
               row_of(act, (uint32_t)r) + g * floats);
      }
}
