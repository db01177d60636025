/* schema_read: see schema_read.h.
 *
 * SPDX-License-Identifier: MIT */
#include "schema_read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"

static const char *const keys[ENGINE_KEYS] = {
  "type", "properties", "required", "additionalProperties", "enum", "const",
  "items", "minItems", "maxItems", "minLength", "maxLength", "anyOf", "$ref"
};

/* They say nothing about what fits. */
static const char *const notes[] = {
  "title", "description", "default", "examples", "$comment", "$schema",
  "$defs", "definitions", "deprecated", "readOnly", "writeOnly"
};

static const char *const types[] = { "string", "number", "integer", "boolean",
                                     "null", "object", "array" };


/* ---- refusals, paths, nodes ---- */

int engine_read_refuse(struct engine_reader *r, const char *why) {
  return drover_fail(r->err, DROVER_EBADREQUEST, "response_format: %.*s: %s",
                     (int)r->path_size, r->path, why);
}


/* Go down one step; returns where to come back to. */
size_t engine_read_enter(struct engine_reader *r, const char *name,
                         size_t size) {
  size_t before = r->path_size, room = ENGINE_PATH_MAX - before;
  if (size + 1 <= room) {
    r->path[r->path_size++] = '.';
    memcpy(r->path + r->path_size, name, size);
    r->path_size += size;
  }
  return before;
}


int engine_read_node(struct engine_reader *r, int kind, uint32_t *out) {
  struct engine_schema *s = r->s;
  if (s->nodes == ENGINE_SCHEMA_NODES_MAX)
    return engine_read_refuse(r, "the schema is too large");
  if (s->nodes == s->room) {
    uint32_t room = s->room * 2;
    struct engine_schema_node *node = mem_realloc(s->node,
                                                  room * sizeof *node);
    if (!node)
      return drover_fail(r->err, DROVER_ENOMEM, "no memory for a schema");
    s->node = node;
    s->room = room;
  }
  uint32_t path = (uint32_t)s->text.size;
  if (buf_add(&s->text, r->path, r->path_size) || buf_add(&s->text, "", 1))
    return engine_read_refuse(r, "the schema is too large");
  s->node[s->nodes] = (struct engine_schema_node){
    .kind = (unsigned char)kind, .max = ENGINE_SCHEMA_ANY_NUMBER, .path = path
  };
  *out = s->nodes++;
  return DROVER_OK;
}


/* Hang `node` behind the last child of `parent`; `last` is kept by the
 * caller, 0 at first. */
void engine_read_hang(struct engine_reader *r, uint32_t parent, uint32_t *last,
                 uint32_t node) {
  if (*last)
    r->s->node[*last].next = node;
  else
    r->s->node[parent].child = node;
  *last = node;
}


int engine_read_is(struct engine_part p, const char *word) {
  return p.size == strlen(word) && !memcmp(p.at, word, p.size);
}


struct engine_part engine_read_part(const struct json *j,
                                    const drover_span *span) {
  return (struct engine_part){ (const char *)j->start + span->start,
                        span->stop - span->start };
}


void engine_read_open(struct json *j, struct engine_part p) {
  json_open(j, p.at, p.size);
}


/* A node's own text: JSON without its white space, which the schema's author
 * put there for himself. */
int engine_read_text(struct engine_reader *r, uint32_t node,
                     struct engine_part p) {
  struct engine_schema *s = r->s;
  uint32_t at = (uint32_t)s->text.size;
  int inside = 0, rc = DROVER_OK;
  for (size_t i = 0; i < p.size && !rc; i++) {
    char c = p.at[i];
    if (inside && c == '\\') {
      rc = buf_add(&s->text, p.at + i++, 2);
      continue;
    }
    inside ^= c == '"';
    if (inside || !strchr(" \t\r\n", c) || !c)
      rc = buf_add(&s->text, &c, 1);
  }
  s->node[node].text = at;
  s->node[node].text_size = (uint32_t)s->text.size - at;
  return rc ? engine_read_refuse(r, "the schema is too large") : DROVER_OK;
}


/* ---- keywords ---- */

static int note_known(const struct json_text *key) {
  for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
    if (json_is(key, notes[i], strlen(notes[i])))
      return 1;
  return 0;
}


static int key_of(const struct json_text *key) {
  for (int i = 0; i < ENGINE_KEYS; i++)
    if (json_is(key, keys[i], strlen(keys[i])))
      return i;
  return ENGINE_KEYS;
}


/* Find the keywords of one schema; the first of equal ones counts. */
int engine_read_keys(struct engine_reader *r, struct engine_part p,
                     struct engine_part *found) {
  struct json j;
  struct json_text key;
  memset(found, 0, ENGINE_KEYS * sizeof *found);
  engine_read_open(&j, p);
  json_enter(&j);
  while (json_next(&j, &key)) {
    drover_span span;
    int k = key_of(&key);
    json_skip(&j, &span);
    if (k < ENGINE_KEYS) {
      if (!found[k].at)
        found[k] = engine_read_part(&j, &span);
    } else if (!note_known(&key)) {
      engine_read_enter(r, key.at, key.size);
      return engine_read_refuse(r, "this keyword is not supported");
    }
  }
  return DROVER_OK;
}


/* A whole number, 0 or more. */
static int read_count(struct engine_reader *r, const struct engine_part *found,
                      enum engine_key k,
                      uint32_t *out) {
  struct engine_part p = found[k];
  uint32_t value = 0;
  if (!p.at)
    return DROVER_OK;
  int good = p.size < 10;
  for (size_t i = 0; i < p.size && good; i++) {
    good = p.at[i] >= '0' && p.at[i] <= '9';
    value = value * 10 + (uint32_t)(p.at[i] - '0');
  }
  if (!good) {
    engine_read_enter(r, keys[k], strlen(keys[k]));
    return engine_read_refuse(r, "a whole number is expected, 0 to 999999999");
  }
  *out = value;
  return DROVER_OK;
}


int engine_read_bounds(struct engine_reader *r, const struct engine_part *found,
                       enum engine_key least, uint32_t node) {
  uint32_t min = 0, max = ENGINE_SCHEMA_ANY_NUMBER;
  int rc = read_count(r, found, least, &min);
  if (!rc)
    rc = read_count(r, found, least + 1, &max);
  if (!rc && min > max) {
    engine_read_enter(r, keys[least], strlen(keys[least]));
    return engine_read_refuse(r, "no value can meet it");
  }
  r->s->node[node].min = min;
  r->s->node[node].max = max;
  return rc;
}


/* ---- types ---- */

static int type_named(struct json *j) {
  struct json_text text;
  if (json_kind(j) != JSON_STRING) {
    json_skip(j, NULL);
    return 0;
  }
  json_string(j, &text);
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (json_is(&text, types[i], strlen(types[i])))
      return 1 << i;
  return 0;
}


int engine_read_types(struct engine_reader *r, struct engine_part p, int *out) {
  struct json j;
  struct json_text key;
  *out = 0;
  engine_read_open(&j, p);
  if (json_kind(&j) != JSON_ARRAY) {
    *out = type_named(&j);
  } else {
    json_enter(&j);
    while (json_next(&j, &key)) {
      int one = type_named(&j);
      if (!one) {
        *out = 0;
        break;
      }
      *out |= one;
    }
  }
  if (*out)
    return DROVER_OK;
  engine_read_enter(r, "type", 4);
  return engine_read_refuse(r, "string, number, integer, boolean, null, "
                            "object or array expected");
}


/* Which types a literal has. */
static int types_of(struct engine_part p) {
  char number[64];
  switch (*p.at) {
  case '"': return ENGINE_TYPE_STRING;
  case '{': return ENGINE_TYPE_OBJECT;
  case '[': return ENGINE_TYPE_ARRAY;
  case 't': case 'f': return ENGINE_TYPE_BOOLEAN;
  case 'n': return ENGINE_TYPE_NULL;
  }
  if (p.size >= sizeof number)
    return ENGINE_TYPE_NUMBER;
  memcpy(number, p.at, p.size);
  number[p.size] = '\0';
  double x = strtod(number, NULL);
  return ENGINE_TYPE_NUMBER | (x == floor(x) ? ENGINE_TYPE_INTEGER : 0);
}


/* ---- each kind of schema ---- */

static int add_text(struct engine_reader *r, uint32_t texts, uint32_t *last,
                    struct engine_part p) {
  uint32_t node;
  int rc = engine_read_node(r, ENGINE_SCHEMA_TEXT, &node);
  if (!rc)
    rc = engine_read_text(r, node, p);
  if (!rc)
    engine_read_hang(r, texts, last, node);
  return rc;
}


/* enum and const: the values that also have one of the types. */
int engine_read_values(struct engine_reader *r,
                       const struct engine_part *found, int allowed,
                       uint32_t *out) {
  struct json j;
  struct json_text key;
  drover_span span;
  uint32_t last = 0;
  enum engine_key k = found[ENGINE_KEY_CONST].at ? ENGINE_KEY_CONST
                                                 : ENGINE_KEY_ENUM;
  engine_read_enter(r, keys[k], strlen(keys[k]));
  int rc = engine_read_node(r, ENGINE_SCHEMA_TEXTS, out);
  if (!rc && k == ENGINE_KEY_CONST && types_of(found[k]) & allowed)
    rc = add_text(r, *out, &last, found[k]);
  if (k == ENGINE_KEY_CONST)
    return rc || last ? rc : engine_read_refuse(r, "no value can meet it");
  if (rc)
    return rc;
  engine_read_open(&j, found[k]);
  if (json_kind(&j) != JSON_ARRAY)
    return engine_read_refuse(r, "a list is expected");
  json_enter(&j);
  while (!rc && json_next(&j, &key)) {
    json_skip(&j, &span);
    struct engine_part p = engine_read_part(&j, &span);
    if (types_of(p) & allowed)
      rc = add_text(r, *out, &last, p);
  }
  if (!rc && !last)
    rc = engine_read_refuse(r, "no value can meet it");
  return rc;
}


int engine_read_words(struct engine_reader *r, const char *a, const char *b,
                      uint32_t *out) {
  uint32_t last = 0;
  int rc = engine_read_node(r, ENGINE_SCHEMA_TEXTS, out);
  if (!rc)
    rc = add_text(r, *out, &last, (struct engine_part){ a, strlen(a) });
  if (!rc && b)
    rc = add_text(r, *out, &last, (struct engine_part){ b, strlen(b) });
  return rc;
}
