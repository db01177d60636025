/* gguf: values and tensors by name, with their types checked. See gguf.h.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/err.h"
#include "gguf.h"

static const char *const type_names[ENGINE_GGUF_TYPES] = {
  "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool",
  "string", "array", "uint64", "int64", "float64"
};


/* A file's names may hold anything, also escape sequences for the terminal
 * that shows the error. By value: two of them may stand in one message. */
struct engine_gguf_shown engine_gguf_show(const char *name, size_t size) {
  struct engine_gguf_shown s;
  size_t n = size < sizeof s.text - 1 ? size : sizeof s.text - 1;
  for (size_t i = 0; i < n; i++)
    s.text[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
  s.text[n] = '\0';
  return s;
}


/* As gguf.c sorted them: bytes first, the shorter one of two that begin
 * alike before the longer. */
static int order(const char *name, size_t size, const char *than) {
  size_t than_size = strlen(than);
  int d = memcmp(name, than, size < than_size ? size : than_size);
  return d ? d : (size > than_size) - (size < than_size);
}


/* Binary search: loading asks for some 40 keys of at most 4096, several of
 * them twice. */
const struct engine_gguf_key *engine_gguf_key(const struct engine_gguf *g,
                                              const char *name) {
  uint32_t low = 0, high = g->keys;
  while (low < high) {
    uint32_t mid = low + (high - low) / 2;
    int d = order(g->key[mid].name, g->key[mid].name_size, name);
    if (d == 0)
      return &g->key[mid];
    if (d < 0)
      low = mid + 1;
    else
      high = mid;
  }
  return NULL;
}


/* The same over the other table. */
const struct engine_gguf_tensor *engine_gguf_tensor(
  const struct engine_gguf *g, const char *name) {
  uint32_t low = 0, high = g->tensors;
  while (low < high) {
    uint32_t mid = low + (high - low) / 2;
    int d = order(g->tensor[mid].name, g->tensor[mid].name_size, name);
    if (d == 0)
      return &g->tensor[mid];
    if (d < 0)
      low = mid + 1;
    else
      high = mid;
  }
  return NULL;
}


/* The types must be the same, not just hold the value: writers follow the
 * specification's types, and a u64 where a u32 belongs shows that the key
 * means something else. */
static int typed(const struct engine_gguf *g, const char *name, uint32_t type,
                 const struct engine_gguf_key **out, drover_err *err) {
  const struct engine_gguf_key *k = engine_gguf_key(g, name);
  if (!k)
    return DROVER_ENOTFOUND;
  if (k->type != type)
    return drover_fail(err, DROVER_EFORMAT, "%s is of type %s, %s expected",
                       name, type_names[k->type], type_names[type]);
  *out = k;
  return DROVER_OK;
}


/* Copied: a value in the head is unaligned. */
int engine_gguf_u32(const struct engine_gguf *g, const char *name,
                    uint32_t *out, drover_err *err) {
  const struct engine_gguf_key *k = NULL;
  int rc = typed(g, name, ENGINE_GGUF_U32, &k, err);
  if (!rc)
    memcpy(out, k->at, sizeof *out);
  return rc;
}


/* Any float, NaN too: ranges are the model's business. */
int engine_gguf_f32(const struct engine_gguf *g, const char *name, float *out,
                    drover_err *err) {
  const struct engine_gguf_key *k = NULL;
  int rc = typed(g, name, ENGINE_GGUF_F32, &k, err);
  if (!rc)
    memcpy(out, k->at, sizeof *out);
  return rc;
}


/* Any byte but 0 is true: the format says 0 or 1, and nothing depends on it. */
int engine_gguf_bool(const struct engine_gguf *g, const char *name, int *out,
                     drover_err *err) {
  const struct engine_gguf_key *k = NULL;
  int rc = typed(g, name, ENGINE_GGUF_BOOL, &k, err);
  if (!rc)
    *out = k->at[0] != 0;
  return rc;
}


/* Trusts the length, because skip_array() walked over it when the file was
 * parsed. */
drover_text engine_gguf_next(const unsigned char **at) {
  uint64_t size;
  memcpy(&size, *at, sizeof size);  /* checked when the file was parsed */
  drover_text text = { (const char *)*at + sizeof size, (size_t)size };
  *at += sizeof size + size;
  return text;
}


/* A span into the head, without a NUL; it holds until the file is closed. */
int engine_gguf_text(const struct engine_gguf *g, const char *name,
                     drover_text *out, drover_err *err) {
  const struct engine_gguf_key *k = NULL;
  int rc = typed(g, name, ENGINE_GGUF_STRING, &k, err);
  if (!rc) {
    const unsigned char *at = k->at;
    *out = engine_gguf_next(&at);
  }
  return rc;
}


/* `k->at` is the first element, unaligned: copy out of it. */
int engine_gguf_array(const struct engine_gguf *g, const char *name,
                      uint32_t item, const struct engine_gguf_key **out,
                      drover_err *err) {
  const struct engine_gguf_key *k = NULL;
  int rc = typed(g, name, ENGINE_GGUF_ARRAY, &k, err);
  if (rc)
    return rc;
  if (k->item != item)
    return drover_fail(err, DROVER_EFORMAT,
                       "%s is an array of %s, of %s expected", name,
                       type_names[k->item], type_names[item]);
  *out = k;
  return DROVER_OK;
}
