/* cpu_avx512: tiles with AVX-512 and VNNI. Two tiles stand side by side in a
 * vector, 16 rows in 16 lanes; a step is one vpdpbusd, codes unsigned, four
 * activations broadcast from memory. See cpu_tile.h for what is computed.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_tile.h"

#if defined __x86_64__

#include <immintrin.h>

#include "cpu_row.h"
#include "quant.h"

#define TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum { ROWS_MAX = 8 };              /* of a batch that share an unpacking */

struct place {                      /* in the two tiles */
  const unsigned char *a, *b;       /* the block, its scales */
  __m512 d, m;                      /* of its 256 */
};


INLINE __m512i both(const unsigned char *a, const unsigned char *b) {
  __m256i low = _mm256_loadu_si256((const void *)a);
  __m256i high = _mm256_loadu_si256((const void *)b);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}


/* 8 and 8 halves as 16 floats. */
INLINE __m512 halves(const unsigned char *a, const unsigned char *b) {
  __m128i low = _mm_loadu_si128((const void *)a);
  __m128i high = _mm_loadu_si128((const void *)b);
  return _mm512_cvtph_ps(_mm256_set_m128i(high, low));
}


INLINE __m128i bytes(const unsigned char *a, const unsigned char *b) {
  return _mm_unpacklo_epi64(_mm_loadl_epi64((const void *)a),
                            _mm_loadl_epi64((const void *)b));
}


/* ---- codes: w[s] is step s of 16 rows ---- */

/* The bits from 4 on of step s: shifted so that they stand there. */
INLINE __m512i high_bits(uint32_t codes, const __m512i *plane, int s) {
  int at = codes == CODES_5 ? s : 2 * (s % 4);
  __m512i from = plane[codes == CODES_5 ? 0 : s / 4];
  __m512i mask = _mm512_set1_epi8(codes == CODES_5 ? 0x10 : 0x30);
  __m512i to = at < 4 ? _mm512_slli_epi16(from, (unsigned)(4 - at))
                      : _mm512_srli_epi16(from, (unsigned)(at - 4));
  return _mm512_and_si512(to, mask);
}


INLINE void unpack(uint32_t codes, const int8_t *table, int32_t offset,
                   const unsigned char *a, const unsigned char *b,
                   __m512i *w) {
  const __m512i low = _mm512_set1_epi8(15);
  if (codes == CODES_8) {
    _Pragma("GCC unroll 8")
    for (int s = 0; s < 8; s++)
      w[s] = both(a + 32 * s, b + 32 * s);
    return;
  }
  _Pragma("GCC unroll 4")
  for (int v = 0; v < 4; v++) {
    __m512i z = both(a + 32 * v, b + 32 * v);
    w[v] = _mm512_and_si512(z, low);
    w[v + 4] = _mm512_and_si512(_mm512_srli_epi16(z, 4), low);
  }
  if (codes == CODES_TABLE) {
    __m128i values = _mm_add_epi8(_mm_loadu_si128((const void *)table),
                                  _mm_set1_epi8((char)offset));
    __m512i all = _mm512_broadcast_i32x4(values);
    _Pragma("GCC unroll 8")
    for (int s = 0; s < 8; s++)
      w[s] = _mm512_shuffle_epi8(all, w[s]);
  } else if (codes == CODES_5 || codes == CODES_6) {
    __m512i plane[2] = { both(a + 128, b + 128), _mm512_setzero_si512() };
    if (codes == CODES_6)
      plane[1] = both(a + 160, b + 160);
    _Pragma("GCC unroll 8")
    for (int s = 0; s < 8; s++)
      w[s] = _mm512_or_si512(w[s], high_bits(codes, plane, s));
  }
}


/* ---- scales ---- */

INLINE int is_halved(uint32_t scales) {
  return scales == SCALES_K16 || scales == SCALES_K16_MIN;
}


INLINE __m512 scale_of(uint32_t scales, const struct place *at, int h) {
  if (scales == SCALES_HALF || scales == SCALES_MIN)
    return halves(at->a, at->b);
  if (scales == SCALES_BF16) {
    __m128i low = _mm_loadu_si128((const void *)at->a);
    __m128i high = _mm_loadu_si128((const void *)at->b);
    __m512i n = _mm512_cvtepu16_epi32(_mm256_set_m128i(high, low));
    return _mm512_castsi512_ps(_mm512_slli_epi32(n, 16));
  }
  __m128i n = bytes(at->a + 8 * h, at->b + 8 * h);
  __m512i wide_n = scales == SCALES_K32 ? _mm512_cvtepu8_epi32(n)
                                        : _mm512_cvtepi8_epi32(n);
  return _mm512_mul_ps(at->d, _mm512_cvtepi32_ps(wide_n));
}


/* at->m is negative already. */
INLINE __m512 min_of(uint32_t scales, const struct place *at, int h) {
  if (scales == SCALES_MIN)
    return halves(at->a + 16, at->b + 16);
  int from = scales == SCALES_K32 ? 8 : 16 + 8 * h;
  __m128i n = bytes(at->a + from, at->b + from);
  return _mm512_mul_ps(at->m, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(n)));
}


INLINE void read_head(uint32_t scales, struct place *at) {
  at->d = halves(at->a, at->b);
  uint32_t size = scales == SCALES_K16 ? 16 : 32;
  if (size == 32)
    at->m = _mm512_sub_ps(_mm512_setzero_ps(),
                          halves(at->a + 16, at->b + 16));
  at->a += size;
  at->b += size;
}


/* ---- a block ---- */

/* Steps first .. first + n of one row of the batch. */
INLINE __m512i steps(const __m512i *w, const int8_t *q, int first, int n) {
  __m512i sum = _mm512_setzero_si512();
  _Pragma("GCC unroll 8")
  for (int s = first; s < first + n; s++) {
    int32_t four;
    memcpy(&four, q + 4 * s, sizeof four);
    sum = _mm512_dpbusd_epi32(sum, w[s], _mm512_set1_epi32(four));
  }
  return sum;
}


/* Integers below 2^24: taking off the offset is exact in floats. */
INLINE __m512 less(int32_t offset, __m512i sum, float whole) {
  __m512 value = _mm512_cvtepi32_ps(sum);
  return offset ? _mm512_fnmadd_ps(_mm512_set1_ps((float)offset),
                                   _mm512_set1_ps(whole), value) : value;
}


INLINE void add_block(const struct engine_form f, const __m512i *w,
                      const __m512 *scale, const __m512 *min,
                      const struct engine_product *at, __m512 *sum) {
  const struct engine_act *act = at->act;
  if (is_halved(f.scales)) {
    _Pragma("GCC unroll 2")
    for (int h = 0; h < 2; h++) {
      __m512 n = less(f.offset, steps(w, at->q, 4 * h, 4), act->half[h]);
      __m512 t = _mm512_mul_ps(_mm512_set1_ps(act->scale), scale[h]);
      *sum = _mm512_fmadd_ps(t, n, *sum);
      if (f.scales == SCALES_K16_MIN)
        *sum = _mm512_fmadd_ps(min[h], _mm512_set1_ps(act->part[h]), *sum);
    }
    return;
  }
  __m512 n = less(f.offset, steps(w, at->q, 0, 8), act->whole);
  __m512 t = _mm512_mul_ps(_mm512_set1_ps(act->scale), scale[0]);
  *sum = _mm512_fmadd_ps(t, n, *sum);
  if (f.scales == SCALES_MIN || f.scales == SCALES_K32)
    *sum = _mm512_fmadd_ps(min[0], _mm512_set1_ps(act->sum), *sum);
}


/* Tile `tile` (or `two`, it and its neighbour) for rows r … of the batch; past
 * the last row the last one is computed again, and not stored. */
INLINE void group(const struct engine_product *p, const struct engine_form f,
                  uint32_t tile, int two, uint32_t r, const uint32_t rows) {
  struct place at = { .a = tile_at(p->w, tile) };
  struct engine_product row[ROWS_MAX];
  __m512 sum[ROWS_MAX], scale[2], min[2];
  at.b = two ? at.a + p->w->stride : at.a;
  at.d = at.m = _mm512_setzero_ps();
  scale[0] = scale[1] = min[0] = min[1] = at.d;
  for (uint32_t i = 0; i < rows; i++) {
    uint32_t n = r + i < p->rows ? r + i : p->rows - 1;
    row[i].q = p->q + n * p->q_ld;
    row[i].act = p->act + n * (p->q_ld / TILE_COLS);
    sum[i] = _mm512_setzero_ps();
  }
  for (uint32_t b = 0; b < p->w->cols / TILE_COLS; b++) {
    __m512i w[8];
    if (f.head && b % 8 == 0)
      read_head(f.scales, &at);
    unpack(f.codes, f.table, f.offset, at.a + f.front, at.b + f.front, w);
    for (int h = 0; h < 1 + is_halved(f.scales); h++) {
      scale[h] = scale_of(f.scales, &at, h);
      if (f.scales == SCALES_MIN || f.scales == SCALES_K32
          || f.scales == SCALES_K16_MIN)
        min[h] = min_of(f.scales, &at, h);
    }
    tile_fetch(at.a, f.bytes);
    tile_fetch(at.b, f.bytes);
    at.a += f.bytes;
    at.b += f.bytes;
    _Pragma("GCC unroll 8")
    for (uint32_t i = 0; i < rows; i++) {
      add_block(f, w, scale, min, &row[i], &sum[i]);
      row[i].q += TILE_COLS;
      row[i].act++;
    }
  }
  for (uint32_t i = 0; i < rows && r + i < p->rows; i++) {
    float out[16];
    _mm512_storeu_ps(out, sum[i]);
    tile_store(p, tile, r + i, out);
    if (two)
      tile_store(p, tile + 1, r + i, out + 8);
  }
}


INLINE void all(const struct engine_product *p, const struct engine_form f,
                uint32_t first, uint32_t end) {
  for (uint32_t tile = first; tile < end; tile += 2)
    for (uint32_t r = 0; r < p->rows; ) {
      uint32_t left = p->rows - r;
      int two = tile + 1 < end;
      if (left == 1)
        group(p, f, tile, two, r, 1);
      else if (left == 2)
        group(p, f, tile, two, r, 2);
      else if (left <= 4)
        group(p, f, tile, two, r, 4);
      else
        group(p, f, tile, two, r, 8);
      r += left > 4 ? 8 : left;
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

INLINE __m512 load16(uint32_t type, const unsigned char *row, size_t at,
                     __mmask16 mask) {
  if (type == ENGINE_F32)
    return _mm512_maskz_loadu_ps(mask, row + 4 * at);
  __m256i n = _mm256_maskz_loadu_epi16(mask, row + 2 * at);
  if (type == ENGINE_F16)
    return _mm512_cvtph_ps(n);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(n), 16));
}


/* The tree of engine_tree16(). */
INLINE float fold(__m512 v) {
  __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(
    _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
  __m128 b = _mm_add_ps(_mm256_castps256_ps128(a),
                        _mm256_extractf128_ps(a, 1));
  __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}


/* Four rows of the matrix by `rows` of the batch. */
INLINE void square(const struct engine_product *p, uint32_t type, uint32_t o,
                   uint32_t r, const uint32_t rows) {
  const unsigned char *w[4];
  const float *x[4];
  __m512 sum[4][4];
  uint32_t cols = p->w->cols;
  for (uint32_t i = 0; i < 4; i++) {
    uint32_t n = o + i < p->end ? o + i : p->end - 1;
    w[i] = p->w->bytes + n * p->w->stride;
    x[i] = p->x + (r + i < p->rows ? r + i : p->rows - 1) * p->x_ld;
    for (uint32_t j = 0; j < 4; j++)
      sum[i][j] = _mm512_setzero_ps();
  }
  for (uint32_t c = 0; c < cols; c += 16) {
    __mmask16 mask = cols - c < 16 ? (__mmask16)((1u << (cols - c)) - 1)
                                   : (__mmask16)0xffff;
    __m512 in[4];
    for (uint32_t j = 0; j < rows; j++)
      in[j] = _mm512_maskz_loadu_ps(mask, x[j] + c);
    _Pragma("GCC unroll 4")
    for (uint32_t i = 0; i < 4; i++) {
      __m512 v = load16(type, w[i], c, mask);
      _Pragma("GCC unroll 4")
      for (uint32_t j = 0; j < rows; j++)
        sum[i][j] = _mm512_mask3_fmadd_ps(v, in[j], sum[i][j], mask);
    }
  }
  for (uint32_t i = 0; i < 4 && o + i < p->end; i++)
    for (uint32_t j = 0; j < rows && r + j < p->rows; j++) {
      uint32_t to = o + i - p->first;
      float out = fold(sum[i][j]);
      p->to[(r + j) * p->to_ld + to] = p->bias ? out + p->bias[to] : out;
    }
}


INLINE void squares(const struct engine_product *p, uint32_t type,
                    uint32_t first, uint32_t end) {
  struct engine_product part = *p;
  part.end = end;
  for (uint32_t o = first; o < end; o += 4)
    for (uint32_t r = 0; r < p->rows; r += 4)
      if (p->rows - r == 1)
        square(&part, type, o, r, 1);
      else if (p->rows - r == 2)
        square(&part, type, o, r, 2);
      else
        square(&part, type, o, r, 4);
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
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(to + i, _mm512_cvtph_ps(
      _mm256_loadu_si256((const void *)(from + i))));
  if (i < n) {
    __mmask16 mask = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1)
                                : (__mmask16)0xffff;
    _mm512_mask_storeu_ps(to + i, mask, _mm512_cvtph_ps(
      _mm256_maskz_loadu_epi16(mask, from + i)));
  }
}


TARGET static void narrow(const float *from, size_t n, uint16_t *to) {
  for (size_t i = 0; i < n; i += 16) {
    __mmask16 mask = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1)
                                : (__mmask16)0xffff;
    __m512 v = _mm512_maskz_loadu_ps(mask, from + i);
    _mm256_mask_storeu_epi16(to + i, mask,
                             _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
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


const struct engine_isa engine_isa_avx512 = {
  .name = "avx512", .tiles = tiles, .floats = floats, .quantise = quantise,
  .widen = widen, .narrow = narrow, .attend = attend, .glu = glu,
};

#endif
