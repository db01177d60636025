/* cpu_plain: the ops in plain C; what every other backend is checked against.
 *
 * Activations are float32, weights are dequantised a row at a time, the KV
 * pool is float32. Every sum has one order, fixed by its length alone: eight
 * partial sums, element i into sum i mod 8, then a tree over the eight. Rows
 * are never mixed, so a row's bits do not depend on its neighbours.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "backend.h"
#include "quant.h"

enum { LANES = 8, TILE = 4 };       /* partial sums; rows that share a pass */

struct head {                       /* of a query: where its keys are */
  uint32_t layer;
  int      seq;
  int32_t  pos;                     /* the last that it sees */
  uint32_t group;                   /* its kv head */
};

struct engine_weight {
  uint32_t type, cols, rows;
  size_t row_bytes;
  unsigned char *bytes;
};

struct engine_buffer {
  uint32_t rows, width;
  float *at;
};

struct engine_state {
  struct engine_shape shape;
  const struct engine_rows *rows;   /* of the step */
  float *key, *value;               /* [layer][block][kv head][16][head_dim] */
  size_t head_floats, layer_floats; /* of one head's block; of one layer */
  float *cosine, *sine;             /* [context][rot / 2] */
  float *weight;                    /* one dequantised row */
  float *score;                     /* [context] of one head */
};


static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for the model's weights "
                     "and cache");
}


/* ---- sums ---- */

/* Four floats as one value, which gcc and clang map onto any machine's
 * vectors: the lanes' sums stay apart, so the order of adds is as written. */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));


static four four_at(const float *p) {
  return *(const four *)p;
}


static float tree(const float *s) {
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}


/* Add what is left behind element i, and the eight sums. */
static float close_sum(four low, four high, const float *a, const float *b,
                       uint32_t i, uint32_t n) {
  float s[LANES];
  memcpy(s, &low, sizeof low);
  memcpy(s + 4, &high, sizeof high);
  for (; i < n; i++)
    s[i % LANES] += a[i] * b[i];
  return tree(s);
}


static float dot(const float *a, const float *b, uint32_t n) {
  four low = { 0 }, high = { 0 };
  uint32_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    low += four_at(a + i) * four_at(b + i);
    high += four_at(a + i + 4) * four_at(b + i + 4);
  }
  return close_sum(low, high, a, b, i, n);
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

static void weight_free(struct engine_weight *w) {
  if (w)
    mem_free(w->bytes);
  mem_free(w);
}


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


/* Row r as floats: in place, or made in `scratch`. */
static const float *weight_row(const struct engine_weight *w, uint32_t r,
                               float *scratch) {
  const unsigned char *bytes = w->bytes + r * w->row_bytes;
  if (w->type == ENGINE_F32)
    return (const float *)(const void *)bytes;
  engine_quant_row(w->type, bytes, w->cols, scratch);
  return scratch;
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


static float *row_of(const struct engine_buffer *b, uint32_t row) {
  return b->at + (size_t)row * b->width;
}


static void upload(struct engine_buffer *b, const float *from, size_t count) {
  memcpy(b->at, from, count * sizeof *from);
}


static const float *read_row(struct engine_buffer *b, uint32_t row) {
  return row_of(b, row);
}


/* ---- state ---- */

/* Floats of one pool (keys or values), or UINT64_MAX. */
static uint64_t pool_floats(const struct engine_shape *shape,
                            const struct engine_limits *limits) {
  uint64_t n = (uint64_t)shape->kv_heads * ENGINE_BLOCK_TOKENS;
  if (__builtin_mul_overflow(n, shape->head_dim, &n)
      || __builtin_mul_overflow(n, shape->layers, &n)
      || __builtin_mul_overflow(n, limits->blocks, &n))
    return UINT64_MAX;
  return n;
}


static uint64_t state_bytes(const struct engine_shape *shape,
                            const struct engine_limits *limits) {
  uint64_t pool = pool_floats(shape, limits), bytes;
  uint64_t table = (uint64_t)shape->context * shape->rot / 2;
  if (pool > UINT64_MAX / 4)
    return UINT64_MAX;
  uint64_t floats = 2 * pool + 2 * table + shape->context;
  return __builtin_mul_overflow(floats, sizeof(float), &bytes) ? UINT64_MAX
                                                               : bytes;
}


static void state_free(struct engine_state *s) {
  if (!s)
    return;
  mem_free(s->key);
  mem_free(s->value);
  mem_free(s->cosine);
  mem_free(s->sine);
  mem_free(s->weight);
  mem_free(s->score);
  mem_free(s);
}


/* Angles in double, rounded once: stepping them up in float drifts. */
static void fill_rope(struct engine_state *s) {
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


static uint32_t widest(const struct engine_shape *shape) {
  uint32_t q = shape->heads * shape->head_dim;
  uint32_t most = shape->width > shape->ff ? shape->width : shape->ff;
  return most > q ? most : q;
}


static int state_new(struct engine_state **out,
                     const struct engine_shape *shape,
                     const struct engine_limits *limits, drover_err *err) {
  struct engine_state *s = mem_calloc(1, sizeof *s);
  uint64_t pool = pool_floats(shape, limits);
  size_t table = (size_t)shape->context * (shape->rot / 2);
  *out = NULL;
  if (!s || pool > SIZE_MAX / sizeof(float)) {
    mem_free(s);
    return no_memory(err);
  }
  s->shape = *shape;
  s->head_floats = (size_t)ENGINE_BLOCK_TOKENS * shape->head_dim;
  s->layer_floats = (size_t)(pool / shape->layers);
  s->key = mem_calloc((size_t)pool, sizeof(float));
  s->value = mem_calloc((size_t)pool, sizeof(float));
  s->cosine = mem_calloc(table, sizeof(float));
  s->sine = mem_calloc(table, sizeof(float));
  s->weight = mem_calloc(widest(shape), sizeof(float));
  s->score = mem_calloc(shape->context, sizeof(float));
  if (!s->key || !s->value || !s->cosine || !s->sine || !s->weight
      || !s->score) {
    state_free(s);
    return no_memory(err);
  }
  fill_rope(s);
  *out = s;
  return DROVER_OK;
}


static void step_begin(struct engine_state *s, const struct engine_rows *rows) {
  s->rows = rows;
}


static int step_end(struct engine_state *s, drover_err *err) {
  (void)err;                        /* nothing here fails */
  s->rows = NULL;
  return DROVER_OK;
}


/* ---- the ops ---- */

static void embed(struct engine_state *s, struct engine_buffer *x,
                  const struct engine_weight *w) {
  for (int r = 0; r < s->rows->rows; r++) {
    const unsigned char *row = w->bytes
      + (size_t)s->rows->token[r] * w->row_bytes;
    engine_quant_row(w->type, row, w->cols, row_of(x, (uint32_t)r));
  }
}


static void norm_row(float *to, const float *x, const float *gain, uint32_t n,
                     float eps) {
  float scale = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
  for (uint32_t i = 0; i < n; i++)
    to[i] = x[i] * scale * gain[i];
}


static void norm(struct engine_state *s, struct engine_buffer *act,
                 struct engine_buffer *x, const struct engine_buffer *add,
                 const struct engine_weight *gain) {
  const float *g = (const float *)(const void *)gain->bytes;
  for (uint32_t r = 0; r < (uint32_t)s->rows->rows; r++) {
    float *row = row_of(x, r);
    const float *more = add ? row_of(add, r) : NULL;
    for (uint32_t i = 0; more && i < x->width; i++)
      row[i] += more[i];
    norm_row(row_of(act, r), row, g, x->width, s->shape.eps);
  }
}


static void multiply(struct engine_state *s, struct engine_buffer *y,
                     uint32_t at, const struct engine_buffer *act,
                     const struct engine_weight *w, uint32_t rows) {
  for (uint32_t o = 0; o < w->rows; o++) {
    const float *row = weight_row(w, o, s->weight);
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
                   const struct engine_weight *w) {
  multiply(s, y, at, act, w, (uint32_t)s->rows->rows);
}


static void logits(struct engine_state *s, struct engine_buffer *y,
                   const struct engine_buffer *act,
                   const struct engine_weight *w) {
  multiply(s, y, 0, act, w, (uint32_t)s->rows->outs);
}


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


static void qkv_store(struct engine_state *s, uint32_t layer,
                      struct engine_buffer *qkv) {
  const struct engine_rows *rows = s->rows;
  for (int seq = 0; seq < rows->seqs; seq++)
    for (int r = rows->seq_start[seq]; r < rows->seq_start[seq + 1]; r++)
      store_row(s, layer, seq, rows->pos[r], row_of(qkv, (uint32_t)r));
}


/* One query head over positions 0..pos. */
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


static void attention(struct engine_state *s, struct engine_buffer *act,
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


static void glu(struct engine_state *s, struct engine_buffer *act,
                const struct engine_buffer *gu) {
  uint32_t ff = s->shape.ff;
  for (uint32_t r = 0; r < (uint32_t)s->rows->rows; r++) {
    const float *gate = row_of(gu, r), *up = gate + ff;
    float *to = row_of(act, r);
    for (uint32_t i = 0; i < ff; i++)
      to[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
  }
}


static void gather_norm(struct engine_state *s, struct engine_buffer *act,
                        const struct engine_buffer *x,
                        const struct engine_buffer *add,
                        const struct engine_weight *gain) {
  const float *g = (const float *)(const void *)gain->bytes;
  for (int o = 0; o < s->rows->outs; o++) {
    uint32_t r = (uint32_t)s->rows->out_row[o];
    float *row = row_of(x, r);
    const float *more = row_of(add, r);
    for (uint32_t i = 0; i < x->width; i++)
      row[i] += more[i];
    norm_row(row_of(act, (uint32_t)o), row, g, x->width, s->shape.eps);
  }
}


const struct engine_backend engine_cpu_plain = {
  .name = "cpu", .invariant = 1,
  .weight_new = weight_new, .weight_free = weight_free,
  .buffer_new = buffer_new, .buffer_free = buffer_free,
  .upload = upload, .read = read_row,
  .state_bytes = state_bytes, .state_new = state_new,
  .state_free = state_free,
  .step_begin = step_begin, .step_end = step_end,
  .embed = embed, .norm = norm, .matmul = matmul, .qkv_store = qkv_store,
  .attention = attention, .glu = glu, .gather_norm = gather_norm,
  .logits = logits,
};
