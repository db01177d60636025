/* shape: a model's hyper-parameters out of a file's keys.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SHAPE_H
#define DROVER_ENGINE_SHAPE_H

#include "backend.h"
#include "gguf.h"

enum { ENGINE_LAYERS_MAX = 512, ENGINE_CONTEXT_MAX = 1 << 22,
       ENGINE_EXPERTS_MAX = 1024 };

struct engine_shape_more {          /* what is in no engine_shape */
  uint32_t longrope;                /* 1: the turns are divided by one of two
                                     * tensors … */
  uint32_t original_context;        /* … the long one's past this */
  uint32_t window_every;            /* see engine_arch.window */
};


/* Read all of a shape but `vocab`, `windowed` and the ropes' divisors.
 * DROVER_EFORMAT names the key. */
int engine_shape_read(struct engine_shape *s, struct engine_shape_more *more,
                      const struct engine_gguf *g, drover_err *err);


/* 1 when a layer sees its window only: by the file's list, or the pattern. */
int engine_shape_windowed(const struct engine_shape_more *more, uint32_t layer,
                          const struct engine_gguf_key *list);


/* The file's list of windowed layers, or NULL. */
const struct engine_gguf_key *engine_shape_window_list(
  const struct engine_shape *s, const struct engine_gguf *g);

#endif
