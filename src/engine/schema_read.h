/* schema_read: what reads a schema's keywords, and makes nodes: schema.c's
 * tools. The text was checked as JSON before; a part is a span of it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SCHEMA_READ_H
#define DROVER_ENGINE_SCHEMA_READ_H

#include "../base/json.h"
#include "schema_tree.h"

enum {
  ENGINE_PATH_MAX = 72,             /* bytes of a path; longer ones are cut */
  ENGINE_LEVELS_MAX = 64,           /* schemas inside one another */
  ENGINE_NAME_MAX = 256,            /* bytes of a property's name */
  ENGINE_PROPERTIES_MAX = 1000      /* of one object */
};

enum engine_key {                   /* each MAX behind its MIN */
  ENGINE_KEY_TYPE, ENGINE_KEY_PROPERTIES, ENGINE_KEY_REQUIRED,
  ENGINE_KEY_ADDITIONAL, ENGINE_KEY_ENUM, ENGINE_KEY_CONST, ENGINE_KEY_ITEMS,
  ENGINE_KEY_MIN_ITEMS, ENGINE_KEY_MAX_ITEMS, ENGINE_KEY_MIN_LENGTH,
  ENGINE_KEY_MAX_LENGTH, ENGINE_KEY_ANY_OF, ENGINE_KEY_REF, ENGINE_KEYS
};

enum engine_type {                  /* bits, in the order of their names */
  ENGINE_TYPE_STRING = 1, ENGINE_TYPE_NUMBER = 2, ENGINE_TYPE_INTEGER = 4,
  ENGINE_TYPE_BOOLEAN = 8, ENGINE_TYPE_NULL = 16, ENGINE_TYPE_OBJECT = 32,
  ENGINE_TYPE_ARRAY = 64, ENGINE_TYPE_ALL = 127
};

struct engine_part {                /* at NULL: absent */
  const char *at;
  size_t size;
};

struct engine_reader {
  struct engine_schema *s;
  struct engine_part all;           /* the schema's text */
  struct engine_part rule[ENGINE_SCHEMA_RULES_MAX];
  uint32_t name[ENGINE_SCHEMA_RULES_MAX];   /* their $ref, in s->text */
  char   path[ENGINE_PATH_MAX];     /* of what is being read */
  size_t path_size;
  int    level;
  drover_err *err;
};


/* DROVER_EBADREQUEST, with the path that is being read. */
int engine_read_refuse(struct engine_reader *r, const char *why);


/* Go down one step of the path; returns its size before, to come back to. */
size_t engine_read_enter(struct engine_reader *r, const char *name,
                         size_t size);


/* A new node, and its place among a parent's children: `last` is the one
 * before, 0 at first. */
int engine_read_node(struct engine_reader *r, int kind, uint32_t *out);
void engine_read_hang(struct engine_reader *r, uint32_t parent,
                      uint32_t *last, uint32_t node);


/* Parts: the one under a span that `j` gave; a cursor over one; its bytes
 * compared. */
struct engine_part engine_read_part(const struct json *j,
                                    const drover_span *span);
void engine_read_open(struct json *j, struct engine_part p);
int engine_read_is(struct engine_part p, const char *word);


/* Copy JSON, without white space, as a node's own text. */
int engine_read_text(struct engine_reader *r, uint32_t node,
                     struct engine_part p);


/* Find the keywords of one schema; an unknown one is refused by name. */
int engine_read_keys(struct engine_reader *r, struct engine_part p,
                     struct engine_part *found);


/* A node's min and max, by the keyword of the least one. */
int engine_read_bounds(struct engine_reader *r,
                       const struct engine_part *found, enum engine_key least,
                       uint32_t node);


/* The bits of "type". */
int engine_read_types(struct engine_reader *r, struct engine_part p, int *out);


/* enum and const: the values that also have one of the types. */
int engine_read_values(struct engine_reader *r,
                       const struct engine_part *found, int allowed,
                       uint32_t *out);


/* One word, or one of two. */
int engine_read_words(struct engine_reader *r, const char *a, const char *b,
                      uint32_t *out);

#endif
