/* quant: the tensor types of GGUF, and numbers out of their bytes. Pure.
 *
 * All of the format's types are known by name and size, so that a file can be
 * laid out and refused by name; fifteen of them can be read. The types whose
 * grids are tables of some KiB (IQ1 to IQ3), IQ4_XS, the ternary ones and
 * those of integers are not.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_QUANT_H
#define DROVER_ENGINE_QUANT_H

#include <stddef.h>
#include <stdint.h>

enum engine_type {                  /* the format's numbers */
  ENGINE_F32 = 0,   ENGINE_F16 = 1,   ENGINE_Q4_0 = 2,  ENGINE_Q4_1 = 3,
  ENGINE_Q5_0 = 6,  ENGINE_Q5_1 = 7,  ENGINE_Q8_0 = 8,  ENGINE_Q2_K = 10,
  ENGINE_Q3_K = 11, ENGINE_Q4_K = 12, ENGINE_Q5_K = 13, ENGINE_Q6_K = 14,
  ENGINE_IQ4_NL = 20, ENGINE_BF16 = 30, ENGINE_MXFP4 = 39
};

struct engine_quant_type {
  const char *name;
  uint32_t values;                  /* in a block; rows are whole blocks */
  uint32_t bytes;                   /* of a block */
};


/* The row of a type's number, or NULL when the format has none such. */
const struct engine_quant_type *engine_quant_type(uint32_t type);


/* 1 when engine_quant_row reads it. */
int engine_quant_reads(uint32_t type);


/* `count` values (whole blocks) of a type that is read, as floats: each is the
 * correctly rounded result of one product and at most one difference. `from`
 * needs no alignment. */
void engine_quant_row(uint32_t type, const void *from, size_t count,
                      float *to);


/* A half as a float, exactly; and the nearest half, of two the even one. */
float engine_half_float(uint16_t half);
uint16_t engine_float_half(float value);


/* The numbers behind the codes of IQ4_NL and MXFP4 (there doubled). */
extern const int8_t engine_quant_nl[16], engine_quant_e2m1[16];


/* The 6-bit scale and minimum of block `i` of 8 (Q4_K, Q5_K), packed into 12
 * bytes: four low pairs, then the others in pieces. */
static inline void engine_quant_k_scale(const unsigned char *s, int i,
                                        int *scale, int *min) {
  if (i < 4) {
    *scale = s[i] & 63;
    *min = s[i + 4] & 63;
  } else {
    *scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
    *min = s[i + 4] >> 4 | (s[i] >> 6) << 4;
  }
}


/* The 6-bit scale, less 32, of run `i` of 16 (Q3_K): four of its bits in the
 * first eight bytes, two in the last four. */
static inline int engine_quant_q3_scale(const unsigned char *s, int i) {
  int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4;
  return (low | (s[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32;
}

#endif
