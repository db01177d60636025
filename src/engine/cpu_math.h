/* cpu_math: pure parts of the plain backend that the packed one shares.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CPU_MATH_H
#define DROVER_ENGINE_CPU_MATH_H

#include "backend.h"


/* RMSNorm of one row; `to` may be `x`. */
void engine_cpu_norm_row(float *to, const float *x, const float *gain,
                         uint32_t n, float eps);


/* Cosines and sines of all positions: [context][rot / 2]. */
void engine_cpu_rope_table(const struct engine_shape *shape,
                           const struct engine_rope *rope, float *cosine,
                           float *sine);


/* The `used` best experts by a router's scores, best first, and their
 * shares. */
void engine_cpu_route(const struct engine_shape *shape, const float *score,
                      uint32_t *chosen, float *share);

#endif
