/* cpu_packed: the backend of "cpu": packed weights, int8 activations, threads.
 * Its things, and the table of its ops. See cpu_packed.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_packed.h"

#include <stdlib.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "cpu_math.h"


static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for the model's weights "
                     "and cache");
}


/* ---- weights and buffers ---- */

static int weight_new(struct engine_weight **out,
                      const struct engine_weight_from *from, drover_err *err) {
  struct engine_tiles *t;
  int rc = engine_tiles_new(&t, from, err);
  *out = (void *)t;
  return rc;
}


static void weight_free(struct engine_weight *w) {
  engine_tiles_free((void *)w);
}


static void buffer_free(struct engine_buffer *b) {
  if (b)
    mem_free(b->at);
  mem_free(b);
}


static int buffer_new(struct engine_buffer **out, uint32_t rows,
                      uint32_t width, drover_err *err) {
  struct engine_buffer *b = mem_calloc(1, sizeof *b);
  *out = NULL;
  if (b) {
    b->rows = rows;
    b->width = width;
    b->at = mem_calloc((size_t)rows * width, sizeof *b->at);
  }
  if (!b || !b->at) {
    buffer_free(b);
    return no_memory(err);
  }
  *out = b;
  return DROVER_OK;
}


static void upload(struct engine_buffer *b, const float *from, size_t count) {
  memcpy(b->at, from, count * sizeof *from);
  b->version++;
}


static const float *read_row(struct engine_buffer *b, uint32_t row) {
  return row_of(b, row);
}


/* ---- state ---- */

struct sizes {                      /* of a state's parts, in elements */
  uint64_t pool;                    /* of keys; of values */
  uint64_t table;                   /* angles of one rope */
  uint64_t tables;
  uint64_t quant;                   /* int8 of one area */
  uint64_t scratch;                 /* floats of one thread */
  uint64_t pairs, hidden;           /* rows of experts; what one computes */
  uint32_t threads;
  uint32_t number;                  /* bytes of a key's element */
};


static uint64_t larger(uint64_t a, uint64_t b) {
  return a > b ? a : b;
}


/* 0 when the pool passes 2^62. */
static int measure(struct sizes *z, const struct engine_shape *shape,
                   const struct engine_limits *limits) {
  uint64_t q = (uint64_t)shape->heads * shape->head_dim;
  uint64_t widest = larger(larger(shape->width, shape->ff), q);
  z->threads = engine_pool_count(limits->threads);
  z->number = limits->kv == DROVER_KV_F16 ? 2 : 4;
  z->table = (uint64_t)shape->context * (shape->rot / 2);
  z->tables = shape->arch->local_rope ? 2 : 1;
  z->quant = limits->rows * ((widest + TILE_COLS - 1) / TILE_COLS * TILE_COLS);
  z->scratch = 32 * (uint64_t)shape->head_dim
    + 2 * (shape->heads / shape->kv_heads);
  z->pairs = shape->experts ? (uint64_t)MOE_ROWS * shape->used : 0;
  z->hidden = 2 * (uint64_t)shape->ff;
  z->pool = (uint64_t)shape->kv_heads * ENGINE_BLOCK_TOKENS * shape->head_dim;
  return !__builtin_mul_overflow(z->pool, shape->layers, &z->pool)
    && !__builtin_mul_overflow(z->pool, limits->blocks, &z->pool)
    && z->pool < (uint64_t)1 << 60;
}


static uint64_t quant_bytes(uint64_t values) {
  return values + values / TILE_COLS * sizeof(struct engine_act);
}


static uint64_t state_bytes(const struct engine_shape *shape,
                            const struct engine_limits *limits) {
  struct sizes z;
  if (!measure(&z, shape, limits))
    return UINT64_MAX;
  uint64_t bytes = 2 * z.pool * z.number;
  bytes += 8 * z.table * z.tables + 2 * quant_bytes(z.quant);
  bytes += 4 * z.scratch * z.threads + 4 * (uint64_t)limits->rows;
  bytes += z.pairs * (8 + 4 * z.hidden + quant_bytes(shape->ff)
                      + 4 * (uint64_t)shape->width);
  return bytes + (shape->experts ? 4 * (uint64_t)MOE_ROWS * shape->experts
                                 : 0);
}


/* Takes NULL and half-built ones: state_new() fails through here. */
static void state_free(struct engine_state *s) {
  if (!s)
    return;
  engine_pool_free(s->pool);
  mem_free(s->seq_of);
  mem_free(s->key);
  mem_free(s->value);
  if (s->cosine[1] != s->cosine[0]) {
    mem_free(s->cosine[1]);
    mem_free(s->sine[1]);
  }
  mem_free(s->cosine[0]);
  mem_free(s->sine[0]);
  for (int i = 0; i < 2; i++) {
    mem_free(s->quant[i].q);
    mem_free(s->quant[i].act);
  }
  mem_free(s->scratch);
  mem_free(s->mix.chosen);
  mem_free(s->mix.share);
  mem_free(s->mix.hidden);
  mem_free(s->mix.q);
  mem_free(s->mix.act);
  mem_free(s->mix.out);
  mem_free(s->mix.score);
  mem_free(s);
}


/* Zeroed memory, `*whole` cleared when there is none. */
static void *take(size_t count, size_t size, int *whole) {
  void *p = mem_calloc(count, size);
  if (!p)
    *whole = 0;
  return p;
}


static void take_mix(struct packed_mix *m, const struct engine_shape *shape,
                     const struct sizes *z, int *whole) {
  size_t pairs = (size_t)z->pairs;
  if (!pairs)
    return;
  m->chosen = take(pairs, sizeof *m->chosen, whole);
  m->share = take(pairs, sizeof *m->share, whole);
  m->hidden = take(pairs, (size_t)z->hidden * sizeof *m->hidden, whole);
  m->q = take(pairs, shape->ff, whole);
  m->act = take(pairs, shape->ff / TILE_COLS * sizeof *m->act + 1, whole);
  m->out = take(pairs, shape->width * sizeof *m->out, whole);
  m->score = take((size_t)MOE_ROWS * shape->experts, sizeof *m->score, whole);
}


/* All scratch of all steps at once: no op allocates. */
static int take_parts(struct engine_state *s, const struct sizes *z,
                      const struct engine_limits *limits) {
  const struct engine_shape *shape = &s->shape;
  int whole = 1;
  s->halves = z->number == 2;
  s->head_bytes = (size_t)ENGINE_BLOCK_TOKENS * shape->head_dim * z->number;
  s->layer_bytes = (size_t)(z->pool / shape->layers * z->number);
  s->key = take((size_t)z->pool, z->number, &whole);
  s->value = take((size_t)z->pool, z->number, &whole);
  s->seq_of = take(limits->rows, sizeof *s->seq_of, &whole);
  for (uint64_t i = 0; i < 2; i++) {
    int own = i < z->tables;
    s->cosine[i] = own ? take((size_t)z->table, sizeof(float), &whole)
                       : s->cosine[0];
    s->sine[i] = own ? take((size_t)z->table, sizeof(float), &whole)
                     : s->sine[0];
    s->quant[i].q = take((size_t)z->quant, 1, &whole);
    s->quant[i].act = take((size_t)(z->quant / TILE_COLS),
                           sizeof *s->quant[i].act, &whole);
  }
  s->scratch_floats = (size_t)z->scratch;
  s->scratch = take((size_t)z->scratch * z->threads, sizeof(float), &whole);
  take_mix(&s->mix, shape, z, &whole);
  return whole;
}


/* DROVER_CPU names another kind of machine than the best: for tests, and for
 * who doubts one. */
static int find_isa(struct engine_state *s, drover_err *err) {
  const char *name = getenv("DROVER_CPU");
  s->isa = engine_isa_find(name && *name ? name : NULL);
  return s->isa ? DROVER_OK
    : drover_fail(err, DROVER_EINVAL, "DROVER_CPU is \"%.16s\": plain, avx2 or "
                  "avx512, as far as this machine has them", name);
}


static int state_new(struct engine_state **out,
                     const struct engine_shape *shape,
                     const struct engine_limits *limits, drover_err *err) {
  struct sizes z;
  struct engine_state *s = NULL;
  *out = NULL;
  if (limits->threads > ENGINE_THREADS_MAX
      && limits->threads != UINT32_MAX)
    return drover_fail(err, DROVER_EINVAL, "threads: %u, at most %d",
                       (unsigned)limits->threads, ENGINE_THREADS_MAX);
  if (limits->kv > DROVER_KV_F32)
    return drover_fail(err, DROVER_EINVAL, "kv: the packed backend keeps keys "
                       "and values as halves or floats");
  if (!measure(&z, shape, limits) || !(s = mem_calloc(1, sizeof *s)))
    return no_memory(err);
  s->shape = *shape;
  int rc = find_isa(s, err);
  if (!rc)
    rc = engine_pool_new(&s->pool, z.threads, err);
  if (!rc && !take_parts(s, &z, limits))
    rc = no_memory(err);
  if (rc) {
    state_free(s);
    return rc;
  }
  engine_cpu_rope_table(shape, &shape->rope, s->cosine[0], s->sine[0]);
  if (s->cosine[1] != s->cosine[0])
    engine_cpu_rope_table(shape, &shape->rope_local, s->cosine[1],
                          s->sine[1]);
  *out = s;
  return DROVER_OK;
}


/* What was quantised in the step before is forgotten: its buffer may be
 * another at the same place. */
static void step_begin(struct engine_state *s, const struct engine_rows *rows) {
  s->rows = rows;
  s->quant[0].of = s->quant[1].of = NULL;
  s->pendings = 0;
  for (int32_t seq = 0; seq < rows->seqs; seq++)
    for (int32_t r = rows->seq_start[seq]; r < rows->seq_start[seq + 1]; r++)
      s->seq_of[r] = seq;
}


static int step_end(struct engine_state *s, drover_err *err) {
  (void)err;                        /* nothing here fails */
  engine_packed_flush(s);
  s->rows = NULL;
  return DROVER_OK;
}


/* A block's heads lie together in each layer. */
static void kv_copy(struct engine_state *s, const int32_t *from,
                    const int32_t *to, int count) {
  size_t bytes = s->shape.kv_heads * s->head_bytes;
  for (int i = 0; i < count; i++)
    for (uint32_t layer = 0; layer < s->shape.layers; layer++) {
      size_t base = layer * s->layer_bytes;
      size_t at = base + (size_t)from[i] * bytes;
      memcpy(s->key + base + (size_t)to[i] * bytes, s->key + at, bytes);
      memcpy(s->value + base + (size_t)to[i] * bytes, s->value + at, bytes);
    }
}


const struct engine_backend engine_cpu_packed = {
  .name = "cpu", .invariant = 1, .knee = 16,
  .weight_new = weight_new, .weight_free = weight_free,
  .weight_bytes = engine_tiles_bytes,
  .buffer_new = buffer_new, .buffer_free = buffer_free,
  .upload = upload, .read = read_row,
  .state_bytes = state_bytes, .state_new = state_new,
  .state_free = state_free,
  .step_begin = step_begin, .step_end = step_end, .kv_copy = kv_copy,
  .embed = engine_packed_embed, .norm = engine_packed_norm,
  .norm_own = engine_packed_norm_own, .matmul = engine_packed_matmul,
  .qkv_store = engine_packed_store, .attention = engine_packed_attention,
  .glu = engine_packed_glu, .moe = engine_packed_moe,
  .gather_norm = engine_packed_gather, .logits = engine_packed_logits,
};
