/* shape: a model's hyper-parameters out of a file's keys.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SHAPE_H
#define DROVER_ENGINE_SHAPE_H

#include "backend.h"
#include "gguf.h"

enum { ENGINE_LAYERS_MAX = 512, ENGINE_CONTEXT_MAX = 1 << 22 };


/* Check that the file is a llama as it is built here, and read all of its
 * shape but `vocab` and `rope_divisor`. DROVER_EFORMAT names the key. */
int engine_shape_read(struct engine_shape *s, const struct engine_gguf *g,
                      drover_err *err);

#endif
