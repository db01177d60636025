/* grammar: a schema's tree as a program. See grammar.h. Each node's code falls
 * through to what follows it.
 *
 * SPDX-License-Identifier: MIT */
#include "grammar.h"

#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "grammar_put.h"
#include "schema.h"

static void put_node(struct engine_maker *m, uint32_t at);


/* ---- rules ---- */

static void put_call(struct engine_maker *m, uint32_t rule, unsigned need) {
  uint32_t op = engine_put(m, ENGINE_OP_CALL, rule);
  m->g->op[op].need = (unsigned char)need;
}


/* A call of any value, or a node. */
static void put_value(struct engine_maker *m, uint32_t node) {
  if (node)
    put_node(m, node);
  else
    put_call(m, m->any, 1);
}


/* Members of any name, each as `node` says. */
static void put_map(struct engine_maker *m, uint32_t node) {
  unsigned need = node ? m->s->node[node].need : 1;
  uint32_t member = 0, out = 0;
  engine_put_bytes(m, "{", 1);
  engine_put_blanks(m);
  engine_put_leave(m, ENGINE_OP_TRY, need, &member);
  uint32_t end = m->g->ops;
  engine_put_bytes(m, "}", 1);
  engine_put_leave(m, ENGINE_OP_JUMP, 0, &out);
  uint32_t again = m->g->ops;
  engine_put_bytes(m, ",", 1);
  engine_put_blanks(m);
  engine_put_land(m, member);
  engine_put_bytes(m, "\"", 1);
  engine_put(m, ENGINE_OP_TEXT, 0);
  engine_put_bytes(m, ":", 1);
  engine_put_blanks(m);
  put_value(m, node);
  uint32_t next = engine_put(m, ENGINE_OP_TRY, again);
  m->g->op[next].need = (unsigned char)need;
  engine_put_blanks(m);
  engine_put(m, ENGINE_OP_JUMP, end);
  engine_put_land(m, out);
}


static void put_list(struct engine_maker *m, uint32_t node, uint32_t min,
                     uint32_t max) {
  uint32_t first = 0;
  engine_put_bytes(m, "[", 1);
  engine_put_blanks(m);
  uint32_t op = engine_put_repeat(m, min, max,
                                  node ? m->s->node[node].need : 1);
  engine_put_leave(m, ENGINE_OP_JUMP, 0, &first);
  m->g->op[op].a = m->g->ops;
  engine_put_bytes(m, ",", 1);
  engine_put_blanks(m);
  engine_put_land(m, first);
  put_value(m, node);
  engine_put_again(m, op);
  engine_put_blanks(m);
  engine_put_bytes(m, "]", 1);
}


static void put_any(struct engine_maker *m) {
  static const char *const words[] = { "true", "false", "null" };
  uint32_t next = 0;
  engine_put_leave(m, ENGINE_OP_TRY, 0, &next);
  put_map(m, 0);
  engine_put(m, ENGINE_OP_RET, 0);
  engine_put_land(m, next);
  next = 0;
  engine_put_leave(m, ENGINE_OP_TRY, 0, &next);
  put_list(m, 0, 0, ENGINE_SCHEMA_ANY_NUMBER);
  engine_put(m, ENGINE_OP_RET, 0);
  engine_put_land(m, next);
  for (int i = 0; i < 3; i++) {
    next = 0;
    engine_put_leave(m, ENGINE_OP_TRY, 0, &next);
    engine_put_bytes(m, words[i], (uint32_t)strlen(words[i]));
    engine_put(m, ENGINE_OP_RET, 0);
    engine_put_land(m, next);
  }
  next = 0;
  engine_put_leave(m, ENGINE_OP_TRY, 0, &next);
  put_call(m, m->number, 2);
  engine_put(m, ENGINE_OP_RET, 0);
  engine_put_land(m, next);
  engine_put_bytes(m, "\"", 1);
  engine_put(m, ENGINE_OP_TEXT, 0);
  engine_put(m, ENGINE_OP_RET, 0);
}


/* ---- objects ---- */

/* What the next member takes at least, from `at` on: any of the optional ones
 * up to the first that is required. */
static unsigned need_from(const struct engine_schema *s, uint32_t at) {
  unsigned least = ENGINE_SCHEMA_NEVER;
  for (; at; at = s->node[at].next) {
    if (s->node[at].need < least)
      least = s->node[at].need;
    if (s->node[at].required)
      break;
  }
  return least;
}


static int is_required_from(const struct engine_schema *s, uint32_t at) {
  for (; at; at = s->node[at].next)
    if (s->node[at].required)
      return 1;
  return 0;
}


/* Behind a member, or the opening brace: a comma (but for the first) and a
 * member from `at` on; or the end, where nothing more is required. `end` and
 * `choose` are chains to the brace and to the choice of that member. */
static void put_between(struct engine_maker *m, uint32_t at, int first,
                        uint32_t *end, uint32_t *choose) {
  uint32_t more = 0;
  if (!is_required_from(m->s, at)) {
    if (at)
      engine_put_leave(m, ENGINE_OP_TRY, need_from(m->s, at), &more);
    if (!first)
      engine_put_blanks(m);
    engine_put_leave(m, ENGINE_OP_JUMP, 0, end);
    engine_put_land(m, more);
  }
  if (!at)
    return;
  if (!first) {
    engine_put_bytes(m, ",", 1);
    engine_put_blanks(m);
  }
  engine_put_leave(m, ENGINE_OP_JUMP, 0, choose);
}


/* For each member in order: the choice of it (or, of an optional one, of the
 * next), its code, and what may stand behind it.
 *
 *   choose[i]: TRY body[i]; else choose[i + 1]    (a required one: body[i])
 *   body[i]:   "name": value; between(i + 1) */
static void put_object(struct engine_maker *m, uint32_t node) {
  const struct engine_schema *s = m->s;
  uint32_t end = 0, choose = 0, chosen = 0;
  engine_put_bytes(m, "{", 1);
  engine_put_blanks(m);
  put_between(m, s->node[node].child, 1, &end, &choose);
  for (uint32_t i = s->node[node].child; i && !m->rc; i = s->node[i].next) {
    uint32_t body = 0, skip = 0;
    engine_put_land(m, choose);
    engine_put_land(m, chosen);
    choose = chosen = 0;
    engine_put_leave(m, ENGINE_OP_TRY, s->node[i].need, &body);
    if (s->node[i].required)
      engine_put(m, ENGINE_OP_FAIL, 0);
    else
      engine_put_leave(m, ENGINE_OP_JUMP, 0, &skip);
    engine_put_land(m, body);
    engine_put_bytes(m, s->text.at + s->node[i].text, s->node[i].text_size);
    engine_put_bytes(m, ":", 1);
    engine_put_blanks(m);
    put_node(m, i);
    put_between(m, s->node[i].next, 0, &end, &choose);
    chosen = skip;
  }
  engine_put_land(m, chosen);
  engine_put(m, ENGINE_OP_FAIL, 0);
  engine_put_land(m, end);
  engine_put_bytes(m, "}", 1);
}


/* ---- all kinds ---- */

static void put_string(struct engine_maker *m,
                       const struct engine_schema_node *n) {
  engine_put_bytes(m, "\"", 1);
  if (!n->min && n->max == ENGINE_SCHEMA_ANY_NUMBER) {
    engine_put(m, ENGINE_OP_TEXT, 0);
    return;
  }
  uint32_t op = engine_put_repeat(m, n->min, n->max, 0);
  engine_put(m, ENGINE_OP_CHAR, 0);
  engine_put_again(m, op);
  engine_put_bytes(m, "\"", 1);
}


static void put_choice(struct engine_maker *m, uint32_t at) {
  const struct engine_schema *s = m->s;
  uint32_t out = 0;
  for (uint32_t i = s->node[at].child; i; i = s->node[i].next) {
    uint32_t one = 0, next = 0;
    engine_put_leave(m, ENGINE_OP_TRY, s->node[i].need, &one);
    engine_put_leave(m, ENGINE_OP_JUMP, 0, &next);
    engine_put_land(m, one);
    put_node(m, i);
    engine_put_leave(m, ENGINE_OP_JUMP, 0, &out);
    engine_put_land(m, next);
  }
  engine_put(m, ENGINE_OP_FAIL, 0);
  engine_put_land(m, out);
}


static void put_node(struct engine_maker *m, uint32_t at) {
  const struct engine_schema_node *n = &m->s->node[at];
  switch (n->kind) {
  case ENGINE_SCHEMA_ANY: put_call(m, m->any, 1); return;
  case ENGINE_SCHEMA_NUMBER: put_call(m, m->number, n->need); return;
  case ENGINE_SCHEMA_INTEGER: put_call(m, m->integer, n->need); return;
  case ENGINE_SCHEMA_STRING: put_string(m, n); return;
  case ENGINE_SCHEMA_OBJECT: put_object(m, at); return;
  case ENGINE_SCHEMA_MAP: put_map(m, n->child); return;
  case ENGINE_SCHEMA_ARRAY: put_list(m, n->child, n->min, n->max); return;
  case ENGINE_SCHEMA_ONE_OF: put_choice(m, at); return;
  case ENGINE_SCHEMA_TEXTS: engine_put_texts(m, at); return;
  case ENGINE_SCHEMA_RULE: put_call(m, n->rule, n->need); return;
  }
}


static int put_rules(struct engine_maker *m, drover_err *err) {
  struct engine_grammar *g = m->g;
  const struct engine_schema *s = m->s;
  m->any = s->rules;
  m->number = s->rules + 1;
  m->integer = s->rules + 2;
  engine_put(m, ENGINE_OP_DONE, 0);
  for (uint32_t i = 0; i < s->rules; i++) {
    g->rule[i] = g->ops;
    put_node(m, s->rule[i]);
    engine_put(m, ENGINE_OP_RET, 0);
  }
  g->rule[m->any] = g->ops;
  put_any(m);
  g->rule[m->number] = g->ops;
  engine_put_number(m);
  engine_put(m, ENGINE_OP_RET, 0);
  g->rule[m->integer] = g->ops;
  engine_put_integer(m);
  engine_put(m, ENGINE_OP_RET, 0);
  if (m->rc == DROVER_EBADREQUEST)
    return drover_fail(err, m->rc, "response_format: the schema is too large");
  return m->rc ? drover_fail(err, m->rc, "no memory for a grammar")
               : DROVER_OK;
}


int engine_grammar_new(struct engine_grammar **out, const char *json,
                       size_t size, drover_err *err) {
  struct engine_schema *s = NULL;
  *out = NULL;
  int rc = engine_schema_new(&s, json, size, err);
  if (rc)
    return rc;
  struct engine_grammar *g = mem_calloc(1, sizeof *g);
  if (g) {
    g->frame = mem_calloc(ENGINE_FRAMES_MAX, sizeof *g->frame);
    g->slot = mem_calloc(2 * ENGINE_FRAMES_MAX, sizeof *g->slot);
    g->op = mem_calloc(1, sizeof *g->op);
    g->op_room = 1;
    g->frames = 1;
  }
  if (!g || !g->frame || !g->slot || !g->op) {
    rc = drover_fail(err, DROVER_ENOMEM, "no memory for a grammar");
  } else {
    struct engine_maker m = { .g = g, .s = s };
    rc = put_rules(&m, err);
  }
  engine_schema_free(s);
  if (rc)
    engine_grammar_free(g);
  else
    *out = g;
  return rc;
}


void engine_grammar_free(struct engine_grammar *g) {
  if (!g)
    return;
  mem_free(g->op);
  mem_free(g->branch);
  mem_free(g->frame);
  mem_free(g->slot);
  mem_free(g);
}
