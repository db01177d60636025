/* quant: see quant.h. Bytes are little-endian, as the file's; big-endian
 * hosts are refused when a file is opened.
 *
 * SPDX-License-Identifier: MIT */
#include "quant.h"

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


int engine_quant_reads(uint32_t type) {
  return type == ENGINE_F32 || type == ENGINE_F16 || type == ENGINE_Q8_0;
}


/* Exact, and without subnormal floats on the way: a half that is subnormal
 * is made as 2^-14 * (1 + m) - 2^-14. Masks, no branches: loops over it
 * vectorise. */
static float from_half(uint16_t half) {
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


/* memcpy, since a tensor's rows need not be aligned in the file. */
static void row_f16(const unsigned char *from, size_t count, float *to) {
  for (size_t i = 0; i < count; i++) {
    uint16_t half;
    memcpy(&half, from + 2 * i, sizeof half);
    to[i] = from_half(half);
  }
}


/* 34 bytes for 32 values: a half for the scale, then the integers; y = scale
 * * q. */
static void row_q8_0(const unsigned char *from, size_t count, float *to) {
  for (size_t b = 0; b < count / 32; b++, from += 34, to += 32) {
    const signed char *q = (const signed char *)from + 2;
    uint16_t half;
    memcpy(&half, from, sizeof half);
    float scale = from_half(half);
    for (int i = 0; i < 32; i++)
      to[i] = scale * (float)q[i];
  }
}


/* F32 is copied; callers that can use it in place do. */
void engine_quant_row(uint32_t type, const void *from, size_t count,
                      float *to) {
  if (type == ENGINE_F32)
    memcpy(to, from, count * sizeof *to);
  else if (type == ENGINE_F16)
    row_f16(from, count, to);
  else
    row_q8_0(from, count, to);
}
