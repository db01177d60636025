/* schema_need: how deep the shortest value of each node calls rules, and what
 * can never end. See schema_tree.h; grammar.c emits the calls that are counted.
 *
 * A rule's need is the least number that its own body allows, found by going
 * round until nothing falls any more: a rule that only ever needs itself
 * stays at NEVER.
 *
 * SPDX-License-Identifier: MIT */
#include "../base/err.h"
#include "schema_tree.h"

struct walk {
  struct engine_schema *s;
  unsigned char state[ENGINE_SCHEMA_RULES_MAX]; /* 1: open, 2: done */
  drover_err *err;
};


static unsigned one_more(unsigned need) {
  return need < ENGINE_SCHEMA_NEVER ? need + 1 : need;
}


/* Of the children: the most that all required take, or the least of any. */
static unsigned need_of_children(const struct engine_schema *s, uint32_t at,
                                 int all) {
  unsigned most = 0, least = ENGINE_SCHEMA_NEVER;
  for (uint32_t i = s->node[at].child; i; i = s->node[i].next) {
    unsigned need = s->node[i].need;
    if (s->node[i].required && need > most)
      most = need;
    if (need < least)
      least = need;
  }
  return all ? most : least;
}


/* Children stand behind their parents, so one pass from the end of the nodes
 * meets them first. */
static unsigned need_of(const struct engine_schema *s, uint32_t at) {
  const struct engine_schema_node *n = &s->node[at];
  switch (n->kind) {
  case ENGINE_SCHEMA_ANY: return 1;
  case ENGINE_SCHEMA_STRING:
    return n->min || n->max != ENGINE_SCHEMA_ANY_NUMBER;
  case ENGINE_SCHEMA_NUMBER: case ENGINE_SCHEMA_INTEGER: return 2;
  case ENGINE_SCHEMA_OBJECT: return need_of_children(s, at, 1);
  case ENGINE_SCHEMA_ARRAY:
    return n->min ? one_more(s->node[n->child].need) : 1;
  case ENGINE_SCHEMA_ONE_OF: return need_of_children(s, at, 0);
  case ENGINE_SCHEMA_RULE: return one_more(s->node[s->rule[n->rule]].need);
  }
  return 0;
}


static int refuse(const struct engine_schema *s, uint32_t at,
                  const char *why, drover_err *err) {
  return drover_fail(err, DROVER_EBADREQUEST, "response_format: %s: %s",
                     s->text.at + s->node[at].path, why);
}


/* ---- choices that lead back to themselves before a byte is written ---- */

static int visit_rule(struct walk *w, uint32_t rule, uint32_t from);


static int visit(struct walk *w, uint32_t at) {
  const struct engine_schema_node *n = &w->s->node[at];
  if (n->kind == ENGINE_SCHEMA_RULE)
    return visit_rule(w, n->rule, at);
  int rc = DROVER_OK;
  if (n->kind == ENGINE_SCHEMA_ONE_OF)
    for (uint32_t i = n->child; i && !rc; i = w->s->node[i].next)
      rc = visit(w, i);
  return rc;
}


static int visit_rule(struct walk *w, uint32_t rule, uint32_t from) {
  if (w->state[rule] == 1)
    return refuse(w->s, from, "it leads back to itself", w->err);
  if (w->state[rule])
    return DROVER_OK;
  w->state[rule] = 1;
  int rc = visit(w, w->s->rule[rule]);
  w->state[rule] = 2;
  return rc;
}


/* Where the first thing stands that makes the schema endless. */
static uint32_t culprit(const struct engine_schema *s, uint32_t at) {
  for (;;) {
    const struct engine_schema_node *n = &s->node[at];
    uint32_t i = n->child;
    while (i && n->kind == ENGINE_SCHEMA_OBJECT
           && !(s->node[i].required && s->node[i].need > ENGINE_SCHEMA_DEEP))
      i = s->node[i].next;
    if (!i || n->kind == ENGINE_SCHEMA_ONE_OF)
      return at;
    at = i;
  }
}


int engine_schema_measure(struct engine_schema *s, drover_err *err) {
  struct walk w = { .s = s, .err = err };
  int changed = 1, rc = DROVER_OK;
  for (uint32_t i = 1; i < s->nodes; i++)
    s->node[i].need = ENGINE_SCHEMA_NEVER;
  while (changed) {
    changed = 0;
    for (uint32_t i = s->nodes; i-- > 1;) {
      unsigned need = need_of(s, i);
      changed |= need != s->node[i].need;
      s->node[i].need = (unsigned char)need;
    }
  }
  for (uint32_t i = 0; i < s->rules && !rc; i++)
    rc = visit_rule(&w, i, s->rule[i]);
  if (!rc && s->node[s->rule[0]].need > ENGINE_SCHEMA_DEEP)
    rc = refuse(s, culprit(s, s->rule[0]), "no value can meet it: it never "
                "ends", err);
  return rc;
}
