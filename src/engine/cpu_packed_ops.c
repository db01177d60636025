/* cpu_packed_ops: products, norms and gated units of the packed backend. See
 * cpu_packed.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_math.h"
#include "cpu_packed.h"

#include <math.h>

/* Less work than this is done by the caller while the others wait awake: some
 * microseconds. */
enum { ALONE_FLOATS = 12288 };

/* Rows of a weight that are taken at once: a multiple of two tiles. */
enum { CHUNK_MIN = 32, CHUNK_MAX = 256, CHUNKS_A_THREAD = 8 };


/* ---- rows ---- */

void engine_packed_rows(struct engine_state *s, uint32_t rows, uint32_t floats,
                        engine_chunk_fn fn, void *ctx) {
  if ((uint64_t)rows * floats > ALONE_FLOATS) {
    engine_pool_run(s->pool, rows, fn, ctx);
    return;
  }
  for (uint32_t r = 0; r < rows; r++)
    fn(ctx, r, 0);
}


void engine_packed_fresh(struct engine_state *s, const struct engine_buffer *b,
                         uint32_t rows, uint32_t cols) {
  struct packed_quant *now = &s->quant[s->now];
  now->of = cols % TILE_COLS ? NULL : b;
  now->version = b->version;
  now->rows = rows;
  now->cols = cols;
}


void engine_packed_quantise(struct engine_state *s,
                            const struct engine_buffer *b, uint32_t r) {
  const struct packed_quant *now = &s->quant[s->now];
  if (now->of == b)
    s->isa->quantise(row_of(b, r), now->cols, now->q + (size_t)r * now->cols,
                     now->act + (size_t)r * (now->cols / TILE_COLS));
}


struct quantise {
  struct engine_state *s;
  const struct engine_buffer *b;
};


static void quantise_row(void *ctx, uint32_t row, uint32_t thread) {
  const struct quantise *c = ctx;
  (void)thread;
  engine_packed_quantise(c->s, c->b, row);
}


/* ---- products ---- */

struct engine_product engine_packed_product(struct engine_state *s,
                                            const struct engine_linear *w,
                                            const struct engine_buffer *act,
                                            uint32_t rows) {
  const struct engine_tiles *t = tiles_of(w->w);
  struct packed_quant *now = &s->quant[s->now];
  if (t->form && (now->of != act || now->version != act->version
                  || now->cols != t->cols || now->rows < rows)) {
    struct quantise c = { s, act };
    engine_packed_flush(s);         /* what is put off reads the old ones */
    now = &s->quant[s->now];
    engine_packed_fresh(s, act, rows, t->cols);
    engine_packed_rows(s, rows, t->cols, quantise_row, &c);
  }
  return (struct engine_product){
    .w = t, .q = now->q, .act = now->act, .q_ld = t->cols,
    .x = act->at, .x_ld = act->width, .rows = rows,
    .first = 0, .end = t->rows, .bias = floats_of(w->bias),
  };
}


void engine_packed_part(const struct engine_isa *isa,
                        const struct engine_product *p, uint32_t first,
                        uint32_t end) {
  struct engine_product part = *p;
  part.first = first;
  part.end = end;
  part.to = p->to + (first - p->first);
  part.bias = p->bias ? p->bias + (first - p->first) : NULL;
  if (p->w->form)
    isa->tiles(&part, first / TILE_ROWS, (end + TILE_ROWS - 1) / TILE_ROWS);
  else
    isa->floats(&part, first, end);
}


struct phase {                      /* all that was put off, cut into chunks */
  struct engine_state *s;
  uint32_t size;                    /* rows of a chunk */
  uint32_t start[PENDING_MAX + 1];  /* first chunk of each product */
  float    scale, cap;              /* of logits; 1 and 0 otherwise */
};


static uint32_t chunk_rows(const struct engine_state *s, uint64_t rows) {
  uint64_t share = rows / (engine_pool_threads(s->pool) * CHUNKS_A_THREAD);
  if (share > CHUNK_MAX)
    return CHUNK_MAX;
  return share < CHUNK_MIN ? CHUNK_MIN : (uint32_t)share / 32 * 32;
}


/* Experts' and odd matrices end inside a tile, none begins there. */
static void run_chunk(void *ctx, uint32_t chunk, uint32_t thread) {
  const struct phase *ph = ctx;
  uint32_t i = 0;
  (void)thread;
  while (chunk >= ph->start[i + 1])
    i++;
  const struct engine_product *p = &ph->s->pending[i];
  uint32_t first = (chunk - ph->start[i]) * ph->size;
  uint32_t end = p->end - first < ph->size ? p->end : first + ph->size;
  engine_packed_part(ph->s->isa, p, first, end);
  for (uint32_t r = 0; (ph->scale != 1 || ph->cap > 0) && r < p->rows; r++) {
    float *row = p->to + (size_t)r * p->to_ld;
    for (uint32_t o = first; o < end; o++) {
      row[o] *= ph->scale;
      if (ph->cap > 0)
        row[o] = ph->cap * tanhf(row[o] / ph->cap);
    }
  }
}


static void run_pending(struct engine_state *s, float scale, float cap) {
  struct phase ph = { .s = s, .scale = scale, .cap = cap };
  uint64_t rows = 0;
  for (uint32_t i = 0; i < s->pendings; i++)
    rows += s->pending[i].end;
  ph.size = chunk_rows(s, rows);
  for (uint32_t i = 0; i < s->pendings; i++)
    ph.start[i + 1] = ph.start[i]
      + (s->pending[i].end + ph.size - 1) / ph.size;
  if (s->pendings)
    engine_pool_run(s->pool, ph.start[s->pendings], run_chunk, &ph);
  s->pendings = 0;
}


void engine_packed_flush(struct engine_state *s) {
  run_pending(s, 1, 0);
}


static void put_off(struct engine_state *s, struct engine_product p,
                    struct engine_buffer *y, uint32_t at) {
  p.to = y->at + at;
  p.to_ld = y->width;
  y->version++;
  s->pending[s->pendings++] = p;
}


/* Is one that is put off going to write what this one reads? */
static int is_awaited(const struct engine_state *s,
                      const struct engine_buffer *act) {
  const float *end = act->at + (size_t)act->rows * act->width;
  for (uint32_t i = 0; i < s->pendings; i++)
    if (s->pending[i].to >= act->at && s->pending[i].to < end)
      return 1;
  return 0;
}


/* Put off: the next op that is no product computes it. */
void engine_packed_matmul(struct engine_state *s, struct engine_buffer *y,
                          uint32_t at, const struct engine_buffer *act,
                          const struct engine_linear *w) {
  if (s->pendings == PENDING_MAX || is_awaited(s, act))
    engine_packed_flush(s);
  struct engine_product p = engine_packed_product(s, w, act,
                                                  (uint32_t)s->rows->rows);
  put_off(s, p, y, at);
}


void engine_packed_logits(struct engine_state *s, struct engine_buffer *y,
                          const struct engine_buffer *act,
                          const struct engine_weight *w) {
  struct engine_linear l = { (struct engine_weight *)(uintptr_t)w, NULL };
  engine_packed_flush(s);
  put_off(s, engine_packed_product(s, &l, act, (uint32_t)s->rows->outs), y, 0);
  run_pending(s, s->shape.logit_scale, s->shape.logit_cap);
}


/* ---- norms ---- */

struct norm {
  struct engine_state *s;
  struct engine_buffer *act, *x;    /* x alone: norm_own */
  const struct engine_buffer *add;
  const float *gain;
  const int32_t *from;              /* rows of x for those of act; or NULL */
};


static void norm_row(void *ctx, uint32_t row, uint32_t thread) {
  const struct norm *c = ctx;
  const struct engine_shape *shape = &c->s->shape;
  uint32_t from = c->from ? (uint32_t)c->from[row] : row, n = shape->width;
  float *x = row_of(c->x, from), scale = shape->residual_scale;
  float *to = row_of(c->act, row);
  (void)thread;
  if (c->add) {
    const float *add = row_of(c->add, from);
    for (uint32_t i = 0; i < n; i++)
      x[i] += scale == 1 ? add[i] : add[i] * scale;
  }
  if (c->gain)
    engine_cpu_norm_row(to, x, c->gain, n, shape->eps);
  else
    memcpy(to, x, n * sizeof *to);
  if (c->act != c->x)
    engine_packed_quantise(c->s, c->act, row);
}


static void run_norm(struct norm *c, uint32_t rows) {
  engine_packed_flush(c->s);
  c->act->version++;
  if (c->act != c->x) {
    c->x->version++;
    engine_packed_fresh(c->s, c->act, rows, c->s->shape.width);
  }
  engine_packed_rows(c->s, rows, c->s->shape.width, norm_row, c);
}


void engine_packed_norm(struct engine_state *s, struct engine_buffer *act,
                        struct engine_buffer *x,
                        const struct engine_buffer *add,
                        const struct engine_weight *gain) {
  struct norm c = { s, act, x, add, floats_of(gain), NULL };
  run_norm(&c, (uint32_t)s->rows->rows);
}


void engine_packed_norm_own(struct engine_state *s, struct engine_buffer *y,
                            const struct engine_weight *gain) {
  struct norm c = { s, y, y, NULL, floats_of(gain), NULL };
  run_norm(&c, (uint32_t)s->rows->rows);
}


/* x takes the sum here too; nobody reads it any more. */
void engine_packed_gather(struct engine_state *s, struct engine_buffer *act,
                          const struct engine_buffer *x,
                          const struct engine_buffer *add,
                          const struct engine_weight *gain) {
  struct engine_buffer *to = (struct engine_buffer *)(uintptr_t)x;
  struct norm c = { s, act, to, add, floats_of(gain), s->rows->out_row };
  run_norm(&c, (uint32_t)s->rows->outs);
}


void engine_packed_embed(struct engine_state *s, struct engine_buffer *x,
                         const struct engine_weight *w) {
  const struct engine_tiles *t = tiles_of(w);
  float scale = s->shape.embed_scale;
  engine_packed_flush(s);
  x->version++;
  for (int r = 0; r < s->rows->rows; r++) {
    float *to = row_of(x, (uint32_t)r);
    engine_tiles_row(t, (uint32_t)s->rows->token[r], to);
    for (uint32_t i = 0; scale != 1 && i < t->cols; i++)
      to[i] *= scale;
  }
}


/* ---- gated units ---- */

struct glu {
  struct engine_state *s;
  const struct engine_product *gate, *up;       /* NULL: computed already */
  uint32_t up_from;                 /* of its rows; gate's begin at 0 */
  uint32_t size;                    /* units of a chunk */
  const struct packed_quant *to;    /* or NULL */
  struct engine_buffer *act;
  const struct engine_buffer *gu;
};


/* Gate, up and the unit of some of the hidden layer, for all rows: what was
 * just computed is read from the cache. */
static void glu_chunk(void *ctx, uint32_t chunk, uint32_t thread) {
  const struct glu *c = ctx;
  uint32_t ff = c->s->shape.ff, first = chunk * c->size;
  uint32_t n = ff - first < c->size ? ff - first : c->size;
  (void)thread;
  if (c->gate) {
    engine_packed_part(c->s->isa, c->gate, first, first + n);
    engine_packed_part(c->s->isa, c->up, c->up_from + first,
                       c->up_from + first + n);
  }
  for (uint32_t r = 0; r < (uint32_t)c->s->rows->rows; r++) {
    const float *gate = row_of(c->gu, r) + first;
    float *to = row_of(c->act, r) + first;
    c->s->isa->glu(c->s->shape.arch->glu, gate, gate + ff, n, to);
    if (c->to)
      c->s->isa->quantise(to, n, c->to->q + (size_t)r * ff + first,
                          c->to->act + ((size_t)r * ff + first) / TILE_COLS);
  }
}


/* Are the products that are put off gate and up of this buffer, and may act be
 * written while they run? (Floats are read from it; int8 are not.) */
static int may_fuse(const struct engine_state *s,
                    const struct engine_buffer *gu) {
  const struct engine_product *p = s->pending;
  uint32_t ff = s->shape.ff;
  if (ff % TILE_COLS || !s->pendings || p[0].to != gu->at || !p[0].w->form)
    return 0;
  if (s->pendings == 1)
    return p[0].end == 2 * ff;
  return s->pendings == 2 && p[0].end == ff && p[1].end == ff
    && p[1].to == gu->at + ff && p[1].w->form;
}


void engine_packed_glu(struct engine_state *s, struct engine_buffer *act,
                       const struct engine_buffer *gu) {
  uint32_t ff = s->shape.ff;
  struct glu c = { .s = s, .act = act, .gu = gu };
  c.size = chunk_rows(s, 2 * (uint64_t)ff) / 2;
  c.size = c.size < 32 ? 32 : c.size / 32 * 32;
  if (may_fuse(s, gu)) {
    int single = s->pendings == 1;
    c.gate = &s->pending[0];
    c.up = &s->pending[single ? 0 : 1];
    c.up_from = single ? ff : 0;
  } else {
    engine_packed_flush(s);
  }
  s->now = !s->now;                 /* the products read the other */
  act->version++;
  engine_packed_fresh(s, act, (uint32_t)s->rows->rows, ff);
  c.to = s->quant[s->now].of ? &s->quant[s->now] : NULL;
  engine_pool_run(s->pool, (ff + c.size - 1) / c.size, glu_chunk, &c);
  s->pendings = 0;
}
