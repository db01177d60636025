/* backend: the hatch between a model and what multiplies for it.
 *
 * A backend is one struct of functions over things of its own: weights,
 * buffers, and a state (KV pool and scratch) that one thread drives, op by
 * op, through a step. step.c is written once against these ops; cpu_plain.c
 * says what they must compute.
 *
 *   step_begin  embed
 *   L x (norm matmul* qkv_store attention matmul norm_own?
 *        norm (matmul* glu matmul | moe) norm_own?)
 *   gather_norm  logits  step_end
 *
 * Buffers are [rows][width] floats; ops read and write the step's rows from
 * the top. No op allocates. Faults of a device come out of step_end. With
 * `invariant`, a row's result has the same bits whatever other rows stand in
 * the step, and however a sequence is cut into steps.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_BACKEND_H
#define DROVER_ENGINE_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"
#include "arch.h"

enum { ENGINE_BLOCK_TOKENS = 16 };  /* positions in a KV block */

struct engine_weight;               /* a matrix or a vector, on the device */
struct engine_buffer;
struct engine_state;

struct engine_linear {              /* a product's matrix and bias */
  struct engine_weight *w;
  struct engine_weight *bias;       /* [rows] floats, or NULL */
};

struct engine_experts {             /* of one layer; biases may be NULL */
  struct engine_linear router;      /* width -> experts */
  struct engine_linear gate, up;    /* width -> ff, `experts` times */
  struct engine_linear down;        /* ff -> width, `experts` times */
};

struct engine_weight_from {         /* bytes come in pieces, in order */
  uint32_t type;                    /* of quant.h */
  uint32_t cols, rows;              /* maps `cols` inputs to `rows` outputs;
                                     * experts' rows lie one behind another */
  int    (*read)(void *ctx, uint64_t from, void *to, size_t size,
                 drover_err *err);
  void    *ctx;
};

struct engine_rope {                /* how heads turn with their position */
  double base;                      /* angle = pos * base^(-2i/rot) … */
  double scale;                     /* … times this, and … */
  const float *divisor;             /* [rot / 2] … divided by this; or NULL */
  /* yarn (Peng et al. 2023): pairs up to `low` are not scaled, from `high` on
   * they are, with a ramp between; 0, 0: all are. */
  float low, high;
  float stretch;                    /* of cosine and sine; 1 */
};

struct engine_shape {               /* of a model; counts are 1 or more */
  const struct engine_arch *arch;
  uint32_t parts;                   /* of arch.h: what this file has */
  uint32_t layers;
  uint32_t width;                   /* floats of the residual stream */
  uint32_t heads, kv_heads;         /* kv_heads divides heads */
  uint32_t head_dim;                /* floats of one head of q, k or v */
  uint32_t ff;                      /* floats of a hidden layer */
  uint32_t vocab;                   /* tokens */
  uint32_t rot;                     /* dimensions of a head that rotate */
  uint32_t context;                 /* positions that occur */
  uint32_t experts, used;           /* of each layer, of each token; 0: dense */
  uint32_t window;                  /* keys that a windowed layer sees; 0: all */
  const unsigned char *windowed;    /* [layers] 1: it is; or NULL */
  float    eps;                     /* of the norms */
  float    score_scale;             /* of q k */
  float    score_cap, logit_cap;    /* cap * tanh(x / cap); 0: none */
  float    embed_scale, residual_scale, logit_scale;
  float    expert_scale;            /* of the experts' shares */
  struct engine_rope rope, rope_local;        /* local: of windowed layers */
};

struct engine_limits {
  uint32_t rows;                    /* of a step */
  uint32_t outs;                    /* rows of a step whose logits are wanted */
  uint32_t blocks;                  /* of the KV pool */
  uint32_t threads;                 /* that compute; 0: all cores */
  uint32_t kv;                      /* what it holds: enum drover_kv */
};

struct engine_rows {                /* one step; valid until step_end returns */
  int rows, seqs, outs;
  const int32_t *token;             /* [rows] */
  const int32_t *pos;               /* [rows] position in its sequence */
  const int32_t *seq_start;         /* [seqs + 1] a sequence's first row; its
                                     * positions ascend without gaps */
  const int32_t *block;             /* [seqs][block_ld] KV blocks, from 0 */
  int block_ld;
  const int32_t *out_row;           /* [outs] ascending */
};

struct engine_backend {
  const char *name;
  int invariant;
  uint32_t knee;                    /* rows of a step up to which one more
                                     * costs much less than its share */

  int (*weight_new)(struct engine_weight **out,
                    const struct engine_weight_from *from, drover_err *err);
  void (*weight_free)(struct engine_weight *w);       /* takes NULL */

  /* Bytes that weight_new will take; UINT64_MAX past 2^64. Reads nothing. */
  uint64_t (*weight_bytes)(const struct engine_weight_from *from);

  int (*buffer_new)(struct engine_buffer **out, uint32_t rows, uint32_t width,
                    drover_err *err);
  void (*buffer_free)(struct engine_buffer *b);       /* takes NULL */
  void (*upload)(struct engine_buffer *b, const float *from, size_t count);

  /* Row r of a buffer, in host memory: what a step has left there, behind its
   * step_end. Holds until the next step_begin. */
  const float *(*read)(struct engine_buffer *b, uint32_t row);

  /* Bytes that state_new will take; UINT64_MAX past 2^64. */
  uint64_t (*state_bytes)(const struct engine_shape *shape,
                          const struct engine_limits *limits);
  int (*state_new)(struct engine_state **out, const struct engine_shape *shape,
                   const struct engine_limits *limits, drover_err *err);
  void (*state_free)(struct engine_state *s);         /* takes NULL */

  void (*step_begin)(struct engine_state *s, const struct engine_rows *rows);
  int (*step_end)(struct engine_state *s, drover_err *err);

  /* Block to[i] of the KV pool = block from[i], in all layers. Between steps;
   * no block is in both lists. */
  void (*kv_copy)(struct engine_state *s, const int32_t *from,
                  const int32_t *to, int count);

  /* x[r] = row token[r] of w, times embed_scale. */
  void (*embed)(struct engine_state *s, struct engine_buffer *x,
                const struct engine_weight *w);

  /* x += add * residual_scale (if add is not NULL); act = x / rms(x) * gain,
   * or x itself where gain is NULL. */
  void (*norm)(struct engine_state *s, struct engine_buffer *act,
               struct engine_buffer *x, const struct engine_buffer *add,
               const struct engine_weight *gain);

  /* y = y / rms(y) * gain. */
  void (*norm_own)(struct engine_state *s, struct engine_buffer *y,
                   const struct engine_weight *gain);

  /* y[r][at .. at+out) = w * act[r] + bias (if not NULL); y is not act. */
  void (*matmul)(struct engine_state *s, struct engine_buffer *y, uint32_t at,
                 const struct engine_buffer *act,
                 const struct engine_linear *w);

  /* qkv[r] = heads of q, of k, of v. Norm q and k by the gains (if not NULL),
   * rotate both by pos, put k and v into the KV pool. Before any row attends. */
  void (*qkv_store)(struct engine_state *s, uint32_t layer,
                    struct engine_buffer *qkv,
                    const struct engine_weight *q_gain,
                    const struct engine_weight *k_gain);

  /* act[r] = softmax(cap(q k * score_scale)) v over the positions that the
   * layer sees; `sinks` (or NULL): a score a head that has no value. */
  void (*attention)(struct engine_state *s, struct engine_buffer *act,
                    uint32_t layer, const struct engine_buffer *qkv,
                    const struct engine_weight *sinks);

  /* gu[r] = gate, up: act = f(gate) * up, f the architecture's. */
  void (*glu)(struct engine_state *s, struct engine_buffer *act,
              const struct engine_buffer *gu);

  /* y[r] = the sum over the `used` best experts of act[r], by their shares. */
  void (*moe)(struct engine_state *s, struct engine_buffer *y,
              const struct engine_buffer *act, const struct engine_experts *e);

  /* act[o] = norm of (x + add * residual_scale)[out_row[o]]. A step that wants
   * no logits may have more outs than the limit, up to its rows. */
  void (*gather_norm)(struct engine_state *s, struct engine_buffer *act,
                      const struct engine_buffer *x,
                      const struct engine_buffer *add,
                      const struct engine_weight *gain);

  /* y[o] = cap(w * act[o] * logit_scale), for the step's outs. */
  void (*logits)(struct engine_state *s, struct engine_buffer *y,
                 const struct engine_buffer *act,
                 const struct engine_weight *w);
};


/* The backend of a device's name (NULL: "cpu"; "cpu_plain" is what that is
 * checked against) for such a cache (enum drover_kv): the packed one keeps none
 * of bytes, there "cpu" is the plain one too. DROVER_EINVAL when there is none
 * of the name. */
int engine_backend_find(const struct engine_backend **out, const char *device,
                        uint32_t kv, drover_err *err);


/* cpu_plain.c, cpu_packed.c */
extern const struct engine_backend engine_cpu_plain, engine_cpu_packed;

#endif
