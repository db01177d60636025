/* json: the JSON part of the public door, and what a chat chunk holds. The
 * walk over the text is base/json's; here stand the names of the fields.
 *
 * A chunk that does more than add text is flagged, and Lua decodes it whole:
 * so this knows only what most chunks of a stream are made of.
 *
 * SPDX-License-Identifier: MIT */
#include "base/json.h"

#include <string.h>

#include "base/err.h"
#include "drover.h"

struct scan {                       /* one chunk, read once */
  struct json j;
  drover_delta *out;                /* the caller's */
};


/* ---- one object ---- */

/* A field of an object, and who reads its value. */
struct field {
  const char *name;
  size_t size;
  void (*read)(struct scan *s, enum json_kind kind);
};

#define FIELD(name, read) { name, sizeof name - 1, read }


/* A key without escapes is compared by size and first byte before json_is()
 * is called: chunks hold many keys that are none of ours. */
static inline int is_field(const struct json_text *key, const struct field *f) {
  if (key->plain && (key->size != f->size || key->at[0] != f->name[0]))
    return 0;                       /* saves most of the calls */
  return json_is(key, f->name, f->size);
}


static void other(struct scan *s) {
  s->out->flags |= DROVER_DELTA_OTHER;
}


/* Read the object at the cursor: each field by its reader, the first of equal
 * keys only; what is not in the table by `rest` (NULL: passed over). A null
 * counts as absent, another kind than an object is somebody else's matter. */
static void read_object(struct scan *s, enum json_kind kind,
                        const struct field *fields, int count,
                        void (*rest)(struct scan *s, enum json_kind kind)) {
  struct json_text key;
  uint32_t seen = 0;
  if (kind != JSON_OBJECT) {
    if (kind != JSON_NULL)
      other(s);
    json_skip(&s->j, NULL);
    return;
  }
  json_enter(&s->j);
  while (json_next(&s->j, &key)) {
    void (*read)(struct scan *, enum json_kind) = rest;
    for (int i = 0; i < count; i++) {
      if (!is_field(&key, &fields[i]))
        continue;
      read = seen >> i & 1 ? NULL : fields[i].read;
      seen |= 1u << i;
    }
    enum json_kind value = json_kind(&s->j);
    if (read && value != JSON_NULL)
      read(s, value);
    else
      json_skip(&s->j, NULL);
  }
}


/* ---- the fields ---- */

/* null (role-only chunks have it) never gets here: read_object() passes over
 * it. "" counts as no text, so that an empty delta starts no stream. */
static void read_content(struct scan *s, enum json_kind kind) {
  struct json_text text;
  if (kind != JSON_STRING) {
    other(s);
    json_skip(&s->j, NULL);
    return;
  }
  json_string(&s->j, &text);
  if (text.size == 0)
    return;
  s->out->flags |= DROVER_DELTA_TEXT;
  s->out->text_start = (uint32_t)(text.at - (const char *)s->j.start);
  s->out->text_size = (uint32_t)text.size;
  s->out->text_plain = (uint32_t)text.plain;
}


/* The value is not wanted, only that the chunk is the opening one. */
static void read_role(struct scan *s, enum json_kind kind) {
  if (kind == JSON_STRING)
    s->out->flags |= DROVER_DELTA_ROLE;
  json_skip(&s->j, NULL);
}


/* Tool calls, reasoning, a refusal: whatever is neither "" nor []. */
static void read_rest(struct scan *s, enum json_kind kind) {
  drover_span span;
  json_skip(&s->j, &span);
  int empty = kind == JSON_STRING || kind == JSON_ARRAY;
  if (!empty || span.stop - span.start > 2)
    other(s);
}


/* What the table does not name goes to read_rest(): reasoning and tool calls
 * have many spellings, and all of them mean "decode this one whole". */
static void read_delta(struct scan *s, enum json_kind kind) {
  static const struct field fields[] = {
    FIELD("content", read_content), FIELD("role", read_role),
  };
  read_object(s, kind, fields, 2, read_rest);
}


/* An escape in a finish reason is unheard of; then Lua decodes the whole
 * chunk rather than compare escaped bytes. */
static void read_finish(struct scan *s, enum json_kind kind) {
  struct json_text text;
  if (kind != JSON_STRING) {
    other(s);
    json_skip(&s->j, NULL);
    return;
  }
  json_string(&s->j, &text);
  s->out->flags |= DROVER_DELTA_FINISH;
  s->out->finish_start = (uint32_t)(text.at - (const char *)s->j.start);
  s->out->finish_size = (uint32_t)text.size;
  if (!text.plain)
    other(s);
}


/* Choices are told apart by their index; another than "0", spelled so, means
 * n > 1, which the fast path does not serve. */
static void read_index(struct scan *s, enum json_kind kind) {
  drover_span span;
  json_skip(&s->j, &span);
  if (kind != JSON_NUMBER || span.stop - span.start != 1 ||
      s->j.start[span.start] != '0')
    other(s);
}


/* An empty list is the usage chunk of some servers and sets nothing. */
static void read_choices(struct scan *s, enum json_kind kind) {
  static const struct field fields[] = {
    FIELD("index", read_index), FIELD("delta", read_delta),
    FIELD("finish_reason", read_finish),
  };
  struct json_text key;
  if (kind != JSON_ARRAY) {
    other(s);
    json_skip(&s->j, NULL);
    return;
  }
  json_enter(&s->j);
  for (int i = 0; json_next(&s->j, &key); i++) {
    if (i == 0) {
      read_object(s, json_kind(&s->j), fields, 3, NULL);
    } else {
      other(s);
      json_skip(&s->j, NULL);
    }
  }
}


/* Only that it is there: the numbers are read by Lua, once a stream. */
static void read_usage(struct scan *s, enum json_kind kind) {
  if (kind == JSON_OBJECT)
    s->out->flags |= DROVER_DELTA_USAGE;
  json_skip(&s->j, NULL);
}


/* Any value but null, and the stream is over for the reader: OpenAI's shape
 * is an object, others send a string. */
static void read_error(struct scan *s, enum json_kind kind) {
  (void)kind;
  s->out->flags |= DROVER_DELTA_ERROR;
  json_skip(&s->j, NULL);
}


/* ---- the door ---- */

static int size_is_right(size_t size, drover_err *err) {
  return size <= UINT32_MAX ? DROVER_OK
       : drover_fail(err, DROVER_ETOOLARGE, "a JSON text past 4 GiB");
}


/* On a fault the flags are cleared: nothing out of a text that is not JSON
 * may be used. */
int drover_delta_scan(const char *json, size_t size, drover_delta *out,
                      drover_err *err) {
  static const struct field fields[] = {
    FIELD("choices", read_choices), FIELD("usage", read_usage),
    FIELD("error", read_error),
  };
  struct scan s = { .out = out };
  *out = (drover_delta){ 0 };
  int rc = size_is_right(size, err);
  if (rc)
    return rc;
  json_open(&s.j, json, size);
  read_object(&s, json_kind(&s.j), fields, 3, NULL);
  rc = json_close(&s.j, err);
  if (rc)
    *out = (drover_delta){ 0 };
  return rc;
}


long drover_json_unescape(const char *from, size_t size, char *to) {
  return json_unescape(from, size, to);
}


/* A door to json_find(), whose cursor the caller never sees. */
int drover_json_find(const char *json, size_t size, const char *path,
                     size_t path_size, drover_span *out, drover_err *err) {
  struct json j;
  json_open(&j, json, size);
  return json_find(&j, path, path_size, out, err);
}


/* One json_skip() of the value, depth 128: whatever passes can be handed to
 * any decoder with a limit of its own. */
int drover_json_check(const char *json, size_t size, drover_err *err) {
  struct json j;
  json_open(&j, json, size);
  json_skip(&j, NULL);
  return json_close(&j, err);
}


/* Where in `out` the value of this key goes; NULL when nobody asked for it or
 * it has been seen. A value at the cursor never has the type 0. */
static drover_span *place_of(const struct json_text *key, const char *name,
                             int count, drover_span *out) {
  for (int i = 0; i < count; i++) {
    size_t size = strlen(name);
    if ((!key->plain || key->size == size) && json_is(key, name, size))
      return out[i].type ? NULL : &out[i];
    name += size + 1;
  }
  return NULL;
}


int drover_json_members(const char *json, size_t size, const char *names,
                        int count, drover_span *out, drover_err *err) {
  struct json j;
  struct json_text key;
  memset(out, 0, (size_t)count * sizeof *out);
  json_open(&j, json, size);
  if (json_kind(&j) == JSON_OBJECT) {
    json_enter(&j);
    while (json_next(&j, &key))
      json_skip(&j, place_of(&key, names, count, out));
  } else {
    json_skip(&j, NULL);
  }
  return json_close(&j, err);
}
