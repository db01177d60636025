/* schema: see schema.h. The text is checked once as JSON; after that every
 * part is read by a cursor over its own span.
 *
 * SPDX-License-Identifier: MIT */
#include "schema.h"

#include <stdio.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "schema_read.h"

static int read_schema(struct engine_reader *r, struct engine_part p,
                       uint32_t *out);


/* The property of that name, or 0. */
static uint32_t property_named(const struct engine_schema *s, uint32_t object,
                               const char *name, size_t size) {
  for (uint32_t i = s->node[object].child; i; i = s->node[i].next) {
    const struct engine_schema_node *n = &s->node[i];
    struct json_text key = { s->text.at + n->text + 1, n->text_size - 2, 0 };
    if (json_is(&key, name, size))
      return i;
  }
  return 0;
}


/* A property's node is what its schema says, with the key beside it. A RULE
 * keeps its own text for the key, and so does every other kind but TEXT,
 * which no schema is by itself. */
static int add_property(struct engine_reader *r, uint32_t object,
                        uint32_t *last,
                        const struct json_text *key,
                        const struct engine_part *value) {
  char name[ENGINE_NAME_MAX];
  struct engine_part quoted = { key->at - 1, key->size + 2 };
  uint32_t node;
  if (key->size > sizeof name)
    return engine_read_refuse(r, "a property's name is too long");
  long size = json_unescape(key->at, key->size, name);
  if (size < 0 || property_named(r->s, object, name, (size_t)size))
    return engine_read_refuse(r, "a property's name stands twice");
  size_t before = engine_read_enter(r, key->at, key->size);
  int rc = value ? read_schema(r, *value, &node)
                 : engine_read_node(r, ENGINE_SCHEMA_ANY, &node);
  r->path_size = rc ? r->path_size : before;
  if (!rc)
    rc = engine_read_text(r, node, quoted);
  if (!rc)
    engine_read_hang(r, object, last, node);
  return rc;
}


static int read_properties(struct engine_reader *r, struct engine_part p,
                           uint32_t object,
                           uint32_t *last) {
  struct json j;
  struct json_text key;
  drover_span span;
  int rc = DROVER_OK, count = 0;
  size_t before = engine_read_enter(r, "properties", 10);
  engine_read_open(&j, p);
  if (json_kind(&j) != JSON_OBJECT)
    return engine_read_refuse(r, "an object is expected");
  json_enter(&j);
  while (!rc && json_next(&j, &key)) {
    json_skip(&j, &span);
    struct engine_part value = engine_read_part(&j, &span);
    rc = ++count > ENGINE_PROPERTIES_MAX
      ? engine_read_refuse(r, "too many properties")
      : add_property(r, object, last, &key, &value);
  }
  r->path_size = rc ? r->path_size : before;
  return rc;
}


/* Mark what must be there. A name without a schema is a member of any value,
 * where others than the named are allowed. */
static int read_required(struct engine_reader *r, struct engine_part p,
                         uint32_t object,
                         uint32_t *last, int open) {
  struct json j;
  struct json_text key, text;
  int rc = DROVER_OK;
  size_t before = engine_read_enter(r, "required", 8);
  engine_read_open(&j, p);
  if (json_kind(&j) != JSON_ARRAY)
    return engine_read_refuse(r, "a list of names is expected");
  json_enter(&j);
  while (!rc && json_next(&j, &key)) {
    char name[ENGINE_NAME_MAX];
    if (json_kind(&j) != JSON_STRING)
      return engine_read_refuse(r, "a list of names is expected");
    json_string(&j, &text);
    if (text.size > sizeof name)
      return engine_read_refuse(r, "a property's name is too long");
    long size = json_unescape(text.at, text.size, name);
    uint32_t node = property_named(r->s, object, name, (size_t)size);
    if (!node && !open) {
      engine_read_enter(r, text.at, text.size);
      return engine_read_refuse(r, "no value can meet it: there is no such "
                                "property");
    }
    if (!node) {
      rc = add_property(r, object, last, &text, NULL);
      node = *last;
    }
    r->s->node[node].required = 1;
  }
  r->path_size = rc ? r->path_size : before;
  return rc;
}


/* A closed object has the named properties; an open one too, since what is
 * generated need not use the freedom. Without any name it is a map. */
static int read_object(struct engine_reader *r, const struct engine_part *found,
                       uint32_t *out) {
  struct engine_part more = found[ENGINE_KEY_ADDITIONAL];
  int open = !more.at || !engine_read_is(more, "false");
  uint32_t object, last = 0, child = 0;
  int rc = engine_read_node(r, ENGINE_SCHEMA_OBJECT, &object);
  if (!rc && found[ENGINE_KEY_PROPERTIES].at)
    rc = read_properties(r, found[ENGINE_KEY_PROPERTIES], object, &last);
  if (!rc && found[ENGINE_KEY_REQUIRED].at)
    rc = read_required(r, found[ENGINE_KEY_REQUIRED], object, &last, open);
  *out = object;
  if (rc || last || !open)
    return rc;
  size_t before = engine_read_enter(r, "additionalProperties", 20);
  rc = more.at ? read_schema(r, more, &child)
               : engine_read_node(r, ENGINE_SCHEMA_ANY, &child);
  if (rc)
    return rc;
  r->path_size = before;
  r->s->node[object].kind = ENGINE_SCHEMA_MAP;
  r->s->node[object].child = child;
  return DROVER_OK;
}


static int read_array(struct engine_reader *r, const struct engine_part *found,
                      uint32_t *out) {
  uint32_t array, child;
  int rc = engine_read_node(r, ENGINE_SCHEMA_ARRAY, &array);
  if (!rc)
    rc = engine_read_bounds(r, found, ENGINE_KEY_MIN_ITEMS, array);
  if (rc)
    return rc;
  size_t before = engine_read_enter(r, "items", 5);
  rc = found[ENGINE_KEY_ITEMS].at ? read_schema(r, found[ENGINE_KEY_ITEMS],
                                                &child)
                         : engine_read_node(r, ENGINE_SCHEMA_ANY, &child);
  if (rc)
    return rc;
  r->path_size = before;
  r->s->node[array].child = child;
  *out = array;
  return DROVER_OK;
}


static int read_type(struct engine_reader *r, const struct engine_part *found,
                     int type,
                     uint32_t *out) {
  int rc;
  switch (type) {
  case ENGINE_TYPE_OBJECT: return read_object(r, found, out);
  case ENGINE_TYPE_ARRAY: return read_array(r, found, out);
  case ENGINE_TYPE_NUMBER: return engine_read_node(r, ENGINE_SCHEMA_NUMBER,
                                                   out);
  case ENGINE_TYPE_INTEGER: return engine_read_node(r, ENGINE_SCHEMA_INTEGER,
                                                    out);
  case ENGINE_TYPE_BOOLEAN: return engine_read_words(r, "true", "false", out);
  case ENGINE_TYPE_NULL: return engine_read_words(r, "null", NULL, out);
  }
  rc = engine_read_node(r, ENGINE_SCHEMA_STRING, out);
  return rc ? rc : engine_read_bounds(r, found, ENGINE_KEY_MIN_LENGTH, *out);
}


/* One type, or a choice of several. */
static int read_union(struct engine_reader *r, const struct engine_part *found,
                      int allowed,
                      uint32_t *out) {
  uint32_t last = 0, one;
  if (allowed & ENGINE_TYPE_NUMBER)
    allowed &= ~ENGINE_TYPE_INTEGER;
  if (!(allowed & (allowed - 1)))
    return read_type(r, found, allowed, out);
  int rc = engine_read_node(r, ENGINE_SCHEMA_ONE_OF, out);
  for (int type = 1; type < ENGINE_TYPE_ALL && !rc; type *= 2) {
    if (!(allowed & type))
      continue;
    rc = read_type(r, found, type, &one);
    if (!rc)
      engine_read_hang(r, *out, &last, one);
  }
  return rc;
}


static int read_choices(struct engine_reader *r, struct engine_part p,
                        uint32_t *out) {
  struct json j;
  struct json_text key;
  drover_span span;
  uint32_t last = 0, one;
  char index[16];
  int rc = engine_read_node(r, ENGINE_SCHEMA_ONE_OF, out), count = 0;
  engine_read_enter(r, "anyOf", 5);
  engine_read_open(&j, p);
  if (!rc && json_kind(&j) != JSON_ARRAY)
    return engine_read_refuse(r, "a list is expected");
  json_enter(&j);
  while (!rc && json_next(&j, &key)) {
    json_skip(&j, &span);
    size_t size = (size_t)snprintf(index, sizeof index, "%d", count++);
    size_t before = engine_read_enter(r, index, size);
    rc = read_schema(r, engine_read_part(&j, &span), &one);
    if (rc)
      break;
    r->path_size = before;
    engine_read_hang(r, *out, &last, one);
  }
  if (!rc && !last)
    rc = engine_read_refuse(r, "no value can meet it");
  return rc;
}


/* ---- references ---- */

/* One step of a JSON pointer, taken off `at`; its tildes undone. */
static size_t next_step(const char **at, char *to) {
  const char *p = *at + 1;
  size_t size = 0;
  while (*p && *p != '/') {
    char c = *p++;
    if (c == '~' && (*p == '0' || *p == '1'))
      c = *p++ == '0' ? '~' : '/';
    to[size++] = c;
  }
  *at = p;
  return size;
}


/* Follow "#/a/b" from the whole schema. */
static int follow(struct engine_reader *r, const char *pointer,
                  struct engine_part *out) {
  char step[ENGINE_NAME_MAX + 2];
  struct engine_part here = r->all;
  if (*pointer++ != '#' || (*pointer && *pointer != '/'))
    return engine_read_refuse(r, "only #/… references are supported");
  while (*pointer) {
    struct json j;
    drover_span span;
    size_t size = next_step(&pointer, step + 1);
    step[0] = *here.at == '[' ? 'i' : 'k';
    step[size + 1] = '\0';
    engine_read_open(&j, here);
    if (json_find(&j, step, size + 2, &span, NULL))
      return engine_read_refuse(r, "the reference leads nowhere");
    here = (struct engine_part){ here.at + span.start,
                                 span.stop - span.start };
  }
  *out = here;
  return DROVER_OK;
}


/* The number of the rule at a place of the text; a new one is read later. */
static int rule_at(struct engine_reader *r, struct engine_part p,
                   const char *name, uint32_t *out) {
  struct engine_schema *s = r->s;
  for (uint32_t i = 0; i < s->rules; i++)
    if (r->rule[i].at == p.at) {
      *out = i;
      return DROVER_OK;
    }
  if (s->rules == ENGINE_SCHEMA_RULES_MAX)
    return engine_read_refuse(r, "too many references");
  r->name[s->rules] = (uint32_t)s->text.size;
  if (buf_add(&s->text, name, strlen(name) + 1))
    return engine_read_refuse(r, "the schema is too large");
  r->rule[s->rules] = p;
  *out = s->rules++;
  return DROVER_OK;
}


static int read_ref(struct engine_reader *r, struct engine_part p,
                    uint32_t *out) {
  char pointer[ENGINE_NAME_MAX + 1];
  struct engine_part target;
  uint32_t rule;
  engine_read_enter(r, "$ref", 4);
  if (*p.at != '"' || p.size - 2 > ENGINE_NAME_MAX)
    return engine_read_refuse(r, "a reference is expected");
  long size = json_unescape(p.at + 1, p.size - 2, pointer);
  if (size < 0 || memchr(pointer, 0, (size_t)size))
    return engine_read_refuse(r, "a reference is expected");
  pointer[size] = '\0';
  int rc = follow(r, pointer, &target);
  if (!rc)
    rc = rule_at(r, target, pointer, &rule);
  if (!rc)
    rc = engine_read_node(r, ENGINE_SCHEMA_RULE, out);
  if (!rc)
    r->s->node[*out].rule = rule;
  return rc;
}


/* ---- a schema ---- */

/* A keyword that would narrow what another one says, and is not looked at
 * there, is refused and not overlooked. */
static int alone(struct engine_reader *r, const struct engine_part *found,
                 enum engine_key with, enum engine_key also) {
  int others = 0;
  for (int k = 0; k < ENGINE_KEYS; k++)
    others |= found[k].at && k != (int)with && k != (int)also;
  return others ? engine_read_refuse(r, "enum, const, anyOf and $ref stand "
                                     "alone here")
                : DROVER_OK;
}


/* What a schema without a type is about. */
static int guess(const struct engine_part *found) {
  if (found[ENGINE_KEY_PROPERTIES].at || found[ENGINE_KEY_REQUIRED].at
      || found[ENGINE_KEY_ADDITIONAL].at)
    return ENGINE_TYPE_OBJECT;
  if (found[ENGINE_KEY_ITEMS].at || found[ENGINE_KEY_MIN_ITEMS].at
      || found[ENGINE_KEY_MAX_ITEMS].at)
    return ENGINE_TYPE_ARRAY;
  return found[ENGINE_KEY_MIN_LENGTH].at || found[ENGINE_KEY_MAX_LENGTH].at
    ? ENGINE_TYPE_STRING : 0;
}


static int read_found(struct engine_reader *r,
                      const struct engine_part *found, uint32_t *out) {
  int allowed = ENGINE_TYPE_ALL, rc = DROVER_OK;
  enum engine_key only = found[ENGINE_KEY_REF].at ? ENGINE_KEY_REF
    : found[ENGINE_KEY_ANY_OF].at ? ENGINE_KEY_ANY_OF
    : found[ENGINE_KEY_CONST].at ? ENGINE_KEY_CONST : ENGINE_KEY_ENUM;
  int values = only == ENGINE_KEY_CONST || only == ENGINE_KEY_ENUM;
  if (found[only].at)
    rc = alone(r, found, only, values ? ENGINE_KEY_TYPE : only);
  if (rc)
    return rc;
  if (found[ENGINE_KEY_REF].at)
    return read_ref(r, found[ENGINE_KEY_REF], out);
  if (found[ENGINE_KEY_ANY_OF].at)
    return read_choices(r, found[ENGINE_KEY_ANY_OF], out);
  if (found[ENGINE_KEY_TYPE].at)
    rc = engine_read_types(r, found[ENGINE_KEY_TYPE], &allowed);
  if (rc)
    return rc;
  if (found[only].at)
    return engine_read_values(r, found, allowed, out);
  if (!found[ENGINE_KEY_TYPE].at)
    allowed = guess(found);
  return allowed ? read_union(r, found, allowed, out)
                 : engine_read_node(r, ENGINE_SCHEMA_ANY, out);
}


static int read_schema(struct engine_reader *r, struct engine_part p,
                       uint32_t *out) {
  struct engine_part found[ENGINE_KEYS];
  if (engine_read_is(p, "true"))
    return engine_read_node(r, ENGINE_SCHEMA_ANY, out);
  if (engine_read_is(p, "false"))
    return engine_read_refuse(r, "no value can meet it");
  if (*p.at != '{')
    return engine_read_refuse(r, "a schema is expected");
  if (r->level == ENGINE_LEVELS_MAX)
    return engine_read_refuse(r, "nested too deep");
  r->level++;
  int rc = engine_read_keys(r, p, found);
  if (!rc)
    rc = read_found(r, found, out);
  r->level--;
  return rc;
}


/* Rules are read in the order in which they were named, until none is new. */
static int read_rules(struct engine_reader *r) {
  int rc = DROVER_OK;
  for (uint32_t i = 0; i < r->s->rules && !rc; i++) {
    const char *name = r->s->text.at + r->name[i];
    r->path_size = strlen(name) < sizeof r->path ? strlen(name)
                                                 : sizeof r->path;
    memcpy(r->path, name, r->path_size);
    uint32_t node = 0;
    rc = read_schema(r, r->rule[i], &node);
    r->s->rule[i] = node;
  }
  return rc;
}


static int read_all(struct engine_schema *s, const char *text, size_t size,
                    drover_err *err) {
  struct json j;
  drover_span span;
  uint32_t root;
  if (size > ENGINE_SCHEMA_TEXT_MAX)
    return drover_fail(err, DROVER_EBADREQUEST, "response_format: the schema "
                       "has %zu bytes, at most %d", size,
                       ENGINE_SCHEMA_TEXT_MAX);
  json_open(&j, text, size);
  json_skip(&j, &span);
  if (json_close(&j, NULL))
    return drover_fail(err, DROVER_EBADREQUEST,
                       "response_format: the schema is no JSON");
  struct engine_reader *r = mem_calloc(1, sizeof *r);
  if (!r)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a schema");
  r->s = s;
  r->err = err;
  r->all = (struct engine_part){ text + span.start, span.stop - span.start };
  int rc = rule_at(r, r->all, "schema", &root);
  if (!rc)
    rc = read_rules(r);
  mem_free(r);
  return rc;
}


int engine_schema_new(struct engine_schema **out, const char *json,
                      size_t size, drover_err *err) {
  static const char any[] = "{\"type\":\"object\"}";
  struct engine_schema *s = mem_calloc(1, sizeof *s);
  *out = NULL;
  if (!s)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a schema");
  buf_init(&s->text, ENGINE_SCHEMA_TEXT_MAX * 16);
  s->nodes = 1;
  s->room = 64;
  s->node = mem_calloc(s->room, sizeof *s->node);
  int rc = s->node ? DROVER_OK
    : drover_fail(err, DROVER_ENOMEM, "no memory for a schema");
  if (!rc)
    rc = read_all(s, json ? json : any, json ? size : sizeof any - 1, err);
  if (!rc)
    rc = engine_schema_measure(s, err);
  if (rc)
    engine_schema_free(s);
  else
    *out = s;
  return rc;
}


void engine_schema_free(struct engine_schema *s) {
  if (!s)
    return;
  buf_deinit(&s->text, 0);
  mem_free(s->node);
  mem_free(s);
}
