/* grammar_put: see grammar_put.h. Places that are not known yet are chained
 * through the `a` of the operations that want them.
 *
 * SPDX-License-Identifier: MIT */
#include "grammar_put.h"

#include <stdlib.h>
#include <string.h>

#include "../base/mem.h"

enum { DIGITS = 15, EXPONENT_DIGITS = 2 };

struct word {                       /* a literal of an enum */
  const char *at;
  uint32_t size;
};


/* ---- operations ---- */

static int grow(void **at, uint32_t *room, size_t size) {
  uint32_t more = *room ? *room * 2 : 256;
  void *to = mem_realloc(*at, more * size);
  if (!to)
    return DROVER_ENOMEM;
  *at = to;
  *room = more;
  return DROVER_OK;
}


/* The number of the new operation; 0 after an error. */
uint32_t engine_put(struct engine_maker *m, int kind, uint32_t a) {
  struct engine_grammar *g = m->g;
  void *at = g->op;
  if (!m->rc && g->ops == ENGINE_OPS_MAX)
    m->rc = DROVER_EBADREQUEST;
  if (!m->rc && g->ops == g->op_room)
    m->rc = grow(&at, &g->op_room, sizeof *g->op);
  g->op = at;
  if (m->rc)
    return 0;
  g->op[g->ops] = (struct engine_op){ .kind = (unsigned char)kind, .a = a };
  return g->ops++;
}


void engine_put_bytes(struct engine_maker *m, const char *at, uint32_t size) {
  for (uint32_t i = 0; i < size; i++) {
    uint32_t op = engine_put(m, ENGINE_OP_BYTE, 0);
    m->g->op[op].lo = m->g->op[op].hi = (unsigned char)at[i];
  }
}


void engine_put_range(struct engine_maker *m, char lo, char hi) {
  uint32_t op = engine_put(m, ENGINE_OP_BYTE, 0);
  m->g->op[op].lo = (unsigned char)lo;
  m->g->op[op].hi = (unsigned char)hi;
}


/* An operation whose `a` engine_put_land() sets, with others of one chain. */
uint32_t engine_put_leave(struct engine_maker *m, int kind, unsigned need,
                      uint32_t *chain) {
  uint32_t op = engine_put(m, kind, *chain);
  m->g->op[op].need = (unsigned char)need;
  *chain = op;
  return op;
}


/* Op 0 ends a chain: nobody's `a`, since it is the end of all. */
void engine_put_land(struct engine_maker *m, uint32_t chain) {
  uint32_t here = m->g->ops;
  while (chain && !m->rc) {
    uint32_t next = m->g->op[chain].a;
    m->g->op[chain].a = here;
    chain = next;
  }
}


void engine_put_blanks(struct engine_maker *m) {
  uint32_t out = 0;
  for (int i = 0; i < 2; i++) {
    engine_put_leave(m, ENGINE_OP_TRY, 0, &out);
    engine_put(m, ENGINE_OP_BLANK, 0);
  }
  engine_put_land(m, out);
}


uint32_t engine_put_repeat(struct engine_maker *m, uint32_t min, uint32_t max,
                            unsigned need) {
  uint32_t op = engine_put(m, ENGINE_OP_REPEAT, m->g->ops + 1);
  struct engine_op *o = &m->g->op[op];
  o->min = min;
  o->max = max;
  o->need = (unsigned char)(need < ENGINE_SCHEMA_NEVER ? need + 1 : need);
  return op;
}


void engine_put_again(struct engine_maker *m, uint32_t op) {
  engine_put(m, ENGINE_OP_AGAIN, 0);
  m->g->op[op].b = m->g->ops;
}


/* ---- numbers ---- */

static void put_digits(struct engine_maker *m, uint32_t min, uint32_t max) {
  uint32_t op = engine_put_repeat(m, min, max, 0);
  engine_put_range(m, '0', '9');
  engine_put_again(m, op);
}


void engine_put_integer(struct engine_maker *m) {
  uint32_t sign = 0, zero = 0, out = 0;
  engine_put_leave(m, ENGINE_OP_TRY, 0, &sign);
  engine_put_bytes(m, "-", 1);
  engine_put_land(m, sign);
  engine_put_leave(m, ENGINE_OP_TRY, 0, &zero);
  engine_put_range(m, '1', '9');
  put_digits(m, 0, DIGITS - 1);
  engine_put_leave(m, ENGINE_OP_JUMP, 0, &out);
  engine_put_land(m, zero);
  engine_put_bytes(m, "0", 1);
  engine_put_land(m, out);
}


void engine_put_number(struct engine_maker *m) {
  uint32_t whole = 0, out = 0, sign = 0;
  engine_put_integer(m);
  engine_put_leave(m, ENGINE_OP_TRY, 0, &whole);
  engine_put_bytes(m, ".", 1);
  put_digits(m, 1, DIGITS);
  engine_put_land(m, whole);
  engine_put_leave(m, ENGINE_OP_TRY, 0, &out);
  engine_put(m, ENGINE_OP_EXPONENT, 0);
  engine_put_leave(m, ENGINE_OP_TRY, 0, &sign);
  engine_put(m, ENGINE_OP_SIGN, 0);
  engine_put_land(m, sign);
  put_digits(m, 1, EXPONENT_DIGITS);
  engine_put_land(m, out);
}


/* ---- literals ---- */

static int by_bytes(const void *a, const void *b) {
  const struct word *x = a, *y = b;
  uint32_t least = x->size < y->size ? x->size : y->size;
  int order = memcmp(x->at, y->at, least);
  return order ? order : (x->size > y->size) - (x->size < y->size);
}


/* Room for `count` ways, the first of which is returned. */
static uint32_t put_branch(struct engine_maker *m, uint32_t count) {
  struct engine_grammar *g = m->g;
  void *at = g->branch;
  while (!m->rc && g->branches + count > g->branch_room)
    m->rc = grow(&at, &g->branch_room, sizeof *g->branch);
  g->branch = at;
  uint32_t first = g->branches;
  uint32_t op = engine_put(m, ENGINE_OP_BRANCH, first);
  m->g->op[op].b = m->rc ? 0 : count;
  g->branches += m->rc ? 0 : count;
  return first;
}


static uint32_t group(const struct word *w, uint32_t count, uint32_t depth) {
  uint32_t same = 1;
  while (same < count && w[same].at[depth] == w[0].at[depth])
    same++;
  return same;
}


/* A tree of sorted words that agree up to `depth`; all go out at the end. */
static void put_words(struct engine_maker *m, const struct word *w,
                      uint32_t count,
                      uint32_t depth, uint32_t *out) {
  while (!m->rc) {
    if (w[0].size == depth) {
      engine_put_leave(m, count > 1 ? ENGINE_OP_TRY : ENGINE_OP_JUMP, 0, out);
      if (!--count)
        return;
      w++;
      continue;
    }
    if (group(w, count, depth) < count)
      break;
    engine_put_bytes(m, w[0].at + depth++, 1);
  }
  uint32_t ways = 0, way;
  for (uint32_t i = 0; i < count && !m->rc; i += group(w + i, count - i, depth))
    ways++;
  way = put_branch(m, ways);
  for (uint32_t i = 0, n; i < count && !m->rc; i += n, way++) {
    n = group(w + i, count - i, depth);
    m->g->branch[way] = (struct engine_branch){
      (unsigned char)w[i].at[depth], m->g->ops
    };
    put_words(m, w + i, n, depth + 1, out);
  }
}


void engine_put_texts(struct engine_maker *m, uint32_t at) {
  const struct engine_schema *s = m->s;
  uint32_t count = 0, kept = 0, out = 0;
  for (uint32_t i = s->node[at].child; i; i = s->node[i].next)
    count++;
  struct word *w = mem_calloc(count, sizeof *w);
  if (!w) {
    m->rc = DROVER_ENOMEM;
    return;
  }
  count = 0;
  for (uint32_t i = s->node[at].child; i; i = s->node[i].next)
    w[count++] = (struct word){ s->text.at + s->node[i].text,
                                s->node[i].text_size };
  qsort(w, count, sizeof *w, by_bytes);
  for (uint32_t i = 0; i < count; i++)
    if (!kept || by_bytes(&w[kept - 1], &w[i]))
      w[kept++] = w[i];
  put_words(m, w, kept, 0, &out);
  engine_put_land(m, out);
  mem_free(w);
}
