/* cpu: what the files of the plain backend share: its things, and the one
 * way to sum.
 *
 * Every sum has one order, fixed by its length alone: eight partial sums,
 * element i into sum i mod 8, then a tree over the eight. So a row's bits
 * depend neither on its neighbours nor on how wide a machine's vectors are.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CPU_H
#define DROVER_ENGINE_CPU_H

#include <string.h>

#include "backend.h"
#include "cpu_math.h"

enum { LANES = 8, TILE = 4 };       /* partial sums; rows that share a pass */

struct heads {                      /* of a row's query: those of one kv head */
  uint32_t layer;
  int      seq;
  int32_t  first, pos;              /* what they see, the last included */
  uint32_t group, share;            /* their kv head; how many they are */
  const float *sink;                /* [share]; or NULL */
};

struct engine_weight {              /* rows as the file has them; experts' one
                                     * behind another */
  uint32_t type, cols, rows;
  size_t row_bytes;                 /* of one row, blocks and scales */
  unsigned char *bytes;             /* owned; [rows][row_bytes] */
};

struct engine_buffer {              /* activations */
  uint32_t rows, width;
  float *at;                        /* owned; [rows][width] */
};

struct engine_state {
  struct engine_shape shape;        /* with the context that is wanted */
  const struct engine_rows *rows;   /* of the step */
  uint32_t kv;                      /* enum drover_kv */
  unsigned char *key, *value;       /* [layer][block][kv head][16] vectors */
  size_t vector_bytes;              /* of one head at one position */
  size_t head_bytes, layer_bytes;   /* of one head's block; of one layer */
  /* [context][rot / 2]: of the full layers, of the windowed ones; where they
   * turn alike the second is the first. */
  float *cosine[2], *sine[2];
  float *weight;                    /* one dequantised row */
  float *score;                     /* [heads that share][context] */
  float *vector;                    /* [head_dim] a key or a value */
  float *most;                      /* [heads that share] scores; [same] sums */
  float *hidden;                    /* [2 ff] of one expert, then [width] */
  float *share;                     /* [experts] of one row */
};

/* ---- sums ---- */

/* Four floats as one value, which gcc and clang map onto any machine's
 * vectors: the lanes' sums stay apart, so the order of adds is as written. */
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));


static inline four four_at(const float *p) {
  return *(const four *)p;
}


/* Halves, quarters, pairs: what a vector of eight sums folds to by adding its
 * upper half to its lower one, so wider backends can give the same bits. */
static inline float tree(const float *s) {
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}


/* Add what is left behind element i, and the eight sums. */
static inline float close_sum(four low, four high, const float *a,
                              const float *b, uint32_t i, uint32_t n) {
  float s[LANES];
  memcpy(s, &low, sizeof low);
  memcpy(s + 4, &high, sizeof high);
  for (; i < n; i++)
    s[i % LANES] += a[i] * b[i];
  return tree(s);
}


/* No fused multiply-add: one on some machines only would change the bits there
 * (gcc's -std=c11 contracts nothing by itself). */
static inline float dot(const float *a, const float *b, uint32_t n) {
  four low = { 0 }, high = { 0 };
  uint32_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    low += four_at(a + i) * four_at(b + i);
    high += four_at(a + i + 4) * four_at(b + i + 4);
  }
  return close_sum(low, high, a, b, i, n);
}


static inline float *row_of(const struct engine_buffer *b, uint32_t row) {
  return b->at + (size_t)row * b->width;
}


static inline const float *floats_of(const struct engine_weight *w) {
  return (const float *)(const void *)w->bytes;
}


/* cpu_plain.c: row r of a weight as floats, in place or made in `scratch`. */
const float *engine_cpu_weight_row(const struct engine_weight *w, uint32_t r,
                                   float *scratch);


/* cpu_glu.c: act(gate) * up, and the mixture of experts. */
void engine_cpu_glu_row(const struct engine_shape *shape, const float *gate,
                        const float *up, float *to);
void engine_cpu_moe(struct engine_state *s, struct engine_buffer *y,
                    const struct engine_buffer *act,
                    const struct engine_experts *e);


/* cpu_kv.c: a head's key or value at one position into the pool and out of
 * it again (in place, or made in `scratch`), the bytes it takes there, and
 * copies of blocks. */
size_t engine_cpu_kv_bytes(uint32_t kv, uint32_t dim);
void engine_cpu_kv_store(uint32_t kv, const float *from, uint32_t dim,
                         unsigned char *to);
const float *engine_cpu_kv_load(uint32_t kv, const unsigned char *from,
                                uint32_t dim, float *scratch);
void engine_cpu_kv_copy(struct engine_state *s, const int32_t *from,
                        const int32_t *to, int count);


/* cpu_attn.c: the two ops that know positions (see backend.h), and the table
 * of angles that the first of them reads. */
void engine_cpu_rope(struct engine_state *s);
void engine_cpu_qkv_store(struct engine_state *s, uint32_t layer,
                          struct engine_buffer *qkv,
                          const struct engine_weight *q_gain,
                          const struct engine_weight *k_gain);
void engine_cpu_attention(struct engine_state *s, struct engine_buffer *act,
                          uint32_t layer, const struct engine_buffer *qkv,
                          const struct engine_weight *sinks);

#endif
