/* quant: the tensor types of GGUF, and numbers out of their bytes. Pure.
 *
 * All of the format's types are known by name and size, so that a file can be
 * laid out and refused by name; F32, F16 and Q8_0 can be read.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_QUANT_H
#define DROVER_ENGINE_QUANT_H

#include <stddef.h>
#include <stdint.h>

enum { ENGINE_F32 = 0, ENGINE_F16 = 1, ENGINE_Q8_0 = 8 };

struct engine_quant_type {
  const char *name;
  uint32_t values;                  /* in a block; rows are whole blocks */
  uint32_t bytes;                   /* of a block */
};


/* The row of a type's number, or NULL when the format has none such. */
const struct engine_quant_type *engine_quant_type(uint32_t type);


/* 1 when engine_quant_row reads it. */
int engine_quant_reads(uint32_t type);


/* `count` values (whole blocks) of one of the three types as floats. `from`
 * needs no alignment. */
void engine_quant_row(uint32_t type, const void *from, size_t count,
                      float *to);

#endif
