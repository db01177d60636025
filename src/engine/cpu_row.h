/* cpu_row: work on rows of floats, as bodies that each kind of machine compiles
 * for itself: loops that its vectors take as they are. No multiply-add is
 * fused here and no sum's order is the compiler's (-std=c11), so all give the
 * same bits.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CPU_ROW_H
#define DROVER_ENGINE_CPU_ROW_H

#include <math.h>

#include "cpu_tile.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define ROW_BODY static inline __attribute__((always_inline))

/* gpt-oss's clamp and slope: see cpu_glu.c. */
#define OAI_LIMIT 7.0f
#define OAI_ALPHA 1.702f


/* Halves, quarters, pairs: see tree() in cpu.h. */
static inline float engine_tree16(const float *s) {
  float t[8];
  for (int i = 0; i < 8; i++)
    t[i] = s[i] + s[i + 8];
  return ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]));
}


/* e^x to 2 in the last place, without a branch: 2^n and a polynomial of what
 * is left (Cephes's). Below -87 it stays at e^-87, above 88 at e^88; a NaN
 * stays one. */
ROW_BODY float engine_exp(float x) {
  float low = x < -87.0f ? -87.0f : x, in = low > 88.0f ? 88.0f : low;
  float shifted = in * 1.44269504088896341f + 12582912.0f;
  float n = shifted - 12582912.0f;
  int32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (int32_t)((uint32_t)(bits - 0x4b400000 + 127) << 23);
  float power, r = (in - n * 0.693359375f) - n * -2.12194440e-4f;
  memcpy(&power, &bits, sizeof power);
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  return (y * (r * r) + (r + 1.0f)) * power;
}


/* The largest magnitude by its bits: a NaN is the largest of all and makes
 * the block's scale one. Rounded to the nearest, of two the even one. */
ROW_BODY void engine_quantise_row(const float *x, uint32_t n, int8_t *q,
                                  struct engine_act *act) {
  for (uint32_t b = 0; b < n / TILE_COLS; b++, x += 32, q += 32) {
    uint32_t bits[32], most = 0;
    int32_t half[2] = { 0, 0 };
    memcpy(bits, x, sizeof bits);
    for (int i = 0; i < 32; i++) {
      uint32_t size = bits[i] & 0x7fffffff;
      most = size > most ? size : most;
    }
    float top, rounded[32];
    memcpy(&top, &most, sizeof top);
    float to = top > 1e-30f ? 127.0f / top : 0;
    for (int i = 0; i < 32; i++)
      rounded[i] = x[i] * to + 12582912.0f;
    memcpy(bits, rounded, sizeof bits);
    for (int i = 0; i < 32; i++)
      q[i] = (int8_t)(uint8_t)bits[i];
    for (int h = 0; h < 2; h++)
      for (int i = 0; i < 16; i++)
        half[h] += q[16 * h + i];
    float scale = top / 127.0f;
    act[b] = (struct engine_act){
      .scale = scale, .sum = scale * (float)(half[0] + half[1]),
      .part = { scale * (float)half[0], scale * (float)half[1] },
      .whole = (float)(half[0] + half[1]),
      .half = { (float)half[0], (float)half[1] },
    };
  }
}


/* ---- gated units ---- */

ROW_BODY float engine_sigmoid(float x) {
  return 1.0f / (1.0f + engine_exp(-x));
}


/* tanh(y) = 2 sigmoid(2 y) - 1, so GELU's half of 1 + tanh is a sigmoid. */
ROW_BODY void engine_glu_row(int kind, const float *gate, const float *up,
                             uint32_t n, float *to) {
  if (kind == ENGINE_GELU)
    for (uint32_t i = 0; i < n; i++) {
      float x = gate[i];
      float y = 0.7978845608f * (x + 0.044715f * x * x * x);
      to[i] = x * engine_sigmoid(2 * y) * up[i];
    }
  else if (kind == ENGINE_SWIGLU_OAI)
    for (uint32_t i = 0; i < n; i++) {
      float g = gate[i] > OAI_LIMIT ? OAI_LIMIT : gate[i];
      float u = up[i] > OAI_LIMIT ? OAI_LIMIT : up[i];
      u = u < -OAI_LIMIT ? -OAI_LIMIT : u;
      to[i] = g * engine_sigmoid(OAI_ALPHA * g) * (u + 1.0f);
    }
  else
    for (uint32_t i = 0; i < n; i++)
      to[i] = gate[i] * engine_sigmoid(gate[i]) * up[i];
}


/* ---- attention ---- */

typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));

/* Scores of the 16 keys of a block: a key is a lane, dimension i goes into sum
 * i mod 4. `k` is [dim][16]. */
ROW_BODY void engine_scores(const float *q, const float *k, uint32_t dim,
                            const struct engine_attend *a, float *score) {
  wide sum[4] = { { 0 }, { 0 }, { 0 }, { 0 } };
  uint32_t i = 0;
  for (; i + 4 <= dim; i += 4, k += 64)
    for (int j = 0; j < 4; j++)
      sum[j] += q[i + (uint32_t)j] * *(const wide *)(k + 16 * j);
  for (; i < dim; i++, k += 16)
    sum[i % 4] += q[i] * *(const wide *)k;
  sum[0] = ((sum[0] + sum[2]) + (sum[1] + sum[3])) * a->scale;
  memcpy(score, &sum[0], sizeof sum[0]);
  for (int j = 0; a->cap > 0 && j < 16; j++)
    score[j] = a->cap * tanhf(score[j] / a->cap);
}


/* to = to * keep + the sum over lanes low .. high of weight * value, in that
 * order. `v` is [16][dim]. */
ROW_BODY void engine_mix(float *to, const float *v, uint32_t dim,
                         const float *weight, float keep, int low, int high) {
  uint32_t i = 0;
  for (; i + 16 <= dim; i += 16) {
    wide sum = *(wide *)(to + i) * keep;
    for (int j = low; j <= high; j++)
      sum += weight[j] * *(const wide *)(v + (size_t)j * dim + i);
    *(wide *)(to + i) = sum;
  }
  for (; i < dim; i++) {
    float sum = to[i] * keep;
    for (int j = low; j <= high; j++)
      sum += weight[j] * v[(size_t)j * dim + i];
    to[i] = sum;
  }
}


/* One head over one block: `state` is its largest score and its sum. */
ROW_BODY void engine_attend_block(const struct engine_attend *a, uint32_t head,
                                  const float *k, const float *v,
                                  int low, int high, float *state) {
  float score[16], most = state[0];
  engine_scores(a->q + (size_t)head * a->dim, k, a->dim, a, score);
  for (int j = low; j <= high; j++)
    most = score[j] > most || score[j] != score[j] ? score[j] : most;
  float keep = engine_exp(state[0] - most);
  keep = state[0] == -INFINITY ? 0 : keep;
  for (int j = 0; j < 16; j++)
    score[j] = engine_exp(score[j] - most);
  float sum = state[1] * keep;
  for (int j = low; j <= high; j++)
    sum += score[j];
  state[0] = most;
  state[1] = sum;
  engine_mix(a->to + (size_t)head * a->dim, v, a->dim, score, keep, low, high);
}


/* Blocks lie anywhere, a few lines each: too short for the machine to see it
 * coming. */
ROW_BODY void engine_attend_fetch(const struct engine_attend *a, int32_t b) {
  size_t size = 16 * (size_t)a->dim * (a->halves ? 2 : 4);
  const unsigned char *key = a->key + (size_t)a->block[b] * a->stride;
  const unsigned char *value = a->value + (size_t)a->block[b] * a->stride;
  for (size_t i = 0; i < size; i += 64)
    __builtin_prefetch(key + i);
  for (size_t i = 0; i < size; i += 64)
    __builtin_prefetch(value + i);
}


/* Blocks of 16 positions in their order, whatever steps a prompt was cut into:
 * so are the bits. A sink takes part in the largest and in the sum, first. */
ROW_BODY void engine_attend_row(const struct engine_isa *isa,
                                const struct engine_attend *a) {
  size_t n = 16 * (size_t)a->dim;
  float *wide_k = a->scratch, *wide_v = wide_k + n, *state = wide_v + n;
  for (uint32_t h = 0; h < a->share; h++) {
    state[2 * h] = a->sinks ? a->sinks[h] : -INFINITY;
    state[2 * h + 1] = a->sinks ? 1 : 0;
  }
  memset(a->to, 0, (size_t)a->share * a->dim * sizeof *a->to);
  for (int32_t b = a->first / 16; b <= a->pos / 16; b++) {
    const unsigned char *key = a->key + (size_t)a->block[b] * a->stride;
    const unsigned char *value = a->value + (size_t)a->block[b] * a->stride;
    const float *k = (const void *)key, *v = (const void *)value;
    int low = a->first > 16 * b ? a->first - 16 * b : 0;
    int high = a->pos < 16 * b + 15 ? a->pos - 16 * b : 15;
    if (b < a->pos / 16)
      engine_attend_fetch(a, b + 1);
    if (a->halves) {
      isa->widen((const void *)key, n, wide_k);
      isa->widen((const void *)value, n, wide_v);
      k = wide_k;
      v = wide_v;
    }
    for (uint32_t h = 0; h < a->share; h++)
      engine_attend_block(a, h, k, v, low, high, state + 2 * h);
  }
  for (uint32_t h = 0; h < a->share; h++)
    for (uint32_t i = 0; i < a->dim; i++)
      a->to[(size_t)h * a->dim + i] /= state[2 * h + 1];
}

#endif
