/* cpu_packed_attn: the cache of keys and values, and attention over it, for
 * the packed backend.
 *
 * The pool is paged as in cpu_attn.c. Inside a block keys are transposed,
 * [head_dim][16]: a vector holds the same dimension of 16 keys, so a score
 * needs no sum across lanes.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_math.h"
#include "cpu_packed.h"
#include "quant.h"

struct store {
  struct engine_state *s;
  uint32_t layer;
  struct engine_buffer *qkv;
  const struct engine_tiles *q_gain, *k_gain;
};

struct attention {
  struct engine_state *s;
  uint32_t layer;
  struct engine_buffer *act;
  const struct engine_buffer *qkv;
  const float *sinks;
};


static int is_windowed(const struct engine_state *s, uint32_t layer) {
  return s->shape.windowed && s->shape.windowed[layer];
}


/* As in cpu_attn.c, with the tables of this state. */
static void rotate(const struct engine_state *s, uint32_t layer, float *head,
                   int32_t pos) {
  int which = is_windowed(s, layer);
  uint32_t half = s->shape.rot / 2;
  const float *c = s->cosine[which] + (size_t)pos * half;
  const float *t = s->sine[which] + (size_t)pos * half;
  if (s->shape.arch->neox)
    for (uint32_t i = 0; i < half; i++) {
      float a = head[i], b = head[i + half];
      head[i] = a * c[i] - b * t[i];
      head[i + half] = a * t[i] + b * c[i];
    }
  else
    for (uint32_t i = 0; i < half; i++) {
      float a = head[2 * i], b = head[2 * i + 1];
      head[2 * i] = a * c[i] - b * t[i];
      head[2 * i + 1] = a * t[i] + b * c[i];
    }
}


static void norm_heads(const struct engine_state *s, float *at, uint32_t heads,
                       const struct engine_tiles *gain) {
  uint32_t n = gain->cols, times = heads * s->shape.head_dim / n;
  for (uint32_t i = 0; i < times; i++, at += n)
    engine_cpu_norm_row(at, at, (const void *)gain->bytes, n, s->shape.eps);
}


/* A position's key and value of one head, into its block. */
static void put(const struct engine_state *s, unsigned char *key,
                unsigned char *value, const float *k, const float *v,
                uint32_t place) {
  uint32_t dim = s->shape.head_dim;
  if (!s->halves) {
    float *to = (float *)(void *)key;
    for (uint32_t i = 0; i < dim; i++)
      to[16 * (size_t)i + place] = k[i];
    memcpy(value + place * dim * sizeof *v, v, dim * sizeof *v);
    return;
  }
  uint16_t *to = (uint16_t *)(void *)key;
  uint16_t *flat = (uint16_t *)(void *)value + (size_t)place * dim;
  s->isa->narrow(k, dim, flat);     /* by way of the value's place */
  for (uint32_t i = 0; i < dim; i++)
    to[16 * (size_t)i + place] = flat[i];
  s->isa->narrow(v, dim, flat);
}


static void store_row(void *ctx, uint32_t r, uint32_t thread) {
  const struct store *c = ctx;
  struct engine_state *s = c->s;
  const struct engine_shape *shape = &s->shape;
  const struct engine_rows *rows = s->rows;
  uint32_t dim = shape->head_dim;
  int32_t pos = rows->pos[r], seq = s->seq_of[r];
  float *q = row_of(c->qkv, r), *key = q + (size_t)shape->heads * dim;
  float *value = key + (size_t)shape->kv_heads * dim;
  int32_t block = rows->block[(size_t)seq * (size_t)rows->block_ld
                              + (size_t)pos / ENGINE_BLOCK_TOKENS];
  size_t to = c->layer * s->layer_bytes
    + (size_t)block * shape->kv_heads * s->head_bytes;
  (void)thread;
  if (c->q_gain)
    norm_heads(s, q, shape->heads, c->q_gain);
  if (c->k_gain)
    norm_heads(s, key, shape->kv_heads, c->k_gain);
  for (uint32_t h = 0; h < shape->heads; h++)
    rotate(s, c->layer, q + (size_t)h * dim, pos);
  for (uint32_t h = 0; h < shape->kv_heads; h++, to += s->head_bytes) {
    float *k = key + (size_t)h * dim;
    rotate(s, c->layer, k, pos);
    put(s, s->key + to, s->value + to, k, value + (size_t)h * dim,
        (uint32_t)pos % ENGINE_BLOCK_TOKENS);
  }
}


void engine_packed_store(struct engine_state *s, uint32_t layer,
                         struct engine_buffer *qkv,
                         const struct engine_weight *q_gain,
                         const struct engine_weight *k_gain) {
  struct store c = { s, layer, qkv, tiles_of(q_gain), tiles_of(k_gain) };
  engine_packed_flush(s);
  qkv->version++;
  engine_packed_rows(s, (uint32_t)s->rows->rows, qkv->width, store_row, &c);
}


static int32_t first_seen(const struct engine_state *s, uint32_t layer,
                          int32_t pos) {
  int32_t window = (int32_t)s->shape.window;
  return is_windowed(s, layer) && pos >= window ? pos - window + 1 : 0;
}


/* One row and kv head, and the query heads that share it. They are quantised
 * here where they are whole blocks of 32. */
static void attend_head(void *ctx, uint32_t chunk, uint32_t thread) {
  const struct attention *c = ctx;
  struct engine_state *s = c->s;
  const struct engine_shape *shape = &s->shape;
  uint32_t r = chunk / shape->kv_heads, group = chunk % shape->kv_heads;
  uint32_t share = shape->heads / shape->kv_heads;
  uint32_t n = share * shape->head_dim, from = group * n;
  size_t at = c->layer * s->layer_bytes + group * s->head_bytes;
  struct engine_attend a = {
    .q = row_of(c->qkv, r) + from, .to = row_of(c->act, r) + from,
    .share = share, .dim = shape->head_dim,
    .key = s->key + at, .value = s->value + at,
    .stride = shape->kv_heads * s->head_bytes,
    .block = s->rows->block + (size_t)s->seq_of[r] * (size_t)s->rows->block_ld,
    .first = first_seen(s, c->layer, s->rows->pos[r]), .pos = s->rows->pos[r],
    .halves = s->halves, .scale = shape->score_scale, .cap = shape->score_cap,
    .sinks = c->sinks ? c->sinks + group * share : NULL,
    .scratch = s->scratch + thread * s->scratch_floats,
  };
  s->isa->attend(s->isa, &a);
  const struct packed_quant *now = &s->quant[s->now];
  if (now->of)
    s->isa->quantise(a.to, n, now->q + (size_t)r * now->cols + from,
                     now->act + ((size_t)r * now->cols + from) / TILE_COLS);
}


void engine_packed_attention(struct engine_state *s, struct engine_buffer *act,
                             uint32_t layer, const struct engine_buffer *qkv,
                             const struct engine_weight *sinks) {
  struct attention c = { s, layer, act, qkv, floats_of(sinks) };
  uint32_t rows = (uint32_t)s->rows->rows, width = s->shape.heads
    * s->shape.head_dim;
  engine_packed_flush(s);
  act->version++;
  engine_packed_fresh(s, act, rows, width);
  if (width / s->shape.kv_heads % TILE_COLS)
    s->quant[s->now].of = NULL;     /* the product does it */
  engine_pool_run(s->pool, rows * s->shape.kv_heads, attend_head, &c);
}
