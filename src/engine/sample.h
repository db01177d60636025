/* sample: one token out of a row of logits. Pure: chance is a function of
 * (seed, position in the reply, token), so a draw depends on no batch, no
 * order of calls and no preemption.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SAMPLE_H
#define DROVER_ENGINE_SAMPLE_H

#include <stdint.h>

#include "../drover.h"

struct engine_draw {
  float    temperature;             /* 0: the best, the lowest of equals */
  uint32_t top_k;                   /* 0: off */
  float    top_p;                   /* in (0, 1]; 1: off */
  uint64_t seed, position;          /* position: of the token in the reply */
};

struct engine_candidate { float logit; int32_t id; };


/* Draw a token, 0..count-1. `scratch` has room for `count`. Temperature, then
 * top-k, then top-p over what top-k kept, then the draw. DROVER_EINTERNAL
 * when a logit is NaN or +infinite. */
int engine_sample(const float *logits, uint32_t count,
                  const struct engine_draw *draw,
                  struct engine_candidate *scratch, int32_t *id,
                  drover_err *err);


/* The natural log-probability of one token, before any of the above. */
double engine_sample_logprob(const float *logits, uint32_t count, int32_t id);

#endif
