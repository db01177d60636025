/* gguf: see gguf.h.
 *
 * The head of a file is read in growing pieces: the parser runs over what is
 * there, and `short_of` tells apart "the file ends here" from "read more".
 *
 * SPDX-License-Identifier: MIT */
#include "gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "quant.h"

enum {
  KEY_LEAST = 8 + 1 + 4 + 1,        /* bytes of the smallest key and value */
  TENSOR_LEAST = 8 + 1 + 4 + 8 + 4 + 8
};

/* The parse of one head, which is thrown away when more of the file is needed.
 * Everything behind `at` is unread; errors name bytes of the file. */
struct reader {
  struct engine_gguf *g;            /* filled in */
  size_t at;                        /* next byte, <= g->have */
  int    short_of;                  /* 1: more of the file must be read */
  drover_err *err;
};

/* Of each value type; 0 for strings and arrays, which carry their own size. */
static const unsigned char value_bytes[ENGINE_GGUF_TYPES] = {
  1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8
};


/* ---- bytes ---- */

/* The next `size` bytes, or NULL with the error told. */
static const unsigned char *take(struct reader *r, uint64_t size,
                                 const char *what) {
  const struct engine_gguf *g = r->g;
  if (size > g->file_bytes - r->at) {
    drover_fail(r->err, DROVER_EFORMAT,
                "the file ends at byte %" PRIu64 " inside %s (begun at %zu)",
                g->file_bytes, what, r->at);
    return NULL;
  }
  if (size > g->have - r->at) {
    r->short_of = 1;
    return NULL;
  }
  const unsigned char *p = g->bytes + r->at;
  r->at += (size_t)size;
  return p;
}


/* GGUF is little-endian and unaligned until the data section; big-endian
 * hosts were refused (gguf_file.c), so the bytes are copied. */
static int take_u32(struct reader *r, uint32_t *out, const char *what) {
  const unsigned char *p = take(r, sizeof *out, what);
  if (p)
    memcpy(out, p, sizeof *out);
  return p ? DROVER_OK : DROVER_EFORMAT;
}


/* As take_u32(). The format has its counts and sizes signed; here they are
 * unsigned, so a negative one is far past every limit. */
static int take_u64(struct reader *r, uint64_t *out, const char *what) {
  const unsigned char *p = take(r, sizeof *out, what);
  if (p)
    memcpy(out, p, sizeof *out);
  return p ? DROVER_OK : DROVER_EFORMAT;
}


/* A string: u64 length, bytes, no NUL. `max` is checked before the bytes are
 * taken, so that a length out of thin air is told as such and not as a short
 * file. `out` points into the head. */
static int take_text(struct reader *r, drover_text *out, uint64_t max,
                     const char *what) {
  uint64_t size;
  size_t begun = r->at;
  int rc = take_u64(r, &size, what);
  if (rc)
    return rc;
  if (size > max)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte %zu: %s of %" PRIu64 " bytes, at most %" PRIu64,
                       begun, what, size, max);
  out->data = (const char *)take(r, size, what);
  out->size = (size_t)size;
  return out->data ? DROVER_OK : DROVER_EFORMAT;
}


/* ---- keys ---- */

/* `begun` is where the type stood: every complaint names a byte of the file. */
static int known_type(struct reader *r, uint32_t type, size_t begun) {
  if (type < ENGINE_GGUF_TYPES)
    return DROVER_OK;
  return drover_fail(r->err, DROVER_EFORMAT,
                     "byte %zu: value type %" PRIu32 " is unknown", begun,
                     type);
}


/* Arrays of arrays are legal in the format and used by nobody: refused, so
 * that nothing here recurses. The count is bounded before it is multiplied.
 * Strings are walked one by one, which is what lets engine_gguf_next() trust
 * their lengths later. */
static int skip_array(struct reader *r, struct engine_gguf_key *k) {
  size_t begun = r->at;
  int rc = take_u32(r, &k->item, "an array's type");
  if (!rc)
    rc = known_type(r, k->item, begun);
  if (!rc)
    rc = take_u64(r, &k->count, "an array's count");
  if (rc)
    return rc;
  if (k->item == ENGINE_GGUF_ARRAY)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte %zu: an array of arrays is not supported", begun);
  if (k->count > ENGINE_GGUF_ARRAY_MAX)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte %zu: an array of %" PRIu64
                       " elements, at most %d", begun, k->count,
                       ENGINE_GGUF_ARRAY_MAX);
  k->at = r->g->bytes + r->at;
  if (k->item != ENGINE_GGUF_STRING)
    return take(r, k->count * value_bytes[k->item], "an array") ? DROVER_OK
                                                              : DROVER_EFORMAT;
  drover_text text;
  for (uint64_t i = 0; i < k->count && !rc; i++)
    rc = take_text(r, &text, ENGINE_GGUF_TEXT_MAX, "a string");
  return rc;
}


/* `at` and `size` span the value whatever its type, an array's count and type
 * left out. */
static int parse_key(struct reader *r, struct engine_gguf_key *k) {
  drover_text text;
  size_t begun = r->at;
  int rc = take_text(r, &text, ENGINE_GGUF_KEY_MAX, "a key");
  if (!rc && text.size == 0)
    rc = drover_fail(r->err, DROVER_EFORMAT, "byte %zu: an empty key", begun);
  if (rc)
    return rc;
  k->name = text.data;
  k->name_size = text.size;
  k->count = 1;
  begun = r->at;
  rc = take_u32(r, &k->type, "a value's type");
  if (!rc)
    rc = known_type(r, k->type, begun);
  if (rc)
    return rc;
  begun = r->at;
  k->at = r->g->bytes + begun;
  if (k->type == ENGINE_GGUF_ARRAY)
    rc = skip_array(r, k);
  else if (k->type == ENGINE_GGUF_STRING)
    rc = take_text(r, &text, ENGINE_GGUF_TEXT_MAX, "a string");
  else if (!take(r, value_bytes[k->type], "a value"))
    rc = DROVER_EFORMAT;
  k->size = (size_t)(r->g->bytes + r->at - k->at);
  return rc;
}


/* ---- tensors ---- */

/* Bytes of a tensor, every product checked before it is formed. */
static int measure(struct reader *r, struct engine_gguf_tensor *t) {
  struct engine_gguf_shown name = engine_gguf_show(t->name, t->name_size);
  const struct engine_quant_type *type = engine_quant_type(t->type);
  if (!type)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "tensor %s: type %" PRIu32 " is unknown", name.text,
                       t->type);
  uint64_t all = 1;
  for (uint32_t d = 0; d < t->dims; d++)
    if (t->ne[d] == 0 || t->ne[d] > INT64_MAX
        || __builtin_mul_overflow(all, t->ne[d], &all) || all > INT64_MAX)
      return drover_fail(r->err, DROVER_EFORMAT,
                         "tensor %s: dimension %" PRIu32 " is %" PRIu64
                         ": the number of elements is out of range",
                         name.text, d, t->ne[d]);
  if (t->ne[0] % type->values)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "tensor %s: rows of %" PRIu64 " are no whole blocks of "
                       "%" PRIu32 " (%s)", name.text, t->ne[0], type->values,
                       type->name);
  if (__builtin_mul_overflow(all / type->values, type->bytes, &t->bytes)
      || t->bytes > INT64_MAX)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "tensor %s: its size in bytes is too big", name.text);
  return DROVER_OK;
}


/* `ne` past the dimensions is 1, so that shapes compare without their count.
 * `at` is still the offset from the data section: place_tensors() makes it a
 * place in the file. */
static int parse_tensor(struct reader *r, struct engine_gguf_tensor *t) {
  drover_text text;
  size_t begun = r->at;
  int rc = take_text(r, &text, ENGINE_GGUF_NAME_MAX, "a tensor's name");
  if (!rc && text.size == 0)
    rc = drover_fail(r->err, DROVER_EFORMAT,
                     "byte %zu: a tensor without a name", begun);
  if (!rc)
    rc = take_u32(r, &t->dims, "a tensor's dimensions");
  if (rc)
    return rc;
  t->name = text.data;
  t->name_size = text.size;
  if (t->dims < 1 || t->dims > 4)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "tensor %s: %" PRIu32 " dimensions, 1 to 4 are legal",
                       engine_gguf_show(t->name, t->name_size).text, t->dims);
  for (uint32_t d = 0; d < 4; d++)
    t->ne[d] = 1;
  for (uint32_t d = 0; d < t->dims && !rc; d++)
    rc = take_u64(r, &t->ne[d], "a tensor's shape");
  if (!rc)
    rc = take_u32(r, &t->type, "a tensor's type");
  if (!rc)
    rc = take_u64(r, &t->at, "a tensor's offset");
  return rc ? rc : measure(r, t);
}


/* Check that tensors follow each other, aligned, and lie inside the file;
 * offsets become places in the file. */
static int place_tensors(struct reader *r) {
  struct engine_gguf *g = r->g;
  uint64_t pad = g->alignment - 1;
  uint64_t base = ((uint64_t)r->at + pad) & ~pad, next = 0;
  for (uint32_t i = 0; i < g->tensors; i++) {
    struct engine_gguf_tensor *t = &g->tensor[i];
    struct engine_gguf_shown name = engine_gguf_show(t->name, t->name_size);
    uint64_t end;
    if (t->at != next)
      return drover_fail(r->err, DROVER_EFORMAT,
                         "tensor %s: offset %" PRIu64 ", expected %" PRIu64
                         " (alignment %" PRIu32 ")", name.text, t->at, next,
                         g->alignment);
    if (__builtin_add_overflow(base, t->at, &t->at)
        || __builtin_add_overflow(t->at, t->bytes, &end)
        || end > g->file_bytes)
      return drover_fail(r->err, DROVER_EFORMAT,
                         "tensor %s: %" PRIu64 " bytes at byte %" PRIu64
                         " pass the end of the file (%" PRIu64 " bytes)",
                         name.text, t->bytes, t->at, g->file_bytes);
    next = ((end - base) + pad) & ~pad;   /* end <= file_bytes: no wrap */
  }
  return DROVER_OK;
}


/* ---- the whole head ---- */

static int order(const char *a, size_t a_size, const char *b, size_t b_size) {
  int d = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return d ? d : (a_size > b_size) - (a_size < b_size);
}


static int order_keys(const void *a, const void *b) {
  const struct engine_gguf_key *x = a, *y = b;
  return order(x->name, x->name_size, y->name, y->name_size);
}


static int order_tensors(const void *a, const void *b) {
  const struct engine_gguf_tensor *x = a, *y = b;
  return order(x->name, x->name_size, y->name, y->name_size);
}


/* Sorted for the binary searches of gguf_keys.c; duplicates are then
 * neighbours. qsort() may not have a NULL array, hence the tests. */
static int sort_names(struct reader *r) {
  struct engine_gguf *g = r->g;
  if (g->keys)
    qsort(g->key, g->keys, sizeof *g->key, order_keys);
  if (g->tensors)
    qsort(g->tensor, g->tensors, sizeof *g->tensor, order_tensors);
  for (uint32_t i = 1; i < g->keys; i++)
    if (order_keys(&g->key[i - 1], &g->key[i]) == 0)
      return drover_fail(r->err, DROVER_EFORMAT, "duplicate key %s",
                         engine_gguf_show(g->key[i].name,
                                          g->key[i].name_size).text);
  for (uint32_t i = 1; i < g->tensors; i++)
    if (order_tensors(&g->tensor[i - 1], &g->tensor[i]) == 0)
      return drover_fail(r->err, DROVER_EFORMAT, "duplicate tensor name %s",
                         engine_gguf_show(g->tensor[i].name,
                                          g->tensor[i].name_size).text);
  return DROVER_OK;
}


/* Versions 2 and 3 have one layout; version 1 had 32-bit counts. Each key
 * and tensor takes some bytes at least, so counts are bounded by the file's
 * own length before tables of that size are made. */
static int parse_counts(struct reader *r) {
  struct engine_gguf *g = r->g;
  uint64_t tensors, keys;
  const unsigned char *magic = take(r, 4, "the magic");
  if (!magic)
    return DROVER_EFORMAT;
  if (memcmp(magic, "GGUF", 4))
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte 0: no GGUF file (magic %s)",
                       engine_gguf_show((const char *)magic, 4).text);
  int rc = take_u32(r, &g->version, "the version");
  if (rc)
    return rc;
  if (g->version != 2 && g->version != 3)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte 4: GGUF version %" PRIu32 "%s, 2 and 3 are read",
                       g->version,
                       g->version && !(g->version & 0xffff)
                         ? " (a big-endian file?)" : "");
  rc = take_u64(r, &tensors, "the tensor count");
  if (!rc)
    rc = take_u64(r, &keys, "the key count");
  if (rc)
    return rc;
  uint64_t left = g->file_bytes - r->at;
  if (tensors > ENGINE_GGUF_TENSORS_MAX || tensors > left / TENSOR_LEAST)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte 8: %" PRIu64 " tensors, at most %d and no more "
                       "than the file holds", tensors,
                       ENGINE_GGUF_TENSORS_MAX);
  if (keys > ENGINE_GGUF_KEYS_MAX || keys > left / KEY_LEAST)
    return drover_fail(r->err, DROVER_EFORMAT,
                       "byte 16: %" PRIu64 " keys, at most %d and no more "
                       "than the file holds", keys, ENGINE_GGUF_KEYS_MAX);
  g->tensors = (uint32_t)tensors;
  g->keys = (uint32_t)keys;
  return DROVER_OK;
}


/* Before the tensors are placed, since the table's offsets are multiples of
 * it. The key need not be there (32), and keys are not sorted yet, so it is
 * looked for. */
static int parse_alignment(struct reader *r) {
  struct engine_gguf *g = r->g;
  g->alignment = 32;
  for (uint32_t i = 0; i < g->keys; i++) {
    const struct engine_gguf_key *k = &g->key[i];
    if (k->name_size != 17 || memcmp(k->name, "general.alignment", 17))
      continue;
    if (k->type != ENGINE_GGUF_U32)
      return drover_fail(r->err, DROVER_EFORMAT,
                         "general.alignment is of value type %" PRIu32
                         ", uint32 expected", k->type);
    memcpy(&g->alignment, k->at, sizeof g->alignment);
  }
  if (g->alignment < 8 || g->alignment > 4096
      || (g->alignment & (g->alignment - 1)))
    return drover_fail(r->err, DROVER_EFORMAT,
                       "general.alignment is %" PRIu32
                       ", a power of two from 8 to 4096 expected",
                       g->alignment);
  return DROVER_OK;
}


/* Every run begins anew from byte 0: the head doubles between them, so all of
 * them together cost a few times the last. */
static int parse(struct reader *r) {
  struct engine_gguf *g = r->g;
  int rc = parse_counts(r);
  if (rc)
    return rc;
  g->key = mem_calloc(g->keys, sizeof *g->key);
  g->tensor = mem_calloc(g->tensors, sizeof *g->tensor);
  if (!g->key || !g->tensor)
    return drover_fail(r->err, DROVER_ENOMEM, "no memory for a model's head");
  for (uint32_t i = 0; i < g->keys && !rc; i++)
    rc = parse_key(r, &g->key[i]);
  for (uint32_t i = 0; i < g->tensors && !rc; i++)
    rc = parse_tensor(r, &g->tensor[i]);
  if (!rc)
    rc = parse_alignment(r);
  if (!rc)
    rc = place_tensors(r);
  return rc ? rc : sort_names(r);
}


/* Short of bytes, parse() has failed without telling why: `err` is
 * untouched. */
int engine_gguf_head(struct engine_gguf *g, int *more, drover_err *err) {
  struct reader r = { .g = g, .err = err };
  int rc = parse(&r);
  *more = r.short_of;
  return rc;
}
