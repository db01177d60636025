/* texts: see texts.h. For counting tokens and rendering prompts, and for people
 * who want to know what a file holds.
 *
 * SPDX-License-Identifier: MIT */
#include "texts.h"

#include <inttypes.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "engine/marked.h"
#include "engine/quant.h"

enum { SHOWN = 120 };               /* bytes of a string's value */


int drover_model_open(drover_model **out, const char *path, drover_err *err) {
  *out = NULL;
  struct drover_model *m = mem_calloc(1, sizeof *m);
  if (!m)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a model");
  int rc = engine_gguf_open(&m->file, path, err);
  if (!rc)
    rc = engine_vocab_new(&m->own, m->file, err);
  if (rc) {
    drover_model_close(m);
    return rc;
  }
  m->vocab = m->own;
  *out = m;
  return DROVER_OK;
}


void drover_model_close(drover_model *m) {
  if (!m)
    return;
  engine_vocab_free(m->own);
  engine_gguf_close(m->file);
  mem_free(m);
}


/* ---- tokens ---- */

/* Plain text is one span, in which no special token is parsed. */
static int encode(const struct engine_vocab *v, const drover_text *text,
                  int flags, struct engine_ids *ids, drover_err *err) {
  struct engine_span all = { text->size, 0 };
  struct engine_prompt p = { text->data, text->size, &all, 1 };
  int bos = flags & 2;
  return flags & 1
    ? engine_marked_encode(v, text->data, text->size, bos, ids, err)
    : engine_vocab_encode(v, &p, bos, ids, err);
}


long drover_model_encode(drover_model *m, const drover_text *text, int flags,
                         int32_t *ids, size_t cap, drover_err *err) {
  struct engine_ids got = { 0 };
  int rc = encode(m->vocab, text, flags, &got, err);
  size_t n = got.count < cap ? got.count : cap;
  if (!rc && n)
    memcpy(ids, got.at, n * sizeof *ids);
  long count = rc ? rc : (long)got.count;
  engine_ids_deinit(&got);
  return count;
}


static long copy(const char *from, size_t size, char *buf, size_t cap) {
  size_t n = size < cap ? size : cap;
  if (n)
    memcpy(buf, from, n);
  return (long)size;
}


long drover_model_token(drover_model *m, int32_t id, char *buf, size_t cap) {
  const struct engine_vocab *v = m->vocab;
  if (id < 0 || (uint32_t)id >= v->size)
    return DROVER_ENOTFOUND;
  return copy(v->bytes + v->start[id], v->start[id + 1] - v->start[id], buf,
              cap);
}


long drover_model_text(drover_model *m, int which, char *buf, size_t cap) {
  const struct engine_vocab *v = m->vocab;
  int32_t id = which == DROVER_MODEL_BOS ? v->bos : v->eos;
  if (which == DROVER_MODEL_TEMPLATE)
    return copy(v->pattern, v->pattern_size, buf, cap);
  return id < 0 ? 0 : drover_model_token(m, id, buf, cap);
}


long drover_model_mark(drover_model *m, const char *text, size_t size,
                       char *buf, size_t cap) {
  struct buf out;
  buf_init(&out, 2 * size + 1);
  long rc = engine_mark(m->vocab, text, size, &out);
  if (!rc)
    rc = copy(out.at, out.size, buf, cap);
  buf_deinit(&out, 0);
  return rc;
}


/* ---- for people ---- */

static void describe_value(struct buf *out, const struct engine_gguf *g,
                           const struct engine_gguf_key *k, const char *name) {
  uint32_t u;
  float f;
  int b;
  drover_text t;
  if (k->type == ENGINE_GGUF_ARRAY)
    buf_print(out, "[%" PRIu64 "]", k->count);
  else if (!engine_gguf_text(g, name, &t, NULL))
    buf_print(out, "%.*s%s", (int)(t.size < SHOWN ? t.size : SHOWN), t.data,
              t.size > SHOWN ? "..." : "");
  else if (!engine_gguf_bool(g, name, &b, NULL))
    buf_print(out, "%s", b ? "true" : "false");
  else if (!engine_gguf_f32(g, name, &f, NULL))
    buf_print(out, "%g", (double)f);
  else if (!engine_gguf_u32(g, name, &u, NULL))
    buf_print(out, "%" PRIu32, u);
  else
    buf_print(out, "(%zu bytes)", k->size);
}


/* Keys are texts of the file's: shown printable, as errors show them. */
static void describe_keys(struct buf *out, const struct engine_gguf *g) {
  for (uint32_t i = 0; i < g->keys; i++) {
    const struct engine_gguf_key *k = &g->key[i];
    struct engine_gguf_shown shown = engine_gguf_show(k->name, k->name_size);
    char name[256];
    buf_print(out, "%s = ", shown.text);
    if (k->name_size < sizeof name) {
      memcpy(name, k->name, k->name_size);
      name[k->name_size] = '\0';
      describe_value(out, g, k, name);
    }
    buf_print(out, "\n");
  }
}


static void describe_tensors(struct buf *out, const struct engine_gguf *g) {
  for (uint32_t i = 0; i < g->tensors; i++) {
    const struct engine_gguf_tensor *t = &g->tensor[i];
    const struct engine_quant_type *type = engine_quant_type(t->type);
    buf_print(out, "%s %s %" PRIu64, engine_gguf_show(t->name,
              t->name_size).text, type ? type->name : "?", t->ne[0]);
    for (uint32_t d = 1; d < t->dims; d++)
      buf_print(out, " x %" PRIu64, t->ne[d]);
    buf_print(out, "%s\n", engine_quant_reads(t->type) ? "" : "  (not read)");
  }
}


long drover_model_describe(drover_model *m, char *buf, size_t cap) {
  struct buf out;
  if (!m->file)
    return 0;
  buf_init(&out, (size_t)64 << 20);
  buf_print(&out, "GGUF version %" PRIu32 ", %" PRIu64 " bytes, %" PRIu32
            " keys, %" PRIu32 " tensors\n", m->file->version,
            m->file->file_bytes, m->file->keys, m->file->tensors);
  describe_keys(&out, m->file);
  describe_tensors(&out, m->file);
  long size = copy(out.at, out.size, buf, cap);
  buf_deinit(&out, 0);
  return size;
}
