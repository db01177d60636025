/* backend: the hatch between a model and what multiplies for it.
 *
 * A backend is one struct of functions over things of its own: weights,
 * buffers, and a state (KV pool and scratch) that one thread drives, op by
 * op, through a step. step.c is written once against these ops; cpu_plain.c
 * says what they must compute.
 *
 *   step_begin  embed  L x (norm matmul* qkv_store attention matmul
 *               norm matmul* glu matmul)  gather_norm  logits  step_end
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

enum { ENGINE_BLOCK_TOKENS = 16 };  /* positions in a KV block */

struct engine_weight;               /* a matrix or a vector, on the device */
struct engine_buffer;
struct engine_state;

struct engine_weight_from {         /* bytes come in pieces, in order */
  uint32_t type;                    /* of quant.h */
  uint32_t cols, rows;              /* maps `cols` inputs to `rows` outputs */
  int    (*read)(void *ctx, uint64_t from, void *to, size_t size,
                 drover_err *err);
  void    *ctx;
};

struct engine_shape {               /* of a model; all are 1 or more */
  uint32_t layers;
  uint32_t width;                   /* floats of the residual stream */
  uint32_t heads, kv_heads;         /* kv_heads divides heads */
  uint32_t head_dim;                /* floats of one head of q, k or v */
  uint32_t ff;                      /* floats of the hidden layer */
  uint32_t vocab;                   /* tokens */
  uint32_t rot;                     /* dimensions of a head that rotate */
  uint32_t context;                 /* positions that occur */
  float    eps;                     /* of the norms */
  double   rope_base, rope_scale;   /* angle = pos * scale * base^(-2i/rot) */
  const float *rope_divisor;        /* [rot / 2] over the angle; or NULL */
};

struct engine_limits {
  uint32_t rows;                    /* of a step */
  uint32_t outs;                    /* rows of a step whose logits are wanted */
  uint32_t blocks;                  /* of the KV pool */
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

  int (*weight_new)(struct engine_weight **out,
                    const struct engine_weight_from *from, drover_err *err);
  void (*weight_free)(struct engine_weight *w);       /* takes NULL */

  int (*buffer_new)(struct engine_buffer **out, uint32_t rows, uint32_t width,
                    drover_err *err);
  void (*buffer_free)(struct engine_buffer *b);       /* takes NULL */
  void (*upload)(struct engine_buffer *b, const float *from, size_t count);

  /* Row r of a buffer, in host memory; holds until the next step_begin. */
  const float *(*read)(struct engine_buffer *b, uint32_t row);

  /* Bytes that state_new will take; UINT64_MAX past 2^64. */
  uint64_t (*state_bytes)(const struct engine_shape *shape,
                          const struct engine_limits *limits);
  int (*state_new)(struct engine_state **out, const struct engine_shape *shape,
                   const struct engine_limits *limits, drover_err *err);
  void (*state_free)(struct engine_state *s);         /* takes NULL */

  void (*step_begin)(struct engine_state *s, const struct engine_rows *rows);
  int (*step_end)(struct engine_state *s, drover_err *err);

  /* x[r] = row token[r] of w. */
  void (*embed)(struct engine_state *s, struct engine_buffer *x,
                const struct engine_weight *w);

  /* x += add (if not NULL); act = x / rms(x) * gain. */
  void (*norm)(struct engine_state *s, struct engine_buffer *act,
               struct engine_buffer *x, const struct engine_buffer *add,
               const struct engine_weight *gain);

  /* y[r][at .. at+out) = w * act[r]; y is not act. */
  void (*matmul)(struct engine_state *s, struct engine_buffer *y, uint32_t at,
                 const struct engine_buffer *act,
                 const struct engine_weight *w);

  /* qkv[r] = heads of q, of k, of v. Rotate q and k by pos (neighbouring
   * pairs), put k and v into the KV pool. Before any row attends. */
  void (*qkv_store)(struct engine_state *s, uint32_t layer,
                    struct engine_buffer *qkv);

  /* act[r] = softmax(q k / sqrt(head_dim)) v over positions 0..pos. */
  void (*attention)(struct engine_state *s, struct engine_buffer *act,
                    uint32_t layer, const struct engine_buffer *qkv);

  /* gu[r] = gate, up: act = silu(gate) * up. */
  void (*glu)(struct engine_state *s, struct engine_buffer *act,
              const struct engine_buffer *gu);

  /* act[o] = norm of (x + add)[out_row[o]]. */
  void (*gather_norm)(struct engine_state *s, struct engine_buffer *act,
                      const struct engine_buffer *x,
                      const struct engine_buffer *add,
                      const struct engine_weight *gain);

  /* y[o] = w * act[o], for the step's outs. */
  void (*logits)(struct engine_state *s, struct engine_buffer *y,
                 const struct engine_buffer *act,
                 const struct engine_weight *w);
};


/* The backend of a device's name (NULL: "cpu"); DROVER_EINVAL when there is
 * none such. */
int engine_backend_find(const struct engine_backend **out, const char *device,
                        drover_err *err);


/* cpu_plain.c */
extern const struct engine_backend engine_cpu_plain;

#endif
