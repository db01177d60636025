/* schema_tree: a JSON schema as a tree of nodes.
 *
 * A part that other parts name ($ref) is a rule: the text that a pointer
 * leads to is read once, so recursion is a rule that calls itself. Rule 0 is
 * the schema itself. Every node knows how many calls deep the shortest value
 * under it goes, so that a bounded stack is never entered without a way out.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SCHEMA_TREE_H
#define DROVER_ENGINE_SCHEMA_TREE_H

#include "../base/buf.h"
#include "../drover.h"

enum {
  ENGINE_SCHEMA_TEXT_MAX = 256 << 10,   /* bytes */
  ENGINE_SCHEMA_NODES_MAX = 16384,
  ENGINE_SCHEMA_RULES_MAX = 1024,
  ENGINE_SCHEMA_DEEP = 64,          /* calls; the automaton's stack */
  ENGINE_SCHEMA_NEVER = 255         /* deeper than any stack */
};
#define ENGINE_SCHEMA_ANY_NUMBER UINT32_MAX     /* no upper bound */

enum engine_schema_kind {
  ENGINE_SCHEMA_ANY,                /* any JSON value */
  ENGINE_SCHEMA_STRING, ENGINE_SCHEMA_NUMBER, ENGINE_SCHEMA_INTEGER,
  ENGINE_SCHEMA_OBJECT,             /* children: its properties, in order */
  ENGINE_SCHEMA_MAP,                /* child: what each member is */
  ENGINE_SCHEMA_ARRAY,              /* child: what each item is */
  ENGINE_SCHEMA_ONE_OF,             /* children: one of them */
  ENGINE_SCHEMA_TEXTS,              /* children: TEXT nodes, one of them */
  ENGINE_SCHEMA_TEXT,               /* JSON text that stands as it is */
  ENGINE_SCHEMA_RULE                /* what rule `rule` says */
};

struct engine_schema_node {
  unsigned char kind;               /* enum engine_schema_kind */
  unsigned char need;               /* calls that the shortest value takes */
  unsigned char required;           /* of a property */
  uint32_t child, next;             /* 0: none */
  uint32_t min, max;                /* characters or items */
  uint32_t rule;
  uint32_t text, text_size;         /* in `text`: of a property its key, in
                                     * quotes; of a TEXT its JSON */
  uint32_t path;                    /* in `text`, closed by NUL */
};

struct engine_schema {
  struct engine_schema_node *node;  /* [nodes]; 0 is nobody */
  uint32_t nodes, room;
  uint32_t rule[ENGINE_SCHEMA_RULES_MAX];       /* their nodes */
  uint32_t rules;
  struct buf text;
};


/* schema_need.c: fill `need`, and refuse what can never end. */
int engine_schema_measure(struct engine_schema *s, drover_err *err);

#endif
