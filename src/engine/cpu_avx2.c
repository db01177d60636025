/* cpu_avx2: tiles with AVX2 and FMA. A tile's 8 rows are 8 lanes; a step is one
 * vpmaddubsw, codes unsigned, four activations broadcast.
 *
 * Pairs of products go into 16 bits, and as many steps as fit are added there
 * before they are widened: eight of 4-bit codes (8 * 2 * 15 * 127 < 2^15), four
 * of five bits, two of six. Codes of eight bits are two of four: sixteen times
 * the upper one's sum, and the lower one's. All of it is exact. See cpu_tile.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_tile.h"

#if defined __x86_64__

#include <immintrin.h>

#include "cpu_row.h"
#include "quant.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { ROWS_MAX = 4 };              /* of a batch that share an unpacking */

struct place {
  const unsigned char *at;          /* the block, its scales */
  __m256 d, m;                      /* of its 256 */
};


INLINE __m256i load(const unsigned char *at) {
  return _mm256_loadu_si256((const void *)at);
}


INLINE __m256 halves(const unsigned char *at) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const void *)at));
}


/* ---- codes: w[s] is step s of 8 rows ---- */

/* The bits from 4 on of step s: shifted so that they stand there. */
INLINE __m256i high_bits(uint32_t codes, const __m256i *plane, int s) {
  int at = codes == CODES_5 ? s : 2 * (s % 4);
  __m256i from = plane[codes == CODES_5 ? 0 : s / 4];
  __m256i mask = _mm256_set1_epi8(codes == CODES_5 ? 0x10 : 0x30);
  __m256i to = at < 4 ? _mm256_slli_epi16(from, 4 - at)
                      : _mm256_srli_epi16(from, at - 4);
  return _mm256_and_si256(to, mask);
}


/* Of eight bits, `part` 0 the lower four, 1 the upper four. */
INLINE void unpack(uint32_t codes, const int8_t *table, int32_t offset,
                   const unsigned char *a, int part, __m256i *w) {
  const __m256i low = _mm256_set1_epi8(15);
  if (codes == CODES_8) {
    _Pragma("GCC unroll 8")
    for (int s = 0; s < 8; s++)
      w[s] = _mm256_and_si256(part ? _mm256_srli_epi16(load(a + 32 * s), 4)
                                   : load(a + 32 * s), low);
    return;
  }
  _Pragma("GCC unroll 4")
  for (int v = 0; v < 4; v++) {
    __m256i z = load(a + 32 * v);
    w[v] = _mm256_and_si256(z, low);
    w[v + 4] = _mm256_and_si256(_mm256_srli_epi16(z, 4), low);
  }
  if (codes == CODES_TABLE) {
    __m128i values = _mm_add_epi8(_mm_loadu_si128((const void *)table),
                                  _mm_set1_epi8((char)offset));
    if (part)
      values = _mm_srli_epi16(values, 4);
    values = _mm_and_si128(values, _mm_set1_epi8(15));
    __m256i all = _mm256_broadcastsi128_si256(values);
    _Pragma("GCC unroll 8")
    for (int s = 0; s < 8; s++)
      w[s] = _mm256_shuffle_epi8(all, w[s]);
  } else if (codes == CODES_5 || codes == CODES_6) {
    __m256i plane[2] = { load(a + 128), _mm256_setzero_si256() };
    if (codes == CODES_6)
      plane[1] = load(a + 160);
    _Pragma("GCC unroll 8")
    for (int s = 0; s < 8; s++)
      w[s] = _mm256_or_si256(w[s], high_bits(codes, plane, s));
  }
}


/* ---- scales ---- */

INLINE int is_halved(uint32_t scales) {
  return scales == SCALES_K16 || scales == SCALES_K16_MIN;
}


INLINE __m256 scale_of(uint32_t scales, const struct place *at, int h) {
  if (scales == SCALES_HALF || scales == SCALES_MIN)
    return halves(at->at);
  if (scales == SCALES_BF16) {
    __m256i n = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)at->at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(n, 16));
  }
  __m128i n = _mm_loadl_epi64((const void *)(at->at + 8 * h));
  __m256i wide_n = scales == SCALES_K32 ? _mm256_cvtepu8_epi32(n)
                                        : _mm256_cvtepi8_epi32(n);
  return _mm256_mul_ps(at->d, _mm256_cvtepi32_ps(wide_n));
}


/* at->m is negative already. */
INLINE __m256 min_of(uint32_t scales, const struct place *at, int h) {
  if (scales == SCALES_MIN)
    return halves(at->at + 16);
  int from = scales == SCALES_K32 ? 8 : 16 + 8 * h;
  __m128i n = _mm_loadl_epi64((const void *)(at->at + from));
  return _mm256_mul_ps(at->m, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(n)));
}


INLINE void read_head(uint32_t scales, struct place *at) {
  at->d = halves(at->at);
  if (scales != SCALES_K16)
    at->m = _mm256_sub_ps(_mm256_setzero_ps(), halves(at->at + 16));
  at->at += scales == SCALES_K16 ? 16 : 32;
}


/* ---- a block ---- */

/* Steps first .. first + n of one row; `fit` of them, which divides n, fit into
 * 16 bits. */
INLINE __m256i steps(const __m256i *w, const int8_t *q, int first, int n,
                     int fit) {
  const __m256i one = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
  _Pragma("GCC unroll 8")
  for (int s = first; s < first + n; s += fit) {
    __m256i pairs = _mm256_setzero_si256();
    _Pragma("GCC unroll 8")
    for (int i = 0; i < fit; i++) {
      int32_t four;
      memcpy(&four, q + 4 * (s + i), sizeof four);
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(
        w[s + i], _mm256_set1_epi32(four)));
    }
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, one));
  }
  return sum;
}


/* Integers below 2^24: taking off the offset is exact in floats. */
INLINE __m256 less(int32_t offset, __m256i sum, float whole) {
  __m256 value = _mm256_cvtepi32_ps(sum);
  return offset ? _mm256_fnmadd_ps(_mm256_set1_ps((float)offset),
                                   _mm256_set1_ps(whole), value) : value;
}


INLINE void add_block(const struct engine_form f, const __m256i *n,
                      const __m256 *scale, const __m256 *min,
                      const struct engine_act *act, __m256 *sum) {
  int halved = is_halved(f.scales);
  _Pragma("GCC unroll 2")
  for (int h = 0; h < 1 + halved; h++) {
    __m256 whole = less(f.offset, n[h], halved ? act->half[h] : act->whole);
    __m256 t = _mm256_mul_ps(_mm256_set1_ps(act->scale), scale[h]);
    *sum = _mm256_fmadd_ps(t, whole, *sum);
    if (f.scales == SCALES_MIN || f.scales == SCALES_K32
        || f.scales == SCALES_K16_MIN)
      *sum = _mm256_fmadd_ps(min[h], _mm256_set1_ps(halved ? act->part[h]
                                                           : act->sum), *sum);
  }
}


/* Integer sums of `rows` rows over the block at `codes`. */
INLINE void sums_of(const struct engine_form f, const unsigned char *codes,
                    const struct engine_product *row, const uint32_t rows,
                    __m256i n[ROWS_MAX][2]) {
  int halved = is_halved(f.scales), eight = f.codes == CODES_8
    || f.codes == CODES_TABLE;
  int fit = f.codes == CODES_5 ? 4 : f.codes == CODES_6 ? 2 : halved ? 4 : 8;
  __m256i w[8];
  unpack(f.codes, f.table, f.offset, codes, eight, w);
  _Pragma("GCC unroll 4")
  for (uint32_t i = 0; i < rows; i++) {
    n[i][0] = steps(w, row[i].q, 0, halved ? 4 : 8, fit);
    if (halved)
      n[i][1] = steps(w, row[i].q, 4, 4, fit);
  }
  if (!eight)
    return;
  unpack(f.codes, f.table, f.offset, codes, 0, w);
  _Pragma("GCC unroll 4")
  for (uint32_t i = 0; i < rows; i++)
    n[i][0] = _mm256_add_epi32(_mm256_slli_epi32(n[i][0], 4),
                               steps(w, row[i].q, 0, 8, fit));
}


/* One tile for rows r … of the batch; past the last row the last one is
 * computed again, and not stored. */
INLINE void group(const struct engine_product *p, const struct engine_form f,
                  uint32_t tile, uint32_t r, const uint32_t rows) {
  struct place at = { .at = tile_at(p->w, tile) };
  struct engine_product row[ROWS_MAX];
  __m256 sum[ROWS_MAX], scale[2], min[2];
  at.d = at.m = _mm256_setzero_ps();
  scale[0] = scale[1] = min[0] = min[1] = at.d;
  for (uint32_t i = 0; i < rows; i++) {
    uint32_t n = r + i < p->rows ? r + i : p->rows - 1;
    row[i].q = p->q + n * p->q_ld;
    row[i].act = p->act + n * (p->q_ld / TILE_COLS);
    sum[i] = _mm256_setzero_ps();
  }
  for (uint32_t b = 0; b < p->w->cols / TILE_COLS; b++) {
    __m256i n[ROWS_MAX][2];
    if (f.head && b % 8 == 0)
      read_head(f.scales, &at);
    sums_of(f, at.at + f.front, row, rows, n);
    for (int h = 0; h < 1 + is_halved(f.scales); h++) {
      scale[h] = scale_of(f.scales, &at, h);
      if (f.scales == SCALES_MIN || f.scales == SCALES_K32
          || f.scales == SCALES_K16_MIN)
        min[h] = min_of(f.scales, &at, h);
    }
    tile_fetch(at.at, f.bytes);
    at.at += f.bytes;
    _Pragma("GCC unroll 4")
    for (uint32_t i = 0; i < rows; i++) {
      add_block(f, n[i], scale, min, row[i].act, &sum[i]);
      row[i].q += TILE_COLS;
      row[i].act++;
    }
  }
  for (uint32_t i = 0; i < rows && r + i < p->rows; i++) {
    float out[8];
    _mm256_storeu_ps(out, sum[i]);
    tile_store(p, tile, r + i, out);
  }
}


INLINE void all(const struct engine_product *p, const struct engine_form f,
                uint32_t first, uint32_t end) {
  for (uint32_t tile = first; tile < end; tile++)
    for (uint32_t r = 0; r < p->rows; ) {
      uint32_t left = p->rows - r;
      if (left == 1)
        group(p, f, tile, r, 1);
      else if (left == 2)
        group(p, f, tile, r, 2);
      else
        group(p, f, tile, r, 4);
      r += left > 2 ? 4 : left;
    }
}


/* A copy of the loops for each form: what a form is must be a constant in
 * them. */
#define FORM(name, codes_, scales_, offset_, head_, front_, bytes_) \
  TARGET static void name(const struct engine_product *p, uint32_t first, \
                          uint32_t end) { \
    const struct engine_form f = { \
      .codes = codes_, .scales = scales_, .offset = offset_, .head = head_, \
      .front = front_, .bytes = bytes_, .table = p->w->form->table \
    }; \
    all(p, f, first, end); \
  }

FORM(q4_0, CODES_4, SCALES_HALF, 8, 0, 16, 144)
FORM(q4_1, CODES_4, SCALES_MIN, 0, 0, 32, 160)
FORM(q5_0, CODES_5, SCALES_HALF, 16, 0, 16, 176)
FORM(q5_1, CODES_5, SCALES_MIN, 0, 0, 32, 192)
FORM(q8_0, CODES_8, SCALES_HALF, 128, 0, 16, 272)
FORM(q2_k, CODES_4, SCALES_K16_MIN, 0, 32, 32, 160)
FORM(q3_k, CODES_4, SCALES_K16, 4, 16, 16, 144)
FORM(q4_k, CODES_4, SCALES_K32, 0, 32, 16, 144)
FORM(q5_k, CODES_5, SCALES_K32, 0, 32, 16, 176)
FORM(q6_k, CODES_6, SCALES_K16, 32, 16, 16, 208)
FORM(iq4_nl, CODES_TABLE, SCALES_HALF, 128, 0, 16, 144)
FORM(mxfp4, CODES_TABLE, SCALES_BF16, 128, 0, 16, 144)


static void tiles(const struct engine_product *p, uint32_t first,
                  uint32_t end) {
  switch (p->w->type) {
    case ENGINE_Q4_0: q4_0(p, first, end); break;
    case ENGINE_Q4_1: q4_1(p, first, end); break;
    case ENGINE_Q5_0: q5_0(p, first, end); break;
    case ENGINE_Q5_1: q5_1(p, first, end); break;
    case ENGINE_Q8_0: q8_0(p, first, end); break;
    case ENGINE_Q2_K: q2_k(p, first, end); break;
    case ENGINE_Q3_K: q3_k(p, first, end); break;
    case ENGINE_Q4_K: q4_k(p, first, end); break;
    case ENGINE_Q5_K: q5_k(p, first, end); break;
    case ENGINE_Q6_K: q6_k(p, first, end); break;
    case ENGINE_IQ4_NL: iq4_nl(p, first, end); break;
    default: mxfp4(p, first, end); break;
  }
}


/* ---- rows of floats ---- */

INLINE __m256 load8(uint32_t type, const unsigned char *row, size_t at) {
  if (type == ENGINE_F32)
    return _mm256_loadu_ps((const void *)(row + 4 * at));
  __m128i n = _mm_loadu_si128((const void *)(row + 2 * at));
  if (type == ENGINE_F16)
    return _mm256_cvtph_ps(n);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(n), 16));
}


/* What is left behind input c, and the tree. */
INLINE float finish(const struct engine_product *p, uint32_t o, uint32_t r,
                    uint32_t c, const __m256 *sum) {
  const struct engine_tiles *w = p->w;
  float sums[TILE_LANES], value[TILE_LANES];
  _mm256_storeu_ps(sums, sum[0]);
  _mm256_storeu_ps(sums + 8, sum[1]);
  uint32_t left = w->cols - c;
  if (left)
    engine_quant_row(w->type, w->bytes + o * w->stride
                     + c * (size_t)engine_quant_type(w->type)->bytes, left,
                     value);
  for (uint32_t i = 0; i < left; i++)
    sums[i] = fmaf(value[i], p->x[r * p->x_ld + c + i], sums[i]);
  return engine_tree16(sums);
}


/* Two rows of the matrix by two of the batch, or by one. */
INLINE void square(const struct engine_product *p, uint32_t type, uint32_t o,
                   uint32_t r, const uint32_t rows) {
  const unsigned char *w[2];
  const float *x[2];
  __m256 sum[2][2][2];
  uint32_t c = 0, cols = p->w->cols;
  for (uint32_t i = 0; i < 2; i++) {
    uint32_t n = o + i < p->end ? o + i : p->end - 1;
    w[i] = p->w->bytes + n * p->w->stride;
    x[i] = p->x + (r + i < p->rows ? r + i : p->rows - 1) * p->x_ld;
    for (uint32_t j = 0; j < 4; j++)
      sum[i][j / 2][j % 2] = _mm256_setzero_ps();
  }
  for (; c + TILE_LANES <= cols; c += TILE_LANES)
    _Pragma("GCC unroll 4")
    for (uint32_t i = 0; i < 4; i++) {
      uint32_t half = i % 2;
      __m256 v = load8(type, w[i / 2], c + 8 * half);
      _Pragma("GCC unroll 2")
      for (uint32_t j = 0; j < rows; j++)
        sum[i / 2][j][half] = _mm256_fmadd_ps(
          v, _mm256_loadu_ps(x[j] + c + 8 * half), sum[i / 2][j][half]);
    }
  for (uint32_t i = 0; i < 2 && o + i < p->end; i++)
    for (uint32_t j = 0; j < rows && r + j < p->rows; j++) {
      uint32_t to = o + i - p->first;
      float out = finish(p, o + i, r + j, c, sum[i][j]);
      p->to[(r + j) * p->to_ld + to] = p->bias ? out + p->bias[to] : out;
    }
}


INLINE void squares(const struct engine_product *p, uint32_t type,
                    uint32_t first, uint32_t end) {
  struct engine_product part = *p;
  part.end = end;
  for (uint32_t o = first; o < end; o += 2)
    for (uint32_t r = 0; r < p->rows; r += 2)
      if (p->rows - r == 1)
        square(&part, type, o, r, 1);
      else
        square(&part, type, o, r, 2);
}


TARGET static void floats(const struct engine_product *p, uint32_t first,
                          uint32_t end) {
  if (p->w->type == ENGINE_F32)
    squares(p, ENGINE_F32, first, end);
  else if (p->w->type == ENGINE_F16)
    squares(p, ENGINE_F16, first, end);
  else
    squares(p, ENGINE_BF16, first, end);
}


/* ---- the rest ---- */

TARGET static void widen(const uint16_t *from, size_t n, float *to) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i, halves((const void *)(from + i)));
  for (; i < n; i++)
    to[i] = engine_half_float(from[i]);
}


TARGET static void narrow(const float *from, size_t n, uint16_t *to) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128((void *)(to + i), _mm256_cvtps_ph(
      _mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; i++)
    to[i] = engine_float_half(from[i]);
}


TARGET static void quantise(const float *x, uint32_t n, int8_t *q,
                            struct engine_act *act) {
  engine_quantise_row(x, n, q, act);
}


TARGET static void attend(const struct engine_isa *isa,
                          const struct engine_attend *a) {
  engine_attend_row(isa, a);
}


TARGET static void glu(int kind, const float *gate, const float *up,
                       uint32_t n, float *to) {
  engine_glu_row(kind, gate, up, n, to);
}


const struct engine_isa engine_isa_avx2 = {
  .name = "avx2", .tiles = tiles, .floats = floats, .quantise = quantise,
  .widen = widen, .narrow = narrow, .attend = attend, .glu = glu,
};

#endif
