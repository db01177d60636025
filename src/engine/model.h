/* model: a GGUF file as weights on a backend, a vocabulary and a template.
 *
 * Architecture `llama` alone. Every hyper-parameter has a range, every tensor
 * a shape that follows from them, and a tensor that is not in that list is
 * refused, because an ignored one is a silent wrong answer. Read-only once
 * loaded.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_MODEL_H
#define DROVER_ENGINE_MODEL_H

#include <stdint.h>

#include "backend.h"
#include "chat.h"
#include "gguf.h"
#include "vocab.h"

/* Weights of one layer, owned by the model, in the order in which a step uses
 * them. Norms are vectors of floats, the others matrices of any type. */
struct engine_layer {
  struct engine_weight *attn_norm, *q, *k, *v, *attn_output;
  struct engine_weight *ffn_norm, *gate, *up, *down;
};

struct engine_model {
  const struct engine_backend *backend;
  struct engine_shape shape;        /* context: the file's */
  struct engine_vocab *vocab;
  enum engine_chat chat;
  struct engine_weight *embed, *output_norm;
  struct engine_weight *output;     /* NULL: tied to embed */
  struct engine_layer *layer;       /* [shape.layers] */
  float   *rope_divisor;            /* [rot / 2] or NULL */
  char     name[128];               /* general.name, printable, or "" */
  uint64_t parameters;              /* elements of all tensors */
  uint64_t file_bytes;
  uint64_t weight_bytes;            /* of all tensors */
};


/* Check the file's keys and tensors and load the vocabulary: no weights yet,
 * so that the sizes are known before memory is taken. */
int engine_model_new(struct engine_model **out, const struct engine_gguf *g,
                     drover_err *err);


/* Copy the weights onto a backend. Once. */
int engine_model_load(struct engine_model *m, const struct engine_gguf *g,
                      const struct engine_backend *backend, drover_err *err);


void engine_model_free(struct engine_model *m);     /* takes NULL */

#endif
