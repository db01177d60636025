/* cpu_kv: keys and values as the pool of the plain backend holds them: as
 * they are, as halves, or as bytes with a scale for each 32 (the last run of
 * a head may be shorter). One vector is one position of one head.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "quant.h"

enum { RUN = 32, SCALE = sizeof(uint16_t) };


/* To the nearest, of two the even one: rounding is that of an addition whose
 * sum has the half's last bit as its own. Past the largest half the largest,
 * since an infinite key would make everything NaN; NaN stays NaN. */
static uint16_t half_of(float value) {
  uint32_t bits, out;
  memcpy(&bits, &value, sizeof bits);
  uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000)
    return (uint16_t)(sign | 0x7e00);
  if (size >= 0x477ff000)           /* 65520 and more */
    return (uint16_t)(sign | 0x7bff);
  if (size < 0x38800000) {          /* below 2^-14: steps of 2^-24 */
    float sum;
    memcpy(&sum, &size, sizeof sum);
    sum += 0.5f;
    memcpy(&out, &sum, sizeof out);
    return (uint16_t)(sign | (out - 0x3f000000));
  }
  out = size + 0xfff + (size >> 13 & 1) - (112u << 23);
  return (uint16_t)(sign | out >> 13);
}


size_t engine_cpu_kv_bytes(uint32_t kv, uint32_t dim) {
  if (kv == DROVER_KV_F32)
    return dim * sizeof(float);
  if (kv == DROVER_KV_F16)
    return dim * sizeof(uint16_t);
  return dim + (size_t)(dim + RUN - 1) / RUN * SCALE;
}


static float largest(const float *x, uint32_t n) {
  float most = 0;
  for (uint32_t i = 0; i < n; i++)
    most = fabsf(x[i]) > most || x[i] != x[i] ? fabsf(x[i]) : most;
  return most;
}


/* A NaN makes the scale NaN, and so all of its run. */
static void store_run(const float *from, uint32_t n, unsigned char *to) {
  float most = largest(from, n);
  uint16_t scale = half_of(most / 127);
  float step = engine_half_float(scale);
  memcpy(to, &scale, SCALE);
  for (uint32_t i = 0; i < n; i++) {
    float q = step > 0 ? from[i] / step : 0;
    q = q > 127 ? 127 : q < -127 ? -127 : q;
    to[SCALE + i] = (unsigned char)(signed char)lrintf(q);
  }
}


void engine_cpu_kv_store(uint32_t kv, const float *from, uint32_t dim,
                         unsigned char *to) {
  if (kv == DROVER_KV_F32)
    memcpy(to, from, dim * sizeof *from);
  for (uint32_t i = 0; kv == DROVER_KV_F16 && i < dim; i++) {
    uint16_t half = half_of(from[i]);
    memcpy(to + i * sizeof half, &half, sizeof half);
  }
  for (uint32_t i = 0; kv == DROVER_KV_Q8_0 && i < dim; i += RUN) {
    uint32_t n = dim - i < RUN ? dim - i : RUN;
    store_run(from + i, n, to);
    to += SCALE + n;
  }
}


/* Exact, as engine_half_float() in quant.c is, but inline and without a case
 * for infinity, which half_of() never writes: so that the loop below becomes
 * vectors. A NaN stays one. */
static inline float float_of(uint16_t half) {
  uint32_t rest = (uint32_t)(half & 0x7fff) << 13;
  uint32_t is_tiny = 0u - (rest < 1u << 23), is_nan = 0u - (rest > 0x0f7fffff);
  uint32_t bits = rest + (112u << 23), tiny = rest | (113u << 23);
  float value;
  memcpy(&value, &tiny, sizeof value);
  value -= 0x1p-14f;
  memcpy(&tiny, &value, sizeof tiny);
  bits |= is_nan & 0x7f800000;
  bits = (bits & ~is_tiny) | (tiny & is_tiny);
  bits |= (uint32_t)(half & 0x8000) << 16;
  memcpy(&value, &bits, sizeof value);
  return value;
}


static void load_bytes(const unsigned char *from, uint32_t dim, float *to) {
  for (uint32_t i = 0; i < dim; i += RUN) {
    uint32_t n = dim - i < RUN ? dim - i : RUN;
    uint16_t scale;
    memcpy(&scale, from, SCALE);
    float step = engine_half_float(scale);
    for (uint32_t k = 0; k < n; k++)
      to[i + k] = step * (float)(signed char)from[SCALE + k];
    from += SCALE + n;
  }
}


const float *engine_cpu_kv_load(uint32_t kv, const unsigned char *from,
                                uint32_t dim, float *scratch) {
  if (kv == DROVER_KV_F32)
    return (const float *)(const void *)from;
  if (kv == DROVER_KV_Q8_0)
    load_bytes(from, dim, scratch);
  for (uint32_t i = 0; kv == DROVER_KV_F16 && i < dim; i++) {
    uint16_t half;
    memcpy(&half, from + i * sizeof half, sizeof half);
    scratch[i] = float_of(half);
  }
  return scratch;
}


/* A block's keys and values lie together in each layer. */
void engine_cpu_kv_copy(struct engine_state *s, const int32_t *from,
                        const int32_t *to, int count) {
  size_t bytes = s->shape.kv_heads * s->head_bytes;
  for (int i = 0; i < count; i++)
    for (uint32_t layer = 0; layer < s->shape.layers; layer++) {
      size_t base = layer * s->layer_bytes;
      size_t at = base + (size_t)from[i] * bytes;
      memcpy(s->key + base + (size_t)to[i] * bytes, s->key + at, bytes);
      memcpy(s->value + base + (size_t)to[i] * bytes, s->value + at, bytes);
    }
}
