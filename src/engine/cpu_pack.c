/* cpu_pack: the file's rows into tiles, and a row back out of them. See
 * cpu_tile.h for the layout.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "cpu_tile.h"
#include "quant.h"

enum { ALIGN = 64, HEAD_BLOCKS = 8, ROWS_A_READ = 64 };

#define FORM(codes, scales, offset, head, front, size, table) \
  { codes, scales, offset, head, front, (front) + (size), table }

/* Sizes of codes: 128 bytes for four bits, 160 for five, 192 for six. */
static const struct engine_form forms[] = {
  [ENGINE_Q4_0] = FORM(CODES_4, SCALES_HALF, 8, 0, 16, 128, NULL),
  [ENGINE_Q4_1] = FORM(CODES_4, SCALES_MIN, 0, 0, 32, 128, NULL),
  [ENGINE_Q5_0] = FORM(CODES_5, SCALES_HALF, 16, 0, 16, 160, NULL),
  [ENGINE_Q5_1] = FORM(CODES_5, SCALES_MIN, 0, 0, 32, 160, NULL),
  [ENGINE_Q8_0] = FORM(CODES_8, SCALES_HALF, 128, 0, 16, 256, NULL),
  [ENGINE_Q2_K] = FORM(CODES_4, SCALES_K16_MIN, 0, 32, 32, 128, NULL),
  [ENGINE_Q3_K] = FORM(CODES_4, SCALES_K16, 4, 16, 16, 128, NULL),
  [ENGINE_Q4_K] = FORM(CODES_4, SCALES_K32, 0, 32, 16, 128, NULL),
  [ENGINE_Q5_K] = FORM(CODES_5, SCALES_K32, 0, 32, 16, 160, NULL),
  [ENGINE_Q6_K] = FORM(CODES_6, SCALES_K16, 32, 16, 16, 192, NULL),
  [ENGINE_IQ4_NL] = FORM(CODES_TABLE, SCALES_HALF, 128, 0, 16, 128,
                         engine_quant_nl),
  [ENGINE_MXFP4] = FORM(CODES_TABLE, SCALES_BF16, 128, 0, 16, 128,
                        engine_quant_e2m1),
};


static const struct engine_form *form_of(uint32_t type) {
  return type < sizeof forms / sizeof forms[0] && forms[type].bytes
    ? &forms[type] : NULL;
}


/* ---- one block of 32 of one row, out of the file's bytes ---- */

struct run {                        /* what a block becomes */
  unsigned char code[TILE_COLS];
  uint16_t d, m;                    /* of the block, or of its 256 */
  int scale[2], min[2];             /* K types: for each 16 */
};


static uint16_t u16(const unsigned char *at) {
  uint16_t n;
  memcpy(&n, at, sizeof n);
  return n;
}


/* Byte j holds element j low and j + 16 high; `high` the fifth bits. */
static void nibbles(const unsigned char *low, const unsigned char *high,
                    struct run *to) {
  uint32_t bits = 0;
  if (high)
    memcpy(&bits, high, sizeof bits);
  for (int j = 0; j < 16; j++) {
    to->code[j] = (unsigned char)((low[j] & 15) | (bits >> j & 1) << 4);
    to->code[j + 16] = (unsigned char)(low[j] >> 4
                                       | (bits >> (j + 16) & 1) << 4);
  }
}


static void take_32(uint32_t type, const unsigned char *from, struct run *to) {
  int has_min = type == ENGINE_Q4_1 || type == ENGINE_Q5_1;
  const unsigned char *rest = from + (has_min ? 4 : 2);
  to->d = u16(from);
  if (has_min)
    to->m = u16(from + 2);
  if (type == ENGINE_Q8_0) {
    for (int i = 0; i < TILE_COLS; i++)
      to->code[i] = rest[i] ^ 0x80; /* q + 128 */
  } else if (type == ENGINE_MXFP4) {
    uint32_t power = from[0];       /* 2^(power - 128) as upper half */
    to->d = (uint16_t)(power > 1 ? (power - 1) << 7 : power ? 0x40 : 0x20);
    nibbles(from + 1, NULL, to);
  } else if (type == ENGINE_Q5_0 || type == ENGINE_Q5_1) {
    nibbles(rest + 4, rest, to);
  } else {
    nibbles(rest, NULL, to);
  }
}


/* Block i of the eight in Q4_K and Q5_K. */
static void take_k32(uint32_t type, const unsigned char *from, int i,
                     struct run *to) {
  const unsigned char *high = type == ENGINE_Q5_K ? from + 16 : NULL;
  const unsigned char *low = from + (high ? 48 : 16) + 32 * (i / 2);
  to->d = u16(from);
  to->m = u16(from + 2);
  engine_quant_k_scale(from + 4, i, &to->scale[0], &to->min[0]);
  for (int l = 0; l < TILE_COLS; l++)
    to->code[l] = (unsigned char)((i % 2 ? low[l] >> 4 : low[l] & 15)
                                  | (high ? (high[l] >> i & 1) << 4 : 0));
}


/* Block i = 4 n + j of the eight in Q2_K, Q3_K and Q6_K. */
static void take_k16(uint32_t type, const unsigned char *from, int i,
                     struct run *to) {
  int n = i / 4, j = i % 4;
  for (int l = 0; l < TILE_COLS; l++) {
    int code;
    if (type == ENGINE_Q2_K)
      code = from[16 + 32 * n + l] >> 2 * j & 3;
    else if (type == ENGINE_Q3_K)
      code = (from[32 + 32 * n + l] >> 2 * j & 3) | (from[l] >> i & 1) << 2;
    else
      code = (j < 2 ? from[64 * n + 32 * (j & 1) + l] & 15
                    : from[64 * n + 32 * (j & 1) + l] >> 4)
        | (from[128 + 32 * n + l] >> 2 * j & 3) << 4;
    to->code[l] = (unsigned char)code;
  }
  for (int h = 0; h < 2; h++) {
    int s = 2 * i + h;
    if (type == ENGINE_Q2_K) {
      to->scale[h] = from[s] & 15;
      to->min[h] = from[s] >> 4;
    } else if (type == ENGINE_Q3_K) {
      to->scale[h] = engine_quant_q3_scale(from + 96, s);
    } else {
      to->scale[h] = (signed char)from[192 + s];
    }
  }
  to->d = u16(from + (type == ENGINE_Q2_K ? 80
                      : type == ENGINE_Q3_K ? 108 : 208));
  if (type == ENGINE_Q2_K)
    to->m = u16(from + 82);
}


/* ---- into a tile ---- */

/* Block b of a tile, and where its head is. */
static const unsigned char *block_at(const struct engine_form *f,
                                     const unsigned char *tile, uint32_t b,
                                     const unsigned char **head) {
  uint32_t group = b / HEAD_BLOCKS;
  *head = tile + (size_t)group * (HEAD_BLOCKS * f->bytes + f->head);
  return f->head ? *head + f->head + b % HEAD_BLOCKS * f->bytes
                 : tile + (size_t)b * f->bytes;
}


static void put_u16(unsigned char *at, uint32_t lane, uint16_t n) {
  memcpy(at + 2 * lane, &n, sizeof n);
}


static void put_codes(uint32_t codes, unsigned char *at, uint32_t lane,
                      const unsigned char *code) {
  for (uint32_t c = 0; c < TILE_COLS; c++) {
    uint32_t step = c / 4, byte = 4 * lane + c % 4;
    if (codes == CODES_8) {
      at[32 * step + byte] = code[c];
      continue;
    }
    at[32 * (step % 4) + byte] |= (unsigned char)((code[c] & 15)
                                                  << 4 * (step / 4));
    if (codes == CODES_5)
      at[128 + byte] |= (unsigned char)((code[c] >> 4) << step);
    else if (codes == CODES_6)
      at[128 + 32 * (step / 4) + byte]
        |= (unsigned char)((code[c] >> 4) << 2 * (step % 4));
  }
}


/* A head is written by each of its eight blocks. */
static void put_run(const struct engine_form *f, unsigned char *tile,
                    uint32_t b, uint32_t lane, const struct run *run) {
  const unsigned char *front;
  size_t from = (size_t)(block_at(f, tile, b, &front) - tile);
  unsigned char *block = tile + from, *head = tile + (front - tile);
  if (f->scales == SCALES_K32) {
    block[lane] = (unsigned char)run->scale[0];
    block[8 + lane] = (unsigned char)run->min[0];
  } else if (f->head) {
    for (uint32_t h = 0; h < 2; h++) {
      block[8 * h + lane] = (unsigned char)run->scale[h];
      if (f->scales == SCALES_K16_MIN)
        block[16 + 8 * h + lane] = (unsigned char)run->min[h];
    }
  }
  unsigned char *at = f->head ? head : block;
  put_u16(at, lane, run->d);
  if ((f->head ? f->head : f->front) == 32)
    put_u16(at + 16, lane, run->m);
  put_codes(f->codes, block + f->front, lane, run->code);
}


static size_t tile_bytes(const struct engine_form *f, uint32_t cols) {
  size_t blocks = cols / TILE_COLS;
  return blocks * f->bytes + blocks / HEAD_BLOCKS * f->head;
}


static void pack_row(const struct engine_tiles *t, uint32_t row,
                     const unsigned char *from) {
  const struct engine_quant_type *type = engine_quant_type(t->type);
  unsigned char *tile = t->bytes + row / TILE_ROWS * t->stride;
  for (uint32_t b = 0; b < t->cols / TILE_COLS; b++) {
    struct run run = { .d = 0 };
    const unsigned char *at = from
      + (size_t)(b / (type->values / TILE_COLS)) * type->bytes;
    if (type->values == TILE_COLS)
      take_32(t->type, at, &run);
    else if (t->form->scales == SCALES_K32)
      take_k32(t->type, at, (int)(b % HEAD_BLOCKS), &run);
    else
      take_k16(t->type, at, (int)(b % HEAD_BLOCKS), &run);
    put_run(t->form, tile, b, row % TILE_ROWS, &run);
  }
}


/* ---- a matrix ---- */

void engine_tiles_free(struct engine_tiles *t) {
  if (t)
    mem_free(t->block);
  mem_free(t);
}


uint64_t engine_tiles_bytes(const struct engine_weight_from *from) {
  const struct engine_form *f = form_of(from->type);
  const struct engine_quant_type *type = engine_quant_type(from->type);
  uint64_t rows = from->rows, size;
  size_t stride = f ? tile_bytes(f, from->cols)
    : (size_t)(from->cols / type->values) * type->bytes;
  if (f)
    rows = (rows + TILE_ROWS - 1) / TILE_ROWS;
  return __builtin_mul_overflow(stride, rows, &size)
    || __builtin_add_overflow(size, ALIGN, &size) ? UINT64_MAX : size;
}


/* Rows past the last, of the last tile, are zeros. */
static int take_memory(struct engine_tiles *t, uint64_t size) {
  t->block = size < SIZE_MAX ? mem_calloc(1, (size_t)size) : NULL;
  if (t->block)
    t->bytes = (unsigned char *)(((uintptr_t)t->block + ALIGN - 1)
                                 & ~(uintptr_t)(ALIGN - 1));
  return t->block != NULL;
}


static int read_rows(struct engine_tiles *t,
                     const struct engine_weight_from *from, size_t row_bytes,
                     unsigned char *buffer, drover_err *err) {
  int rc = DROVER_OK;
  for (uint32_t r = 0; r < t->rows && !rc; r += ROWS_A_READ) {
    uint32_t n = t->rows - r < ROWS_A_READ ? t->rows - r : ROWS_A_READ;
    rc = from->read(from->ctx, (uint64_t)r * row_bytes, buffer, n * row_bytes,
                    err);
    for (uint32_t i = 0; i < n && !rc; i++)
      pack_row(t, r + i, buffer + i * row_bytes);
  }
  return rc;
}


/* Floats stay row by row: those types are read as they are. */
static int fill(struct engine_tiles *t, const struct engine_weight_from *from,
                size_t row_bytes, drover_err *err) {
  t->stride = t->form ? tile_bytes(t->form, t->cols) : row_bytes;
  if (!take_memory(t, engine_tiles_bytes(from)))
    return drover_fail(err, DROVER_ENOMEM, "no memory for the model's weights");
  if (!t->form)
    return from->read(from->ctx, 0, t->bytes, t->rows * row_bytes, err);
  unsigned char *buffer = mem_alloc(row_bytes * ROWS_A_READ);
  if (!buffer)
    return drover_fail(err, DROVER_ENOMEM, "no memory for the model's weights");
  int rc = read_rows(t, from, row_bytes, buffer, err);
  mem_free(buffer);
  return rc;
}


int engine_tiles_new(struct engine_tiles **out,
                     const struct engine_weight_from *from, drover_err *err) {
  const struct engine_quant_type *type = engine_quant_type(from->type);
  *out = NULL;
  if (!type || !engine_quant_reads(from->type) || from->cols % type->values)
    return drover_fail(err, DROVER_EFORMAT, "a weight of type %u",
                       (unsigned)from->type);
  struct engine_tiles *t = mem_calloc(1, sizeof *t);
  if (!t)
    return drover_fail(err, DROVER_ENOMEM, "no memory for the model's weights");
  t->type = from->type;
  t->cols = from->cols;
  t->rows = from->rows;
  t->form = form_of(from->type);
  int rc = fill(t, from, (size_t)(from->cols / type->values) * type->bytes,
                err);
  if (rc)
    engine_tiles_free(t);
  else
    *out = t;
  return rc;
}


/* ---- and a row back ---- */

static float half_at(const unsigned char *at, uint32_t lane) {
  return engine_half_float(u16(at + 2 * lane));
}


/* Scale and minimum of a row for one half of a block. */
static void scales_of(const struct engine_form *f, const unsigned char *head,
                      const unsigned char *block, uint32_t lane, uint32_t h,
                      float *pair) {
  uint32_t bits = (uint32_t)u16(block + 2 * lane) << 16;
  pair[1] = 0;
  if (f->scales == SCALES_BF16) {
    memcpy(&pair[0], &bits, sizeof pair[0]);
  } else if (!f->head) {
    pair[0] = half_at(block, lane);
    pair[1] = f->scales == SCALES_MIN ? half_at(block + 16, lane) : 0;
  } else if (f->scales == SCALES_K32) {
    pair[0] = half_at(head, lane) * (float)block[lane];
    pair[1] = -(half_at(head + 16, lane) * (float)block[8 + lane]);
  } else {
    pair[0] = half_at(head, lane) * (float)(signed char)block[8 * h + lane];
    if (f->scales == SCALES_K16_MIN)
      pair[1] = -(half_at(head + 16, lane) * (float)block[16 + 8 * h + lane]);
  }
}


/* 32 codes of one row, less the offset. */
static void codes_of(const struct engine_form *f, const unsigned char *codes,
                     uint32_t lane, int *to) {
  for (uint32_t c = 0; c < TILE_COLS; c++) {
    uint32_t step = c / 4, byte = 4 * lane + c % 4;
    int code = f->codes == CODES_8 ? codes[32 * step + byte]
      : codes[32 * (step % 4) + byte] >> 4 * (step / 4) & 15;
    if (f->codes == CODES_TABLE)
      code = f->table[code] + f->offset;
    else if (f->codes == CODES_5)
      code |= (codes[128 + byte] >> step & 1) << 4;
    else if (f->codes == CODES_6)
      code |= (codes[128 + 32 * (step / 4) + byte] >> 2 * (step % 4) & 3) << 4;
    to[c] = code - f->offset;
  }
}


void engine_tile_block(const struct engine_form *f, const unsigned char *tile,
                       uint32_t b, struct engine_block *out) {
  const unsigned char *head;
  const unsigned char *block = block_at(f, tile, b, &head);
  out->runs = f->scales == SCALES_K16 || f->scales == SCALES_K16_MIN ? 2 : 1;
  for (uint32_t lane = 0; lane < TILE_ROWS; lane++) {
    for (uint32_t h = 0; h < 2; h++) {
      float pair[2];
      scales_of(f, head, block, lane, h, pair);
      out->scale[h][lane] = pair[0];
      out->min[h][lane] = pair[1];
    }
    codes_of(f, block + f->front, lane, out->code[lane]);
  }
}


void engine_tiles_row(const struct engine_tiles *t, uint32_t r, float *to) {
  const struct engine_form *f = t->form;
  if (!f) {
    engine_quant_row(t->type, t->bytes + r * t->stride, t->cols, to);
    return;
  }
  for (uint32_t b = 0; b < t->cols / TILE_COLS; b++, to += TILE_COLS) {
    const unsigned char *head;
    const unsigned char *block = block_at(f, tile_at(t, r / TILE_ROWS), b,
                                          &head);
    int code[TILE_COLS];
    codes_of(f, block + f->front, r % TILE_ROWS, code);
    for (uint32_t h = 0; h < 2; h++) {
      float pair[2];
      scales_of(f, head, block, r % TILE_ROWS, h, pair);
      for (uint32_t c = 16 * h; c < 16 * h + 16; c++) {
        to[c] = pair[0] * (float)code[c];
        if (engine_form_min(f))
          to[c] += pair[1];
      }
    }
  }
}
