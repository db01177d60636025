/* automaton: runs a grammar's program, byte by byte. See grammar.h.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/hash.h"
#include "grammar.h"

enum { WORK_MAX = 2048, PLACE_SHIFT = 24, SLOTS = 2 * ENGINE_FRAMES_MAX };

struct closing {                    /* one closure's work */
  struct engine_grammar *g;
  struct engine_state *to;
  int work;                         /* what is left of WORK_MAX */
};


/* ---- a string's characters ---- */

/* Places inside a character: how many bytes of UTF-8 or hex digits follow and
 * which; 0 between two. Escapes that are half a surrogate pair want the
 * other half. */
enum place {
  BETWEEN, TAIL1, TAIL2, TAIL3, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4,
  ESCAPE, HEX1, HEX2, HEX3, HEX4, HEX_D, HIGH3, HIGH4, PAIR, PAIR_U, LOW1,
  LOW2, BAD
};


static int is_hex(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')
    || (c >= 'A' && c <= 'F');
}


static int lead(unsigned char c) {
  if (c >= 0x20 && c < 0x80 && c != '"')
    return c == '\\' ? ESCAPE : BETWEEN;
  if (c >= 0xc2 && c <= 0xdf)
    return TAIL1;
  if (c >= 0xe0 && c <= 0xef)
    return c == 0xe0 ? AFTER_E0 : c == 0xed ? AFTER_ED : TAIL2;
  if (c >= 0xf0 && c <= 0xf4)
    return c == 0xf0 ? AFTER_F0 : c == 0xf4 ? AFTER_F4 : TAIL3;
  return BAD;
}


static int within(unsigned char c, int low, int high, int then) {
  return c >= low && c <= high ? then : BAD;
}


static int escaped(int place, unsigned char c) {
  switch (place) {
  case ESCAPE:
    if (c == 'u')
      return HEX1;
    return c && strchr("\"\\/bfnrt", c) ? BETWEEN : BAD;
  case HEX1:
    if (c == 'd' || c == 'D')
      return HEX_D;
    return is_hex(c) ? HEX2 : BAD;
  case HEX_D:
    if (c >= '0' && c <= '7')
      return HEX3;
    return c == '8' || c == '9' || (is_hex(c) && (c | 32) <= 'b') ? HIGH3
                                                                  : BAD;
  case HEX2: case HEX3: case HIGH3: return is_hex(c) ? place + 1 : BAD;
  case HEX4: return is_hex(c) ? BETWEEN : BAD;
  case HIGH4: return is_hex(c) ? PAIR : BAD;
  case PAIR: return c == '\\' ? PAIR_U : BAD;
  case PAIR_U: return c == 'u' ? LOW1 : BAD;
  case LOW1: return c == 'd' || c == 'D' ? LOW2 : BAD;
  }
  return c > '9' && is_hex(c) && (c | 32) >= 'c' ? HEX3 : BAD;      /* LOW2 */
}


static int next_place(int place, unsigned char c) {
  switch (place) {
  case BETWEEN: return lead(c);
  case TAIL1: case TAIL2: case TAIL3: return within(c, 0x80, 0xbf, place - 1);
  case AFTER_E0: return within(c, 0xa0, 0xbf, TAIL1);
  case AFTER_ED: return within(c, 0x80, 0x9f, TAIL1);
  case AFTER_F0: return within(c, 0x90, 0xbf, TAIL2);
  case AFTER_F4: return within(c, 0x80, 0x8f, TAIL2);
  }
  return escaped(place, c);
}


/* ---- frames ---- */

static uint32_t slot_of(const struct engine_frame *f) {
  uint64_t x = hash_mix((uint64_t)f->parent << 32 | f->op) ^ f->count;
  return (uint32_t)hash_mix(x) & (SLOTS - 1);
}


/* The frame of that content; 0 when there is no room, for the thread to end:
 * engine_grammar_tidy() keeps half of them free before each token. */
static uint32_t frame(struct engine_grammar *g, uint32_t parent, uint32_t op,
                      uint32_t count) {
  struct engine_frame f = { parent, op, count, g->frame[parent].depth + 1 };
  uint32_t at = slot_of(&f);
  for (; g->slot[at]; at = (at + 1) & (SLOTS - 1))
    if (!memcmp(&g->frame[g->slot[at]], &f, sizeof f))
      return g->slot[at];
  if (g->frames == ENGINE_FRAMES_MAX)
    return 0;
  g->frame[g->frames] = f;
  return g->slot[at] = g->frames++;
}


/* Parents are older than their children, so one pass each way is enough. */
int engine_grammar_tidy(struct engine_grammar *g, struct engine_state *s) {
  static const uint32_t dead = UINT32_MAX;
  if (g->frames < ENGINE_FRAMES_MAX / 2)
    return 0;
  for (uint32_t i = 0; i < SLOTS; i++)
    g->slot[i] = 0;
  uint32_t *now = g->slot;          /* frame -> its number, or 0: not needed */
  for (uint32_t i = 0; i < s->count; i++)
    now[s->thread[i].stack] = dead;
  for (uint32_t i = g->frames; i-- > 1;)
    if (now[i])
      now[g->frame[i].parent] = dead;
  uint32_t kept = 1;
  now[0] = 0;
  for (uint32_t i = 1; i < g->frames; i++)
    if (now[i]) {
      g->frame[kept] = g->frame[i];
      g->frame[kept].parent = now[g->frame[i].parent];
      now[i] = kept++;
    }
  for (uint32_t i = 0; i < s->count; i++)
    s->thread[i].stack = now[s->thread[i].stack];
  memset(g->slot, 0, SLOTS * sizeof *g->slot);
  g->frames = 1;
  for (uint32_t i = 1; i < kept; i++) {
    struct engine_frame f = g->frame[i];
    frame(g, f.parent, f.op, f.count);
  }
  return 1;
}


/* ---- operations that take no byte ---- */

static void add_leaf(struct closing *c, uint32_t op, uint32_t stack) {
  struct engine_state *to = c->to;
  for (uint32_t i = 0; i < to->count; i++)
    if (to->thread[i].op == op && to->thread[i].stack == stack)
      return;
  if (to->count < ENGINE_READINGS_MAX)
    to->thread[to->count++] = (struct engine_thread){ op, stack };
}


static int fits(const struct engine_grammar *g, uint32_t stack,
                uint32_t need) {
  return g->frame[stack].depth + need <= ENGINE_SCHEMA_DEEP;
}


static void close_over(struct closing *c, uint32_t op, uint32_t stack);


/* Into a body once more, or behind the last; what of both is allowed. Without
 * an upper bound the count stops at the lower one. */
static void repeat(struct closing *c, uint32_t op, uint32_t stack,
                   uint32_t count) {
  const struct engine_op *o = &c->g->op[op];
  int more = o->max == ENGINE_SCHEMA_ANY_NUMBER || count < o->max;
  if (count >= o->min)
    close_over(c, o->b, stack);
  if (o->max == ENGINE_SCHEMA_ANY_NUMBER && count > o->min + 1)
    count = o->min + 1;
  if (!more || !fits(c->g, stack, o->need))
    return;
  uint32_t inner = frame(c->g, stack, op, count);
  if (inner)
    close_over(c, count ? o->a : op + 1, inner);
}


/* A call in the last place keeps no frame. 0: the thread ends. */
static int call(struct closing *c, uint32_t *op, uint32_t *stack) {
  const struct engine_op *o = &c->g->op[*op];
  int last = o[1].kind == ENGINE_OP_RET;
  if (!fits(c->g, *stack, o->need - (unsigned)last))
    return 0;
  if (!last) {
    *stack = frame(c->g, *stack, *op + 1, 0);
    if (!*stack)
      return 0;
  }
  *op = c->g->rule[o->a];
  return 1;
}


/* Follow until bytes are wanted. Recursion is for the second ways only, and
 * the work bounds it. */
static void close_over(struct closing *c, uint32_t op, uint32_t stack) {
  const struct engine_grammar *g = c->g;
  while (c->work-- > 0) {
    const struct engine_op *o = &g->op[op];
    const struct engine_frame *f = &g->frame[stack];
    switch (o->kind) {
    case ENGINE_OP_TRY:
      if (fits(g, stack, o->need))
        close_over(c, o->a, stack);
      op++;
      continue;
    case ENGINE_OP_JUMP:
      op = o->a;
      continue;
    case ENGINE_OP_CALL:
      if (!call(c, &op, &stack))
        return;
      continue;
    case ENGINE_OP_RET:
      op = stack ? f->op : 0;
      stack = stack ? f->parent : 0;
      continue;
    case ENGINE_OP_REPEAT:
      repeat(c, op, stack, 0);
      return;
    case ENGINE_OP_AGAIN:
      repeat(c, f->op, f->parent, f->count + 1);
      return;
    case ENGINE_OP_FAIL:
      return;
    }
    add_leaf(c, op, stack);
    return;
  }
}


void engine_grammar_start(struct engine_grammar *g, struct engine_state *to) {
  struct closing c = { g, to, WORK_MAX };
  to->count = 0;
  close_over(&c, g->rule[0], 0);
}


/* ---- bytes ---- */

/* Where a branch leads, or 0. */
static uint32_t branch(const struct engine_grammar *g,
                       const struct engine_op *o, unsigned char byte) {
  for (uint32_t i = o->a; i < o->a + o->b; i++)
    if (g->branch[i].byte == byte)
      return g->branch[i].to;
  return 0;
}


static void text(struct closing *c, const struct engine_thread *t,
                 unsigned char byte) {
  uint32_t op = t->op & ((1u << PLACE_SHIFT) - 1);
  int place = (int)(t->op >> PLACE_SHIFT);
  int whole = c->g->op[op].kind == ENGINE_OP_TEXT;
  if (whole && place == BETWEEN && byte == '"') {
    close_over(c, op + 1, t->stack);
    return;
  }
  place = next_place(place, byte);
  if (place == BETWEEN && !whole)
    close_over(c, op + 1, t->stack);
  else if (place != BAD)
    add_leaf(c, op | (uint32_t)place << PLACE_SHIFT, t->stack);
}


static void take(struct closing *c, const struct engine_thread *t,
                 unsigned char byte) {
  const struct engine_grammar *g = c->g;
  uint32_t op = t->op & ((1u << PLACE_SHIFT) - 1), to = op + 1;
  const struct engine_op *o = &g->op[op];
  int good = 0;
  switch (o->kind) {
  case ENGINE_OP_BYTE: good = byte >= o->lo && byte <= o->hi; break;
  case ENGINE_OP_BLANK: good = byte == ' ' || byte == '\n'; break;
  case ENGINE_OP_EXPONENT: good = byte == 'e' || byte == 'E'; break;
  case ENGINE_OP_SIGN: good = byte == '+' || byte == '-'; break;
  case ENGINE_OP_BRANCH:
    to = branch(g, o, byte);
    good = to != 0;
    break;
  case ENGINE_OP_TEXT: case ENGINE_OP_CHAR:
    text(c, t, byte);
    break;
  }
  if (good)
    close_over(c, to, t->stack);
}


uint32_t engine_grammar_step(struct engine_grammar *g,
                             const struct engine_state *from,
                             unsigned char byte, struct engine_state *to) {
  struct closing c = { g, to, WORK_MAX };
  to->count = 0;
  for (uint32_t i = 0; i < from->count; i++)
    take(&c, &from->thread[i], byte);
  return to->count;
}


int engine_grammar_done(const struct engine_state *s) {
  for (uint32_t i = 0; i < s->count; i++)
    if (s->thread[i].op == 0)
      return s->count == 1 ? 2 : 1;
  return 0;
}


/* A thread at a bounded string's end quote takes none of the characters that
 * stand for themselves. */
uint32_t engine_grammar_room(const struct engine_grammar *g,
                             const struct engine_state *s) {
  uint32_t room = 0, others = 0;
  for (uint32_t i = 0; i < s->count; i++) {
    uint32_t at = s->thread[i].op, more = 0;
    const struct engine_op *o = &g->op[at & ((1u << PLACE_SHIFT) - 1)];
    const struct engine_frame *f = &g->frame[s->thread[i].stack];
    int between = at >> PLACE_SHIFT == BETWEEN;
    if (between && o->kind == ENGINE_OP_TEXT)
      more = ENGINE_CHARS_AHEAD;
    if (between && o->kind == ENGINE_OP_CHAR)
      more = g->op[f->op].max - f->count;
    others += !more
      && !(o->kind == ENGINE_OP_BYTE && o->lo == '"' && o->hi == '"');
    room = more > room ? more : room;
  }
  if (room >= ENGINE_CHARS_AHEAD)
    return ENGINE_CHARS_AHEAD;
  return others ? 0 : room;
}
