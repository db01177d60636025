/* cpu_packed_moe: mixtures of experts of the packed backend.
 *
 * Some rows at a time, three phases: gate and up of each row's experts with
 * their unit, down, and the sum in the order in which they were chosen. Each
 * pair of row and expert is a product with one row: its bits know no other.
 *
 * SPDX-License-Identifier: MIT */
#include "cpu_math.h"
#include "cpu_packed.h"

enum { CHUNK = 64 };                /* outputs of an expert; whole 32s */

struct moe {
  struct engine_state *s;
  const struct engine_experts *e;
  struct engine_product gate, up;   /* inputs of row 0 */
  struct engine_buffer *y;
  uint32_t row;                     /* the first of this round */
};


static uint32_t chunks(uint32_t outputs) {
  return (outputs + CHUNK - 1) / CHUNK;
}


/* Of expert `expert`, its outputs range[0] … range[1], of a matrix with `high`
 * outputs an expert; p's inputs and `to` are the pair's. */
static void part(const struct engine_isa *isa, struct engine_product p,
                 const struct engine_linear *l, uint32_t high,
                 uint32_t expert, const uint32_t *range) {
  uint32_t from = expert * high;
  p.w = tiles_of(l->w);
  p.rows = 1;
  p.first = from;
  p.bias = l->bias ? floats_of(l->bias) + from : NULL;
  engine_packed_part(isa, &p, from + range[0], from + range[1]);
}


static void hidden_chunk(void *ctx, uint32_t chunk, uint32_t thread) {
  const struct moe *c = ctx;
  const struct engine_shape *shape = &c->s->shape;
  const struct packed_mix *m = &c->s->mix;
  uint32_t ff = shape->ff, pair = chunk / chunks(ff);
  uint32_t row = c->row + pair / shape->used, expert = m->chosen[pair];
  uint32_t first = chunk % chunks(ff) * CHUNK;
  uint32_t range[2] = { first, ff - first < CHUNK ? ff : first + CHUNK };
  float *gate = m->hidden + (size_t)pair * 2 * ff, *up = gate + ff;
  struct engine_product p = c->gate;
  (void)thread;
  p.q += row * p.q_ld;
  p.act += row * (p.q_ld / TILE_COLS);
  p.x += row * p.x_ld;
  p.to = gate;
  part(c->s->isa, p, &c->e->gate, ff, expert, range);
  p.to = up;
  part(c->s->isa, p, &c->e->up, ff, expert, range);
  c->s->isa->glu(shape->arch->glu, gate + first, up + first,
                 range[1] - first, gate + first);
  if (ff % TILE_COLS == 0)
    c->s->isa->quantise(gate + first, range[1] - first,
                        m->q + (size_t)pair * ff + first,
                        m->act + ((size_t)pair * ff + first) / TILE_COLS);
}


static void down_chunk(void *ctx, uint32_t chunk, uint32_t thread) {
  const struct moe *c = ctx;
  const struct engine_shape *shape = &c->s->shape;
  const struct packed_mix *m = &c->s->mix;
  uint32_t ff = shape->ff, pair = chunk / chunks(shape->width);
  uint32_t first = chunk % chunks(shape->width) * CHUNK;
  uint32_t left = shape->width - first;
  uint32_t range[2] = { first, first + (left < CHUNK ? left : CHUNK) };
  struct engine_product p = {
    .q = m->q + (size_t)pair * ff, .q_ld = ff,
    .act = m->act + (size_t)pair * ff / TILE_COLS,
    .x = m->hidden + (size_t)pair * 2 * ff, .x_ld = ff,
    .to = m->out + (size_t)pair * shape->width,
  };
  (void)thread;
  part(c->s->isa, p, &c->e->down, shape->width, m->chosen[pair], range);
}


static void sum_row(void *ctx, uint32_t row, uint32_t thread) {
  const struct moe *c = ctx;
  const struct engine_shape *shape = &c->s->shape;
  const struct packed_mix *m = &c->s->mix;
  float *to = row_of(c->y, c->row + row);
  (void)thread;
  memset(to, 0, shape->width * sizeof *to);
  for (uint32_t i = 0; i < shape->used; i++) {
    uint32_t pair = row * shape->used + i;
    const float *from = m->out + (size_t)pair * shape->width;
    for (uint32_t o = 0; o < shape->width; o++)
      to[o] += m->share[pair] * from[o];
  }
}


/* `rows` rows from c->row on; their scores are there. */
static void mix_rows(struct moe *c, const float *score, uint32_t rows) {
  const struct engine_shape *shape = &c->s->shape;
  const struct packed_mix *m = &c->s->mix;
  for (uint32_t r = 0; r < rows; r++)
    engine_cpu_route(shape, score + (size_t)r * shape->experts,
                     m->chosen + r * shape->used, m->share + r * shape->used);
  uint32_t pairs = rows * shape->used;
  engine_pool_run(c->s->pool, pairs * chunks(shape->ff), hidden_chunk, c);
  engine_pool_run(c->s->pool, pairs * chunks(shape->width), down_chunk, c);
  engine_packed_rows(c->s, rows, shape->used * shape->width, sum_row, c);
}


/* Inputs that gate and up can read: both of one kind's, in a good file; where
 * they are not, each is made when it is asked for. */
void engine_packed_moe(struct engine_state *s, struct engine_buffer *y,
                       const struct engine_buffer *act,
                       const struct engine_experts *e) {
  uint32_t rows = (uint32_t)s->rows->rows;
  struct moe c = { .s = s, .e = e, .y = y };
  engine_packed_flush(s);
  y->version++;
  struct engine_product router = engine_packed_product(s, &e->router, act,
                                                       rows);
  struct engine_product gate = engine_packed_product(s, &e->gate, act, rows);
  struct engine_product up = engine_packed_product(s, &e->up, act, rows);
  c.gate = gate.w->form ? gate : up;
  for (c.row = 0; c.row < rows; c.row += MOE_ROWS) {
    uint32_t n = rows - c.row < MOE_ROWS ? rows - c.row : MOE_ROWS;
    struct engine_product p = router;
    p.rows = n;
    p.q += c.row * p.q_ld;
    p.act += c.row * (p.q_ld / TILE_COLS);
    p.x += c.row * p.x_ld;
    p.to = s->mix.score;
    p.to_ld = s->shape.experts;
    engine_packed_part(s->isa, &p, 0, s->shape.experts);
    mix_rows(&c, s->mix.score, n);
  }
}
