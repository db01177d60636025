/* texts: a model file's vocabulary and template without its weights: see
 * drover_engine.h.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_TEXTS_H
#define DROVER_TEXTS_H

#include "engine/gguf.h"
#include "engine/vocab.h"

struct drover_model {
  const struct engine_vocab *vocab;
  struct engine_vocab *own;         /* the same; NULL: an engine's */
  struct engine_gguf *file;         /* NULL: an engine's */
};

#endif
