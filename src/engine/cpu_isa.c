/* cpu_isa: what a product over tiles is, in plain C, and which machine has
 * something faster. See cpu_tile.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_tile.h"

#include <math.h>

#include "cpu_row.h"
#include "quant.h"

enum { GROUP = 8 };                 /* rows of a batch for an unpacked block */


/* ---- tiles ---- */

static void add_block(const struct engine_form *f,
                      const struct engine_block *b, const int8_t *q,
                      const struct engine_act *act, float *sums) {
  int width = TILE_COLS / b->runs;
  for (int lane = 0; lane < TILE_ROWS; lane++)
    for (int h = 0; h < b->runs; h++) {
      int32_t sum = 0;
      for (int c = h * width; c < (h + 1) * width; c++)
        sum += b->code[lane][c] * q[c];
      sums[lane] = fmaf(act->scale * b->scale[h][lane], (float)sum,
                        sums[lane]);
      if (engine_form_min(f))
        sums[lane] = fmaf(b->min[h][lane],
                          b->runs == 2 ? act->part[h] : act->sum, sums[lane]);
    }
}


static void tiles(const struct engine_product *p, uint32_t first,
                  uint32_t end) {
  const struct engine_form *f = p->w->form;
  uint32_t blocks = p->w->cols / TILE_COLS;
  for (uint32_t tile = first; tile < end; tile++)
    for (uint32_t r = 0; r < p->rows; r += GROUP) {
      uint32_t n = p->rows - r < GROUP ? p->rows - r : GROUP;
      float sums[GROUP][TILE_ROWS] = { { 0 } };
      for (uint32_t b = 0; b < blocks; b++) {
        struct engine_block block;
        engine_tile_block(f, tile_at(p->w, tile), b, &block);
        for (uint32_t i = 0; i < n; i++)
          add_block(f, &block, p->q + (r + i) * p->q_ld + b * TILE_COLS,
                    p->act + (r + i) * (p->q_ld / TILE_COLS) + b, sums[i]);
      }
      for (uint32_t i = 0; i < n; i++)
        tile_store(p, tile, r + i, sums[i]);
    }
}


/* ---- rows of floats ---- */

/* Element i into sum i mod 16, then a tree. */
static float dot_row(const struct engine_tiles *w, uint32_t row,
                     const float *x) {
  const unsigned char *from = w->bytes + row * w->stride;
  size_t size = engine_quant_type(w->type)->bytes;
  float sums[TILE_LANES] = { 0 };
  for (uint32_t c = 0; c < w->cols; c += TILE_LANES) {
    float value[TILE_LANES];
    uint32_t n = w->cols - c < TILE_LANES ? w->cols - c : TILE_LANES;
    engine_quant_row(w->type, from + c * size, n, value);
    for (uint32_t i = 0; i < n; i++)
      sums[i] = fmaf(value[i], x[c + i], sums[i]);
  }
  return engine_tree16(sums);
}


static void floats(const struct engine_product *p, uint32_t first,
                   uint32_t end) {
  for (uint32_t o = first; o < end; o++)
    for (uint32_t r = 0; r < p->rows; r++) {
      float sum = dot_row(p->w, o, p->x + r * p->x_ld);
      uint32_t to = o - p->first;
      p->to[r * p->to_ld + to] = p->bias ? sum + p->bias[to] : sum;
    }
}


/* ---- halves ---- */

static void widen(const uint16_t *from, size_t n, float *to) {
  for (size_t i = 0; i < n; i++)
    to[i] = engine_half_float(from[i]);
}


static void narrow(const float *from, size_t n, uint16_t *to) {
  for (size_t i = 0; i < n; i++)
    to[i] = engine_float_half(from[i]);
}


static void quantise(const float *x, uint32_t n, int8_t *q,
                     struct engine_act *act) {
  engine_quantise_row(x, n, q, act);
}


static void attend(const struct engine_isa *isa,
                   const struct engine_attend *a) {
  engine_attend_row(isa, a);
}


static void glu(int kind, const float *gate, const float *up, uint32_t n,
                float *to) {
  engine_glu_row(kind, gate, up, n, to);
}


const struct engine_isa engine_isa_plain = {
  .name = "plain", .tiles = tiles, .floats = floats, .quantise = quantise,
  .widen = widen, .narrow = narrow, .attend = attend, .glu = glu,
};


/* ---- which ---- */

/* The compiler's own check: CPUID, and XGETBV for what the system saves. */
static int runs(const struct engine_isa *isa) {
#if defined __x86_64__
  __builtin_cpu_init();
  int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == &engine_isa_avx2)
    return avx2;
  if (isa == &engine_isa_avx512)
    return avx2 && __builtin_cpu_supports("avx512f")
      && __builtin_cpu_supports("avx512bw")
      && __builtin_cpu_supports("avx512vl")
      && __builtin_cpu_supports("avx512vnni");
#endif
  return isa == &engine_isa_plain;
}


const struct engine_isa *engine_isa_find(const char *name) {
  static const struct engine_isa *const best[] = {
#if defined __x86_64__
    &engine_isa_avx512, &engine_isa_avx2,
#endif
    &engine_isa_plain,
  };
  for (size_t i = 0; i < sizeof best / sizeof best[0]; i++)
    if ((!name || !strcmp(name, best[i]->name)) && runs(best[i]))
      return best[i];
  return NULL;
}
