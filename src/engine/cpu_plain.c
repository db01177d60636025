/* cpu_plain: the ops in plain C; what every other backend is checked against.
 *
 * Activations are float32, weights are dequantised a row at a time, the KV
 * pool is float32. Rows are never mixed and every sum has one order (cpu.h), so
 * a row's bits do not depend on its neighbours. cpu_attn.c has the ops that
 * know positions.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "backend.h"
#include "cpu.h"
#include "quant.h"


static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for the model's weights "
                     "and cache");
}


/* The same sums for four rows at once, so that w is read once. */
static void dot4(const float *w, const float *a, size_t ld, uint32_t n,
                 float *out) {
  four low[TILE] = { 0 }, high[TILE] = { 0 };
  uint32_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    four v = four_at(w + i), u = four_at(w + i + 4);
    for (int r = 0; r < TILE; r++) {
      low[r] += v * four_at(a + (size_t)r * ld + i);
      high[r] += u * four_at(a + (size_t)r * ld + i + 4);
    }
  }
  for (int r = 0; r < TILE; r++)
    out[r] = close_sum(low[r], high[r], w, a + (size_t)r * ld, i, n);
}


/* ---- weights and buffers ---- */

/* Takes NULL and a weight without bytes: weight_new() fails through here. */
static void weight_free(struct engine_weight *w) {
  if (w)
    mem_free(w->bytes);
  mem_free(w);
}


static uint64_t weight_bytes(const struct engine_weight_from *from) {
  const struct engine_quant_type *type = engine_quant_type(from->type);
  return (uint64_t)(from->cols / type->values) * type->bytes * from->rows;
}


/* Bytes stay as the file has them, 34 for 32 weights of Q8_0 instead of 128:
 * a matrix is read once a step, and memory is what that waits for. Types
 * that cannot be read were refused by name when the file was checked; this
 * is the hatch's own check. */
static int weight_new(struct engine_weight **out,
                      const struct engine_weight_from *from, drover_err *err) {
  const struct engine_quant_type *type = engine_quant_type(from->type);
  *out = NULL;
  if (!type || !engine_quant_reads(from->type) || from->cols % type->values)
    return drover_fail(err, DROVER_EFORMAT, "a weight of type %u",
                       (unsigned)from->type);
  struct engine_weight *w = mem_calloc(1, sizeof *w);
  size_t size = 0;
  if (w) {
    *w = (struct engine_weight){ from->type, from->cols, from->rows, 0, NULL };
    w->row_bytes = (size_t)(from->cols / type->values) * type->bytes;
    if (!__builtin_mul_overflow(w->row_bytes, (size_t)from->rows, &size))
      w->bytes = mem_alloc(size);
  }
  if (!w || !w->bytes) {
    weight_free(w);
    return no_memory(err);
  }
  int rc = from->read(from->ctx, 0, w->bytes, size, err);
  if (rc)
    weight_free(w);
  else
    *out = w;
  return rc;
}


const float *engine_cpu_weight_row(const struct engine_weight *w, uint32_t r,
                                   float *scratch) {
  const unsigned char *bytes = w->bytes + r * w->row_bytes;
  if (w->type == ENGINE_F32)
    return (const float *)(const void *)bytes;
  engine_quant_row(w->type, bytes, w->cols, scratch);
  return scratch;
}


/* Takes NULL and half-built ones. */
static void buffer_free(struct engine_buffer *b) {
  if (b)
    mem_free(b->at);
  mem_free(b);
}


/* Zeroed, so that no row holds what some earlier owner of the memory
 * computed. */
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
}


static const float *read_row(struct engine_buffer *b, uint32_t row) {
  return row_of(b, row);
}


/* ---- state ---- */

/* Bytes of one pool (keys or values), or UINT64_MAX. */
static uint64_t pool_bytes(const struct engine_shape *shape,
                           const struct engine_limits *limits) {
  uint64_t n = (uint64_t)shape->kv_heads * ENGINE_BLOCK_TOKENS;
  uint64_t vector = engine_cpu_kv_bytes(limits->kv, shape->head_dim);
  if (__builtin_mul_overflow(n, vector, &n)
      || __builtin_mul_overflow(n, shape->layers, &n)
      || __builtin_mul_overflow(n, limits->blocks, &n))
    return UINT64_MAX;
  return n;
}


/* The longest row of any weight: its inputs are the residual, the heads or
 * the hidden layer. */
static uint32_t widest(const struct engine_shape *shape) {
  uint32_t q = shape->heads * shape->head_dim;
  uint32_t most = shape->width > shape->ff ? shape->width : shape->ff;
  return most > q ? most : q;
}


/* Of angles: one for all layers, or one for the windowed ones too. */
static uint64_t tables(const struct engine_shape *shape) {
  return shape->arch->local_rope ? 2 : 1;
}


/* Gate, up and output of one expert. */
static uint64_t hidden(const struct engine_shape *shape) {
  return shape->experts ? 2 * (uint64_t)shape->ff + shape->width : 0;
}


/* Query heads that read one kv head. */
static uint32_t shared(const struct engine_shape *shape) {
  return shape->heads / shape->kv_heads;
}


/* What state_new() allocates, to the byte: the engine sizes its pool by
 * this before it takes anything. */
static uint64_t state_bytes(const struct engine_shape *shape,
                            const struct engine_limits *limits) {
  uint64_t pool = pool_bytes(shape, limits), bytes, share = shared(shape);
  uint64_t table = (uint64_t)shape->context * shape->rot / 2 * tables(shape);
  if (pool > UINT64_MAX / 4)
    return UINT64_MAX;
  uint64_t floats = 2 * table + widest(shape) + shape->context * share
    + shape->head_dim + 2 * share + hidden(shape) + shape->experts + 2;
  bytes = floats * sizeof(float);   /* factors of 32 bits: far from the end */
  return __builtin_add_overflow(bytes, 2 * pool, &bytes) ? UINT64_MAX : bytes;
}


/* Takes NULL and half-built ones: state_new() fails through here. */
static void state_free(struct engine_state *s) {
  if (!s)
    return;
  mem_free(s->key);
  mem_free(s->value);
  if (s->cosine[1] != s->cosine[0]) {
    mem_free(s->cosine[1]);
    mem_free(s->sine[1]);
  }
  mem_free(s->cosine[0]);
  mem_free(s->sine[0]);
  mem_free(s->weight);
  mem_free(s->score);
  mem_free(s->vector);
  mem_free(s->most);
  mem_free(s->hidden);
  mem_free(s->share);
  mem_free(s);
}


/* All scratch of all steps at once: no op allocates, so a step cannot fail
 * for memory half-way through a batch. */
static int state_new(struct engine_state **out,
                     const struct engine_shape *shape,
                     const struct engine_limits *limits, drover_err *err) {
  struct engine_state *s = mem_calloc(1, sizeof *s);
  uint64_t pool = pool_bytes(shape, limits);
  size_t table = (size_t)shape->context * (shape->rot / 2);
  *out = NULL;
  if (!s || pool > SIZE_MAX) {
    mem_free(s);
    return no_memory(err);
  }
  s->shape = *shape;
  s->kv = limits->kv;
  s->vector_bytes = engine_cpu_kv_bytes(s->kv, shape->head_dim);
  s->head_bytes = ENGINE_BLOCK_TOKENS * s->vector_bytes;
  s->layer_bytes = (size_t)(pool / shape->layers);
  s->key = mem_calloc((size_t)pool, 1);
  s->value = mem_calloc((size_t)pool, 1);
  for (uint64_t i = 0; i < 2; i++) {
    int own = i < tables(shape);
    s->cosine[i] = own ? mem_calloc(table, sizeof(float)) : s->cosine[0];
    s->sine[i] = own ? mem_calloc(table, sizeof(float)) : s->sine[0];
  }
  s->weight = mem_calloc(widest(shape), sizeof(float));
  s->score = mem_calloc((size_t)shape->context * shared(shape),
                        sizeof(float));
  s->vector = mem_calloc(shape->head_dim, sizeof(float));
  s->most = mem_calloc(2 * (size_t)shared(shape), sizeof(float));
  s->hidden = mem_calloc((size_t)hidden(shape) + 1, sizeof(float));
  s->share = mem_calloc((size_t)shape->experts + 1, sizeof(float));
  if (!s->key || !s->value || !s->cosine[0] || !s->sine[0] || !s->cosine[1]
      || !s->sine[1] || !s->weight || !s->score || !s->vector || !s->most
      || !s->hidden || !s->share) {
    state_free(s);
    return no_memory(err);
  }
  engine_cpu_rope(s);
  *out = s;
  return DROVER_OK;
}


static void step_begin(struct engine_state *s, const struct engine_rows *rows) {
  s->rows = rows;
}


/* The plan's arrays may be rewritten from here on. */
static int step_end(struct engine_state *s, drover_err *err) {
  (void)err;                        /* nothing here fails */
  s->rows = NULL;
  return DROVER_OK;
}


/* ---- the ops ---- */

/* Dequantised straight into the buffer, also F32 (a copy): x is written to
 * by the layers, a weight is not. */
static void embed(struct engine_state *s, struct engine_buffer *x,
                  const struct engine_weight *w) {
  float scale = s->shape.embed_scale;
  for (int r = 0; r < s->rows->rows; r++) {
    float *to = row_of(x, (uint32_t)r);
    const unsigned char *row = w->bytes
      + (size_t)s->rows->token[r] * w->row_bytes;
    engine_quant_row(w->type, row, w->cols, to);
    for (uint32_t i = 0; scale != 1 && i < w->cols; i++)
      to[i] *= scale;
  }
}


/* RMSNorm (Zhang and Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * gain,
 * with the sum of squares in the one order of dot(). */
void engine_cpu_norm_row(float *to, const float *x, const float *gain,
                         uint32_t n, float eps) {
  float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
  for (uint32_t i = 0; i < n; i++)
    to[i] = x[i] * scale * gain[i];
}


/* x[row] += add, scaled; and act[to] is its norm. */
static void sum_and_norm(struct engine_state *s, float *to, float *row,
                         const float *add, const struct engine_weight *gain) {
  uint32_t n = s->shape.width;
  float scale = s->shape.residual_scale;
  for (uint32_t i = 0; add && i < n; i++)
    row[i] += scale == 1 ? add[i] : add[i] * scale;
  if (gain)
    engine_cpu_norm_row(to, row, floats_of(gain), n, s->shape.eps);
  else
    memcpy(to, row, n * sizeof *to);
}


/* The residual addition of the part before is done here, in the pass that
 * reads x anyway. */
static void norm(struct engine_state *s, struct engine_buffer *act,
                 struct engine_buffer *x, const struct engine_buffer *add,
                 const struct engine_weight *gain) {
  for (uint32_t r = 0; r < (uint32_t)s->rows->rows; r++)
    sum_and_norm(s, row_of(act, r), row_of(x, r), add ? row_of(add, r) : NULL,
                 gain);
}


static void norm_own(struct engine_state *s, struct engine_buffer *y,
                     const struct engine_weight *gain) {
  for (uint32_t r = 0; r < (uint32_t)s->rows->rows; r++)
    engine_cpu_norm_row(row_of(y, r), row_of(y, r), floats_of(gain),
                        s->shape.width, s->shape.eps);
}


/* A weight's row is made once for all rows of the batch. */
static void multiply(struct engine_state *s, struct engine_buffer *y,
                     uint32_t at, const struct engine_buffer *act,
                     const struct engine_weight *w, uint32_t rows) {
  for (uint32_t o = 0; o < w->rows; o++) {
    const float *row = engine_cpu_weight_row(w, o, s->weight);
    float *to = y->at + at + o, sums[TILE];
    uint32_t r = 0;
    for (; r + TILE <= rows; r += TILE) {
      dot4(row, row_of(act, r), act->width, w->cols, sums);
      for (uint32_t i = 0; i < TILE; i++)
        to[(size_t)(r + i) * y->width] = sums[i];
    }
    for (; r < rows; r++)
      to[(size_t)r * y->width] = dot(row, row_of(act, r), w->cols);
  }
}


static void matmul(struct engine_state *s, struct engine_buffer *y,
                   uint32_t at, const struct engine_buffer *act,
                   const struct engine_linear *l) {
  uint32_t rows = (uint32_t)s->rows->rows;
  multiply(s, y, at, act, l->w, rows);
  for (uint32_t r = 0; l->bias && r < rows; r++) {
    float *to = row_of(y, r) + at;
    for (uint32_t o = 0; o < l->w->rows; o++)
      to[o] += floats_of(l->bias)[o];
  }
}


static void logits(struct engine_state *s, struct engine_buffer *y,
                   const struct engine_buffer *act,
                   const struct engine_weight *w) {
  float scale = s->shape.logit_scale, cap = s->shape.logit_cap;
  multiply(s, y, 0, act, w, (uint32_t)s->rows->outs);
  for (int o = 0; (scale != 1 || cap > 0) && o < s->rows->outs; o++) {
    float *row = row_of(y, (uint32_t)o);
    for (uint32_t i = 0; i < w->rows; i++) {
      row[i] *= scale;
      if (cap > 0)
        row[i] = cap * tanhf(row[i] / cap);
    }
  }
}


static void glu(struct engine_state *s, struct engine_buffer *act,
                const struct engine_buffer *gu) {
  for (uint32_t r = 0; r < (uint32_t)s->rows->rows; r++)
    engine_cpu_glu_row(&s->shape, row_of(gu, r), row_of(gu, r) + s->shape.ff,
                       row_of(act, r));
}


/* The last residual addition and the last norm, for the wanted rows alone; x
 * of the others is not needed any more. */
static void gather_norm(struct engine_state *s, struct engine_buffer *act,
                        const struct engine_buffer *x,
                        const struct engine_buffer *add,
                        const struct engine_weight *gain) {
  for (int o = 0; o < s->rows->outs; o++) {
    uint32_t r = (uint32_t)s->rows->out_row[o];
    sum_and_norm(s, row_of(act, (uint32_t)o), row_of(x, r), row_of(add, r),
                 gain);
  }
}


const struct engine_backend engine_cpu_plain = {
  .name = "cpu_plain", .invariant = 1, .knee = 16,
  .weight_new = weight_new, .weight_free = weight_free,
  .weight_bytes = weight_bytes,
  .buffer_new = buffer_new, .buffer_free = buffer_free,
  .upload = upload, .read = read_row,
  .state_bytes = state_bytes, .state_new = state_new,
  .state_free = state_free,
  .step_begin = step_begin, .step_end = step_end,
  .kv_copy = engine_cpu_kv_copy,
  .embed = embed, .norm = norm, .norm_own = norm_own, .matmul = matmul,
  .qkv_store = engine_cpu_qkv_store, .attention = engine_cpu_attention,
  .glu = glu, .moe = engine_cpu_moe, .gather_norm = gather_norm,
  .logits = logits,
};
