/* cpu_tile: quantised matrices as tiles, and what multiplies them.
 *
 * A tile is 8 rows of a matrix; of each 32 inputs it has one block, with the
 * codes of all types in one order, [step of 4 inputs][row][4 inputs]:
 *
 *   byte 32 v + 4 row + i of the first 128: the low four bits of input
 *     4 v + i low, of input 4 (v + 4) + i high
 *   5 bits: 32 bytes more, the fifth bit of step s in bit s
 *   6 bits: 64 bytes more, two bits of step 4 j + t in bits 2 t of plane j
 *   8 bits: 256 bytes, a byte a code
 *
 * A weight is scale * (code - offset) + minimum; activations are int8 with a
 * scale for each 32 (struct engine_act). An output is one float lane:
 *
 *   for each block, for each run of inputs that shares a scale:
 *     sum = fma(act scale * scale, (float)(exact integer sum), sum)
 *     sum = fma(minimum, act scale * its sum, sum)     where there is one
 *
 * So its bits depend on nothing but its row and its inputs: not on the width
 * of a machine's vectors, nor on the batch. cpu_tile.c is that, in plain C.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CPU_TILE_H
#define DROVER_ENGINE_CPU_TILE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "backend.h"

enum { TILE_ROWS = 8, TILE_COLS = 32, TILE_LANES = 16 };

enum tile_codes { CODES_4, CODES_TABLE, CODES_5, CODES_6, CODES_8 };

/* Of a block: one half a row; the upper half of a float; a half and a minimum;
 * or small integers times one half a row for 256 inputs (in front of eight
 * blocks), for 32 inputs or for each 16 of them. */
enum tile_scales { SCALES_HALF, SCALES_BF16, SCALES_MIN, SCALES_K32,
                   SCALES_K16, SCALES_K16_MIN };

struct engine_form {                /* of a tensor type's tiles */
  uint32_t codes, scales;           /* of the enums */
  int32_t  offset;                  /* of a code that means 0 */
  uint32_t head;                    /* bytes in front of eight blocks, or 0 */
  uint32_t front;                   /* bytes of a block's scales */
  uint32_t bytes;                   /* of a block, scales and codes */
  const int8_t *table;              /* CODES_TABLE: values of the codes */
};

struct engine_block {               /* a block of a tile, unpacked */
  int   runs;                       /* 2 where 16 inputs share a scale */
  int   code[TILE_ROWS][TILE_COLS]; /* less the offset */
  float scale[2][TILE_ROWS], min[2][TILE_ROWS];
};

struct engine_tiles {               /* a packed matrix, or the rows of floats */
  uint32_t type, cols, rows;
  const struct engine_form *form;   /* NULL: floats, row by row */
  size_t   stride;                  /* bytes of a tile, or of a row */
  unsigned char *bytes;             /* owned; 64-byte aligned */
  void    *block;                   /* what `bytes` lies in */
};

struct engine_act {                 /* of 32 activations: scale * q */
  float scale;
  float sum;                        /* scale * whole */
  float part[2];                    /* scale * half[i] */
  float whole, half[2];             /* sums of 32 and of 16 q each: integers */
  float unused;
};

struct engine_product {             /* to[r][o] = w * inputs[r] (+ bias) */
  const struct engine_tiles *w;
  const int8_t *q;                  /* [rows][q_ld] */
  const struct engine_act *act;     /* [rows][q_ld / 32] */
  size_t   q_ld;
  const float *x;                   /* [rows][x_ld]: where weights are floats */
  size_t   x_ld;
  uint32_t rows;                    /* of the batch */
  uint32_t first, end;              /* the weight's rows that are wanted */
  float   *to;                      /* output `first` of row 0 */
  size_t   to_ld;
  const float *bias;                /* of output `first`; or NULL */
};

struct engine_attend {              /* one row, the heads of one kv head */
  const float *q;                   /* [share][dim] */
  float   *to;                      /* [share][dim] */
  uint32_t share, dim;
  const unsigned char *key, *value; /* of the layer's kv head in block 0 */
  size_t   stride;                  /* bytes to the next block */
  const int32_t *block;             /* of the sequence */
  int32_t  first, pos;              /* positions that are seen */
  int      halves;                  /* keys and values are halves */
  float    scale, cap;
  const float *sinks;               /* [share]; or NULL */
  float   *scratch;                 /* [32 dim], then [2 share] */
};

/* What one kind of machine does in its own way, all with the same bits. */
struct engine_isa {
  const char *name;
  /* Tiles first .. end-1, or the rows of them where weights are floats. */
  void (*tiles)(const struct engine_product *p, uint32_t first, uint32_t end);
  void (*floats)(const struct engine_product *p, uint32_t first, uint32_t end);
  /* n / 32 blocks of activations. */
  void (*quantise)(const float *x, uint32_t n, int8_t *q,
                   struct engine_act *act);
  void (*widen)(const uint16_t *from, size_t n, float *to);
  void (*narrow)(const float *from, size_t n, uint16_t *to);
  void (*attend)(const struct engine_isa *isa, const struct engine_attend *a);
  void (*glu)(int kind, const float *gate, const float *up, uint32_t n,
              float *to);
};


/* The best one for this machine, or the one of that name where it can run
 * ("plain" always can); NULL when it cannot. */
const struct engine_isa *engine_isa_find(const char *name);


/* cpu_pack.c: pack what `from` reads. Fifteen types, any shape. */
int engine_tiles_new(struct engine_tiles **out,
                     const struct engine_weight_from *from, drover_err *err);
void engine_tiles_free(struct engine_tiles *t);     /* takes NULL */


/* Bytes of what engine_tiles_new makes. */
uint64_t engine_tiles_bytes(const struct engine_weight_from *from);


/* Block b of a tile. */
void engine_tile_block(const struct engine_form *f, const unsigned char *tile,
                       uint32_t b, struct engine_block *out);


/* Has it minima? */
static inline int engine_form_min(const struct engine_form *f) {
  return f->scales == SCALES_MIN || f->scales == SCALES_K32
    || f->scales == SCALES_K16_MIN;
}


/* Row r as floats: the bits that engine_quant_row gives. */
void engine_tiles_row(const struct engine_tiles *t, uint32_t r, float *to);


/* ---- for those that multiply ---- */

extern const struct engine_isa engine_isa_plain, engine_isa_avx2,
  engine_isa_avx512;


static inline const unsigned char *tile_at(const struct engine_tiles *t,
                                           uint32_t tile) {
  return t->bytes + (size_t)tile * t->stride;
}


/* Ask for what lies 2 KiB on. A tile is read once, front to back, and is too
 * short for the machine to run far enough ahead by itself: at one row this was
 * 15 to 30 % on a Xeon of 2023 (AVX-512, both tiles' streams), at four up to
 * 45 %; 1 and 2.5 KiB were alike, 4.5 worse. Past the end it does no harm. */
static inline __attribute__((always_inline)) void tile_fetch(
    const unsigned char *at, uint32_t size) {
  for (uint32_t line = 0; line < size; line += 64)
    __builtin_prefetch(at + 2048 + line);
}


/* Store a tile's eight outputs for row r of the batch: what is wanted of
 * them. */
static inline void tile_store(const struct engine_product *p, uint32_t tile,
                              uint32_t r, const float *sums) {
  uint32_t from = tile * TILE_ROWS, to = from + TILE_ROWS;
  uint32_t low = from < p->first ? p->first : from;
  uint32_t high = to > p->end ? p->end : to;
  float *out = p->to + (size_t)r * p->to_ld;
  for (uint32_t o = low; o < high; o++)
    out[o - p->first] = p->bias ? sums[o - from] + p->bias[o - p->first]
                                : sums[o - from];
}

#endif
