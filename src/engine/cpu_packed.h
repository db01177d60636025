/* cpu_packed: what the files of the packed backend share.
 *
 * Weights are tiles (cpu_tile.h), activations are floats and beside them, as
 * the last op has left them, int8 in blocks of 32. Products are put off until
 * an op needs them, so that those with the same input (q, k and v; gate and up)
 * are one phase of the pool:
 *
 *   norm (the caller, or a phase)   qkv   store (the same)   attention
 *   output   norm   gate, up and their unit   down
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CPU_PACKED_H
#define DROVER_ENGINE_CPU_PACKED_H

#include "backend.h"
#include "cpu_pool.h"
#include "cpu_tile.h"

enum { PENDING_MAX = 4, MOE_ROWS = 8 };

struct engine_buffer {              /* activations */
  uint32_t rows, width;
  uint32_t version;                 /* of what it holds: each write adds */
  float   *at;                      /* owned; [rows][width] */
};

struct packed_quant {               /* a buffer's rows as int8 */
  const struct engine_buffer *of;   /* NULL: nothing is here */
  uint32_t version, rows, cols;
  int8_t  *q;                       /* owned; [rows][cols] */
  struct engine_act *act;           /* owned; [rows][cols / 32] */
};

struct packed_mix {                 /* scratch of a mixture: MOE_ROWS rows */
  uint32_t *chosen;                 /* [rows][used] */
  float    *share;                  /* [rows][used] */
  float    *hidden;                 /* [rows][used][2 ff] */
  int8_t   *q;                      /* [rows][used][ff] */
  struct engine_act *act;           /* [rows][used][ff / 32] */
  float    *out;                    /* [rows][used][width] */
  float    *score;                  /* [rows][experts] */
};

struct engine_state {
  struct engine_shape shape;        /* with the context that is wanted */
  const struct engine_isa *isa;
  struct engine_pool *pool;         /* owned */
  const struct engine_rows *rows;   /* of the step */
  int32_t *seq_of;                  /* [limits.rows] a row's sequence */
  int      halves;                  /* keys and values are halves */
  /* [layer][block][kv head]: keys as [head_dim][16], values [16][head_dim]. */
  unsigned char *key, *value;
  size_t head_bytes, layer_bytes;   /* of one head's block; of one layer */
  float *cosine[2], *sine[2];       /* as in cpu.h */
  struct packed_quant quant[2];     /* the one in use, and the next */
  int      now;                     /* which is in use */
  struct engine_product pending[PENDING_MAX];
  uint32_t pendings;
  float   *scratch;                 /* [threads][scratch_floats] */
  size_t   scratch_floats;
  struct packed_mix mix;
};


static inline const struct engine_tiles *tiles_of(
    const struct engine_weight *w) {
  return (const void *)w;
}


/* Of a vector: those are of one row, and never packed. */
static inline const float *floats_of(const struct engine_weight *w) {
  return w ? (const float *)(const void *)tiles_of(w)->bytes : NULL;
}


static inline float *row_of(const struct engine_buffer *b, uint32_t row) {
  return b->at + (size_t)row * b->width;
}


/* ---- cpu_packed_ops.c ---- */

/* fn(ctx, row, thread) for `rows` rows of `floats` floats each: by the
 * caller, or by all when it is worth a phase. */
void engine_packed_rows(struct engine_state *s, uint32_t rows, uint32_t floats,
                        engine_chunk_fn fn, void *ctx);


/* Row r of `b`, quantised into the state, if its length allows that; the
 * first call for a buffer is engine_packed_fresh(). */
void engine_packed_fresh(struct engine_state *s, const struct engine_buffer *b,
                         uint32_t rows, uint32_t cols);
void engine_packed_quantise(struct engine_state *s,
                            const struct engine_buffer *b, uint32_t r);


/* Compute what was put off. */
void engine_packed_flush(struct engine_state *s);


/* A part of a product: the weight's rows first … end. */
void engine_packed_part(const struct engine_isa *isa,
                        const struct engine_product *p, uint32_t first,
                        uint32_t end);


/* The product of `w` with the rows of a buffer, which are quantised now if
 * they are not. */
struct engine_product engine_packed_product(struct engine_state *s,
                                            const struct engine_linear *w,
                                            const struct engine_buffer *act,
                                            uint32_t rows);


void engine_packed_embed(struct engine_state *s, struct engine_buffer *x,
                         const struct engine_weight *w);
void engine_packed_norm(struct engine_state *s, struct engine_buffer *act,
                        struct engine_buffer *x,
                        const struct engine_buffer *add,
                        const struct engine_weight *gain);
void engine_packed_norm_own(struct engine_state *s, struct engine_buffer *y,
                            const struct engine_weight *gain);
void engine_packed_gather(struct engine_state *s, struct engine_buffer *act,
                          const struct engine_buffer *x,
                          const struct engine_buffer *add,
                          const struct engine_weight *gain);
void engine_packed_matmul(struct engine_state *s, struct engine_buffer *y,
                          uint32_t at, const struct engine_buffer *act,
                          const struct engine_linear *w);
void engine_packed_glu(struct engine_state *s, struct engine_buffer *act,
                       const struct engine_buffer *gu);
void engine_packed_logits(struct engine_state *s, struct engine_buffer *y,
                          const struct engine_buffer *act,
                          const struct engine_weight *w);

/* ---- cpu_packed_attn.c ---- */

void engine_packed_store(struct engine_state *s, uint32_t layer,
                         struct engine_buffer *qkv,
                         const struct engine_weight *q_gain,
                         const struct engine_weight *k_gain);
void engine_packed_attention(struct engine_state *s, struct engine_buffer *act,
                             uint32_t layer, const struct engine_buffer *qkv,
                             const struct engine_weight *sinks);

/* ---- cpu_packed_moe.c ---- */

void engine_packed_moe(struct engine_state *s, struct engine_buffer *y,
                       const struct engine_buffer *act,
                       const struct engine_experts *e);

#endif
