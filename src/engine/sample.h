/* sample: one token out of a row of logits. Pure: chance is a function of
 * (seed, position in the reply, token), so a draw depends on no batch, no
 * order of calls and no preemption. What a request does to logits before the
 * draw is choose.h's.
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
  float    min_p;                   /* in [0, 1]; 0: off */
};

struct engine_candidate { float logit; int32_t id; };

struct engine_logprob { int32_t id; float logprob; };


/* Draw a token, 0..count-1. `scratch` has room for `count`. Temperature, then
 * top-k, then top-p over what top-k kept, then min-p, then the draw; a logit
 * of -infinity forbids its token. DROVER_EINTERNAL ("nan_logits") when a
 * logit is NaN or +infinite, or none is finite. */
int engine_sample(const float *logits, uint32_t count,
                  const struct engine_draw *draw,
                  struct engine_candidate *scratch, int32_t *id,
                  drover_err *err);


/* The natural log-probability of one token, before any of the above. */
double engine_sample_logprob(const float *logits, uint32_t count, int32_t id);


/* The same of the `top` best tokens, best first, the lowest of equals; and of
 * `id`, behind them. `out` has room for top + 1. Returns how many are written:
 * fewer when the vocabulary is smaller. */
uint32_t engine_sample_logprobs(const float *logits, uint32_t count,
                                int32_t id, uint32_t top,
                                struct engine_logprob *out);

#endif
