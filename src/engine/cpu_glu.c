/* cpu_glu: gated hidden layers, and the mixture of experts, in plain C. See
 * backend.h for what the ops must compute.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "cpu.h"

/* gpt-oss's: its gate is clamped from above, `up` on both sides, and the
 * sigmoid steeper (1.702, as in the approximation of GELU). */
#define OAI_LIMIT 7.0f
#define OAI_ALPHA 1.702f


/* x / (1 + e^-x): for a large negative x e^-x becomes infinite and the quotient
 * 0, as it should. */
static float silu(float x) {
  return x / (1.0f + expf(-x));
}


/* The tanh form of GELU (Hendrycks and Gimpel 2016): sqrt(2 / pi), 0.044715. */
static float gelu(float x) {
  return 0.5f * x
    * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}


static float oai(float gate, float up) {
  float g = fminf(gate, OAI_LIMIT);
  float u = fmaxf(-OAI_LIMIT, fminf(up, OAI_LIMIT));
  return g / (1.0f + expf(-OAI_ALPHA * g)) * (u + 1.0f);
}


/* Gated units (Shazeer 2020). */
void engine_cpu_glu_row(const struct engine_shape *shape, const float *gate,
                        const float *up, float *to) {
  uint32_t n = shape->ff;
  if (shape->arch->glu == ENGINE_GELU)
    for (uint32_t i = 0; i < n; i++)
      to[i] = gelu(gate[i]) * up[i];
  else if (shape->arch->glu == ENGINE_SWIGLU_OAI)
    for (uint32_t i = 0; i < n; i++)
      to[i] = oai(gate[i], up[i]);
  else
    for (uint32_t i = 0; i < n; i++)
      to[i] = silu(gate[i]) * up[i];
}


/* ---- experts ---- */

/* Rows first … first + n of a product with one row of inputs. */
static void product(struct engine_state *s, const struct engine_linear *l,
                    uint32_t first, uint32_t n, const float *from, float *to) {
  for (uint32_t o = 0; o < n; o++) {
    const float *row = engine_cpu_weight_row(l->w, first + o, s->weight);
    to[o] = dot(row, from, l->w->cols);
    if (l->bias)
      to[o] += floats_of(l->bias)[first + o];
  }
}


/* The best expert that is not taken yet; of equal ones the first. */
static uint32_t best_left(const float *score, uint32_t n,
                          const unsigned char *taken) {
  uint32_t at = n;
  for (uint32_t e = 0; e < n; e++)
    if (!taken[e] && (at == n || score[e] > score[at]))
      at = e;
  return at;
}


/* The chosen experts, best first, and their shares, which sum to 1: a softmax
 * over all is taken apart and normalised (the same as one over the chosen), or
 * it is one over the chosen; both by differences to the best score. */
void engine_cpu_route(const struct engine_shape *shape, const float *score,
                      uint32_t *chosen, float *share) {
  unsigned char taken[1024] = { 0 };            /* ENGINE_EXPERTS_MAX */
  float sum = 0;
  for (uint32_t i = 0; i < shape->used; i++) {
    chosen[i] = best_left(score, shape->experts, taken);
    taken[chosen[i]] = 1;
    share[i] = expf(score[chosen[i]] - score[chosen[0]]);
    sum += share[i];
  }
  for (uint32_t i = 0; i < shape->used; i++)
    share[i] = share[i] / sum * shape->expert_scale;
}


/* One row through its experts, in the order in which they were chosen: sums
 * have one order. */
static void mix_row(struct engine_state *s, const struct engine_experts *e,
                    const float *from, float *to) {
  uint32_t chosen[1024];
  float share[1024];
  uint32_t ff = s->shape.ff, width = s->shape.width;
  float *gate = s->hidden, *up = gate + ff, *out = up + ff;
  product(s, &e->router, 0, s->shape.experts, from, s->share);
  engine_cpu_route(&s->shape, s->share, chosen, share);
  memset(to, 0, width * sizeof *to);
  for (uint32_t i = 0; i < s->shape.used; i++) {
    product(s, &e->gate, chosen[i] * ff, ff, from, gate);
    product(s, &e->up, chosen[i] * ff, ff, from, up);
    engine_cpu_glu_row(&s->shape, gate, up, gate);
    product(s, &e->down, chosen[i] * width, width, gate, out);
    for (uint32_t o = 0; o < width; o++)
      to[o] += share[i] * out[o];
  }
}


void engine_cpu_moe(struct engine_state *s, struct engine_buffer *y,
                    const struct engine_buffer *act,
                    const struct engine_experts *e) {
  for (uint32_t r = 0; r < (uint32_t)s->rows->rows; r++)
    mix_row(s, e, row_of(act, r), row_of(y, r));
}
