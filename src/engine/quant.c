/* quant: see quant.h. Bytes are little-endian, as the file's; big-endian
 * hosts are refused when a file is opened.
 *
 * SPDX-License-Identifier: MIT */
#include "quant.h"

#include <math.h>
#include <string.h>

/* The numbers of the format (ggml's types); 4, 5, 31 to 33 and 36 to 38 were
 * given out once and withdrawn. Values and bytes are those of one block, as
 * the GGUF specification lays them out. */
static const struct engine_quant_type types[] = {
  [0]  = { "F32", 1, 4 },           [1]  = { "F16", 1, 2 },
  [2]  = { "Q4_0", 32, 18 },        [3]  = { "Q4_1", 32, 20 },
  [6]  = { "Q5_0", 32, 22 },        [7]  = { "Q5_1", 32, 24 },
  [8]  = { "Q8_0", 32, 34 },        [9]  = { "Q8_1", 32, 36 },
  [10] = { "Q2_K", 256, 84 },       [11] = { "Q3_K", 256, 110 },
  [12] = { "Q4_K", 256, 144 },      [13] = { "Q5_K", 256, 176 },
  [14] = { "Q6_K", 256, 210 },      [15] = { "Q8_K", 256, 292 },
  [16] = { "IQ2_XXS", 256, 66 },    [17] = { "IQ2_XS", 256, 74 },
  [18] = { "IQ3_XXS", 256, 98 },    [19] = { "IQ1_S", 256, 50 },
  [20] = { "IQ4_NL", 32, 18 },      [21] = { "IQ3_S", 256, 110 },
  [22] = { "IQ2_S", 256, 82 },      [23] = { "IQ4_XS", 256, 136 },
  [24] = { "I8", 1, 1 },            [25] = { "I16", 1, 2 },
  [26] = { "I32", 1, 4 },           [27] = { "I64", 1, 8 },
  [28] = { "F64", 1, 8 },           [29] = { "IQ1_M", 256, 56 },
  [30] = { "BF16", 1, 2 },          [34] = { "TQ1_0", 256, 54 },
  [35] = { "TQ2_0", 256, 66 },      [39] = { "MXFP4", 32, 17 },
  [40] = { "NVFP4", 64, 36 },       [41] = { "Q1_0", 128, 18 },
  [42] = { "Q2_0", 64, 18 },
};


/* Numbers that are not in the table have no name and so no row. */
const struct engine_quant_type *engine_quant_type(uint32_t type) {
  if (type >= sizeof types / sizeof types[0] || !types[type].name)
    return NULL;
  return &types[type];
}


/* Exact, and without subnormal floats on the way: a half that is subnormal
 * is made as 2^-14 * (1 + m) - 2^-14. Masks, no branches: loops over it
 * vectorise. */
float engine_half_float(uint16_t half) {
  uint32_t rest = (uint32_t)(half & 0x7fff) << 13;
  uint32_t exponent = half & 0x7c00;
  uint32_t is_tiny = 0u - (exponent == 0);
  uint32_t is_infinite = 0u - (exponent == 0x7c00);
  uint32_t bits = rest + (112u << 23), tiny = rest | (113u << 23);
  float value;
  memcpy(&value, &tiny, sizeof value);
  value -= 0x1p-14f;
  memcpy(&tiny, &value, sizeof tiny);
  bits |= is_infinite & 0x7f800000;   /* NaN keeps its payload */
  bits = (bits & ~is_tiny) | (tiny & is_tiny);
  bits |= (uint32_t)(half & 0x8000) << 16;
  memcpy(&value, &bits, sizeof value);
  return value;
}


/* Rounding is an addition's: a number whose last bit is the half's last bit
 * is added and what is kept lies in the low bits. A NaN stays one. */
uint16_t engine_float_half(float value) {
  uint32_t bits, out;
  memcpy(&bits, &value, sizeof bits);
  uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000)
    return (uint16_t)(sign | 0x7e00);
  if (size >= 0x477ff000)           /* 65520: rounds to infinity */
    return (uint16_t)(sign | 0x7c00);
  if (size < 0x38800000) {          /* below 2^-14: a multiple of 2^-24 */
    float sum;
    memcpy(&sum, &size, sizeof sum);
    sum += 0.5f;
    memcpy(&out, &sum, sizeof out);
    return (uint16_t)(sign | (out - 0x3f000000));
  }
  out = size + 0xfff + (size >> 13 & 1) - (112u << 23);
  return (uint16_t)(sign | out >> 13);
}


/* memcpy, since a tensor's rows need not be aligned in the file. */
static float half_at(const unsigned char *at) {
  uint16_t half;
  memcpy(&half, at, sizeof half);
  return engine_half_float(half);
}


/* ---- one value each ---- */

static void row_f32(const unsigned char *from, size_t count, float *to) {
  memcpy(to, from, count * sizeof *to);
}


static void row_f16(const unsigned char *from, size_t count, float *to) {
  for (size_t i = 0; i < count; i++)
    to[i] = half_at(from + 2 * i);
}


/* The upper half of a float. */
static void row_bf16(const unsigned char *from, size_t count, float *to) {
  for (size_t i = 0; i < count; i++) {
    uint16_t half;
    memcpy(&half, from + 2 * i, sizeof half);
    uint32_t bits = (uint32_t)half << 16;
    memcpy(&to[i], &bits, sizeof bits);
  }
}


/* ---- blocks of 32: byte j holds element j low and j + 16 high ---- */

static void row_q8_0(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 34, to += 32) {
    const signed char *q = (const signed char *)from + 2;
    float d = half_at(from);
    for (int i = 0; i < 32; i++)
      to[i] = d * (float)q[i];
  }
}


static void row_q4_0(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 18, to += 32) {
    float d = half_at(from);
    for (int j = 0; j < 16; j++) {
      to[j] = d * (float)((from[2 + j] & 15) - 8);
      to[j + 16] = d * (float)((from[2 + j] >> 4) - 8);
    }
  }
}


static void row_q4_1(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 20, to += 32) {
    float d = half_at(from), m = half_at(from + 2);
    for (int j = 0; j < 16; j++) {
      to[j] = d * (float)(from[4 + j] & 15) + m;
      to[j + 16] = d * (float)(from[4 + j] >> 4) + m;
    }
  }
}


/* The fifth bits of a block's elements, element e in bit e. */
static uint32_t fifths(const unsigned char *at) {
  uint32_t bits;
  memcpy(&bits, at, sizeof bits);
  return bits;
}


static void row_q5_0(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 22, to += 32) {
    float d = half_at(from);
    uint32_t high = fifths(from + 2);
    for (int j = 0; j < 16; j++) {
      int low = (from[6 + j] & 15) | (int)(high >> j & 1) << 4;
      int top = from[6 + j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
      to[j] = d * (float)(low - 16);
      to[j + 16] = d * (float)(top - 16);
    }
  }
}


static void row_q5_1(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 24, to += 32) {
    float d = half_at(from), m = half_at(from + 2);
    uint32_t high = fifths(from + 4);
    for (int j = 0; j < 16; j++) {
      int low = (from[8 + j] & 15) | (int)(high >> j & 1) << 4;
      int top = from[8 + j] >> 4 | (int)(high >> (j + 16) & 1) << 4;
      to[j] = d * (float)low + m;
      to[j + 16] = d * (float)top + m;
    }
  }
}


/* Not evenly spaced: denser around 0, where weights are. */
const int8_t engine_quant_nl[16] = {
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};


static void row_iq4_nl(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 18, to += 32) {
    float d = half_at(from);
    for (int j = 0; j < 16; j++) {
      to[j] = d * (float)engine_quant_nl[from[2 + j] & 15];
      to[j + 16] = d * (float)engine_quant_nl[from[2 + j] >> 4];
    }
  }
}


/* Floats of 4 bits (E2M1 of the OCP microscaling format), doubled to be whole;
 * code 8 is +0. */
const int8_t engine_quant_e2m1[16] = {
  0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12,
};


/* A shared power of two: 2^(x - 127), and half of that for the doubling. */
static void row_mxfp4(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 17, to += 32) {
    int power = from[0] - 128;
    for (int j = 0; j < 16; j++) {
      to[j] = ldexpf((float)engine_quant_e2m1[from[1 + j] & 15], power);
      to[j + 16] = ldexpf((float)engine_quant_e2m1[from[1 + j] >> 4], power);
    }
  }
}


/* ---- blocks of 256, with scales of their own for 16 or 32 ---- */

/* Element e = 128 n + 32 j + l: two bits of byte 32 n + l, pair j. A scale
 * byte holds the scale low and the minimum high. */
static void row_q2_k(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 256; b++, from += 84, to += 256) {
    float d = half_at(from + 80), m = half_at(from + 82);
    for (int e = 0; e < 256; e++) {
      int n = e / 128, j = e % 128 / 32, l = e % 32;
      int s = from[8 * n + 2 * j + l / 16];
      int q = from[16 + 32 * n + l] >> 2 * j & 3;
      to[e] = d * (float)(s & 15) * (float)q - m * (float)(s >> 4);
    }
  }
}


/* The third bit is inverted: where the mask has none, 4 is taken off. */
static void row_q3_k(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 256; b++, from += 110, to += 256) {
    float d = half_at(from + 108);
    for (int e = 0; e < 256; e++) {
      int n = e / 128, j = e % 128 / 32, l = e % 32;
      int q = (from[32 + 32 * n + l] >> 2 * j & 3)
              - (from[l] >> (4 * n + j) & 1 ? 0 : 4);
      int s = engine_quant_q3_scale(from + 96, 8 * n + 2 * j + l / 16);
      to[e] = d * (float)s * (float)q;
    }
  }
}


/* Two runs of 32 share 32 bytes: the first low, the second high. `high` has
 * the fifth bits (Q5_K) or is NULL. */
static void k_block(const unsigned char *from, const unsigned char *high,
                    const unsigned char *low, float *to) {
  float d = half_at(from), m = half_at(from + 2);
  for (int i = 0; i < 8; i++, to += 32) {
    int scale, min;
    engine_quant_k_scale(from + 4, i, &scale, &min);
    float ds = d * (float)scale, ms = m * (float)min;
    for (int l = 0; l < 32; l++) {
      int byte = low[32 * (i / 2) + l];
      int q = (i % 2 ? byte >> 4 : byte & 15)
              + (high ? (high[l] >> i & 1) << 4 : 0);
      to[l] = ds * (float)q - ms;
    }
  }
}


static void row_q4_k(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 256; b++, from += 144, to += 256)
    k_block(from, NULL, from + 16, to);
}


static void row_q5_k(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 256; b++, from += 176, to += 256)
    k_block(from, from + 16, from + 48, to);
}


/* Element e = 128 n + 32 r + l: four bits of `low`, two of `high`. */
static void row_q6_k(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 256; b++, from += 210, to += 256) {
    const unsigned char *low = from, *high = from + 128;
    const signed char *scale = (const signed char *)from + 192;
    float d = half_at(from + 208);
    for (int e = 0; e < 256; e++) {
      int n = e / 128, r = e % 128 / 32, l = e % 32;
      int byte = low[64 * n + 32 * (r & 1) + l];
      int q = (r < 2 ? byte & 15 : byte >> 4)
              | (high[32 * n + l] >> 2 * r & 3) << 4;
      to[e] = d * (float)scale[8 * n + 2 * r + l / 16] * (float)(q - 32);
    }
  }
}


/* ---- by type ---- */

typedef void row_fn(const unsigned char *from, size_t count, float *to);

static row_fn *const readers[] = {
  [ENGINE_F32] = row_f32,     [ENGINE_F16] = row_f16,
  [ENGINE_Q4_0] = row_q4_0,   [ENGINE_Q4_1] = row_q4_1,
  [ENGINE_Q5_0] = row_q5_0,   [ENGINE_Q5_1] = row_q5_1,
  [ENGINE_Q8_0] = row_q8_0,   [ENGINE_Q2_K] = row_q2_k,
  [ENGINE_Q3_K] = row_q3_k,   [ENGINE_Q4_K] = row_q4_k,
  [ENGINE_Q5_K] = row_q5_k,   [ENGINE_Q6_K] = row_q6_k,
  [ENGINE_IQ4_NL] = row_iq4_nl, [ENGINE_BF16] = row_bf16,
  [ENGINE_MXFP4] = row_mxfp4,
};


int engine_quant_reads(uint32_t type) {
  return type < sizeof readers / sizeof readers[0] && readers[type] != NULL;
}


void engine_quant_row(uint32_t type, const void *from, size_t count,
                      float *to) {
  readers[type](from, count, to);
}
