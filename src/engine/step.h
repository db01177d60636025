/* step: the forward pass, written once against the hatch (backend.h).
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_STEP_H
#define DROVER_ENGINE_STEP_H

#include "backend.h"
#include "model.h"

struct engine_step {                /* scratch of one engine; one thread */
  const struct engine_model *model; /* borrowed */
  const struct engine_backend *backend;
  struct engine_state *state;       /* pool and the backend's own scratch */
  struct engine_buffer *x;          /* the residual stream */
  struct engine_buffer *act;        /* input of the next matmul */
  struct engine_buffer *y;          /* output that is not added to x yet */
  struct engine_buffer *qkv, *gu;   /* heads of q, k, v; gate and up */
  struct engine_buffer *logits;     /* [outs][vocab] */
};


/* Bytes that engine_step_init will take; UINT64_MAX past 2^64. */
uint64_t engine_step_bytes(const struct engine_backend *backend,
                           const struct engine_shape *shape,
                           const struct engine_limits *limits);


/* `shape` is the model's, with the context that is wanted. */
int engine_step_init(struct engine_step *s, const struct engine_model *m,
                     const struct engine_shape *shape,
                     const struct engine_limits *limits, drover_err *err);
void engine_step_deinit(struct engine_step *s);     /* half-built too */


/* Run one step's rows, up to the last norm of its outs: engine_step_state, of
 * out o until the next step. They may be as many as the rows. */
int engine_step_states(struct engine_step *s, const struct engine_rows *rows,
                       drover_err *err);
const float *engine_step_state(struct engine_step *s, int out);


/* Run one step's rows. Logits of out o: engine_step_logits, until the next. */
int engine_step_run(struct engine_step *s, const struct engine_rows *rows,
                    drover_err *err);
const float *engine_step_logits(struct engine_step *s, int out);

#endif
