/* model: a GGUF file as weights on a backend, a vocabulary and a template.
 *
 * Every hyper-parameter has a range, every tensor a shape that follows from
 * them and from the architecture's row (arch.h), and a tensor that is not in
 * that list is refused, because an ignored one is a silent wrong answer. Read-only once
 * loaded.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_MODEL_H
#define DROVER_ENGINE_MODEL_H

#include <stdint.h>

#include "backend.h"
#include "chat.h"
#include "gguf.h"
#include "mask.h"
#include "shape.h"
#include "vocab.h"

/* Weights of one layer, owned by the model; NULL where the file has none (see
 * arch.h). Norms, biases and sinks are vectors of floats, the others matrices
 * of any type. */
struct engine_layer {
  struct engine_weight *attn_norm, *q_norm, *k_norm, *sinks, *attn_post;
  struct engine_weight *ffn_norm, *ffn_post;
  struct engine_linear qkv, q, k, v, attn_output;
  struct engine_linear gate, up, down;
  struct engine_experts moe;
};

struct engine_model {
  const struct engine_backend *backend;
  struct engine_shape shape;        /* context: the file's; see
                                     * engine_model_context() */
  struct engine_vocab *vocab;
  struct engine_trie *trie;         /* of it, for grammars; once loaded */
  enum engine_chat chat;
  struct engine_weight *embed, *output_norm;
  struct engine_weight *output;     /* NULL: tied to embed */
  struct engine_layer *layer;       /* [shape.layers] */
  struct engine_shape_more more;
  float   *rope_divisor[3];         /* [rot / 2] or NULL: plain; longrope's */
  unsigned char *windowed;          /* [shape.layers]; in shape too */
  char     name[128];               /* general.name, printable, or "" */
  uint64_t parameters;              /* elements of all tensors */
  uint64_t file_bytes;
  uint64_t weight_bytes;            /* of all on the backend; once weighed */
};


/* Check the file's keys and tensors and load the vocabulary: no weights yet,
 * so that the sizes are known before memory is taken. */
int engine_model_new(struct engine_model **out, const struct engine_gguf *g,
                     drover_err *err);


/* The model's shape for a context that is wanted; it points into the model. */
void engine_model_context(const struct engine_model *m, uint32_t context,
                          struct engine_shape *shape);


/* How many bytes the weights will take on a backend: `weight_bytes`. */
int engine_model_weigh(struct engine_model *m, const struct engine_gguf *g,
                       const struct engine_backend *backend, drover_err *err);


/* Copy the weights onto a backend. Once. */
int engine_model_load(struct engine_model *m, const struct engine_gguf *g,
                      const struct engine_backend *backend, drover_err *err);


void engine_model_free(struct engine_model *m);     /* takes NULL */

#endif
