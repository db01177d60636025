/* model: see model.h.
 *
 * SPDX-License-Identifier: MIT */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "quant.h"
#include "shape.h"

enum side { ONE, WIDTH, QUERIES, KEYS, FF, VOCAB, HALF };   /* of a tensor */

struct part {                       /* a tensor that a model is made of */
  const char *name;                 /* behind "blk.N." for a layer's */
  size_t at;                        /* of its weight in the struct */
  unsigned char cols, rows;         /* enum side */
  unsigned char may_lack;
};

#define PART(type, field, name, cols, rows, lack) \
  { name ".weight", offsetof(struct type, field), cols, rows, lack }

static const struct part layer_parts[] = {
  PART(engine_layer, attn_norm, "attn_norm", WIDTH, ONE, 0),
  PART(engine_layer, q, "attn_q", WIDTH, QUERIES, 0),
  PART(engine_layer, k, "attn_k", WIDTH, KEYS, 0),
  PART(engine_layer, v, "attn_v", WIDTH, KEYS, 0),
  PART(engine_layer, attn_output, "attn_output", QUERIES, WIDTH, 0),
  PART(engine_layer, ffn_norm, "ffn_norm", WIDTH, ONE, 0),
  PART(engine_layer, gate, "ffn_gate", WIDTH, FF, 0),
  PART(engine_layer, up, "ffn_up", WIDTH, FF, 0),
  PART(engine_layer, down, "ffn_down", FF, WIDTH, 0),
};

static const struct part model_parts[] = {
  PART(engine_model, embed, "token_embd", WIDTH, VOCAB, 0),
  PART(engine_model, output_norm, "output_norm", WIDTH, ONE, 0),
  PART(engine_model, output, "output", WIDTH, VOCAB, 1),
};

enum {
  LAYER_PARTS = sizeof layer_parts / sizeof layer_parts[0],
  MODEL_PARTS = sizeof model_parts / sizeof model_parts[0]
};

static const char rope_name[] = "rope_freqs.weight";


static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for a model");
}


/* ---- tensors ---- */

/* KEYS stands for both k and v: their lengths were checked to be equal
 * (shape.c). */
static uint64_t side(const struct engine_shape *s, unsigned char which) {
  const uint64_t sides[] = {
    [ONE] = 1, [WIDTH] = s->width,
    [QUERIES] = (uint64_t)s->heads * s->head_dim,
    [KEYS] = (uint64_t)s->kv_heads * s->head_dim, [FF] = s->ff,
    [VOCAB] = s->vocab, [HALF] = s->rot / 2
  };
  return sides[which];
}


/* Find a part and check its type and shape. `out` is NULL when it may lack. */
static int find_part(const struct engine_model *m, const struct engine_gguf *g,
                     const struct part *p, const char *name,
                     const struct engine_gguf_tensor **out, drover_err *err) {
  const struct engine_gguf_tensor *t = engine_gguf_tensor(g, name);
  uint64_t cols = side(&m->shape, p->cols), rows = side(&m->shape, p->rows);
  *out = t;
  if (!t)
    return p->may_lack ? DROVER_OK
      : drover_fail(err, DROVER_EFORMAT, "tensor %s is missing", name);
  const char *type = engine_quant_type(t->type)->name;
  if (!engine_quant_reads(t->type))
    return drover_fail(err, DROVER_EFORMAT, "tensor %s is of type %s: F32, "
                       "F16 and Q8_0 are supported", name, type);
  if (p->rows == ONE && t->type != ENGINE_F32)
    return drover_fail(err, DROVER_EFORMAT, "tensor %s is of type %s, F32 "
                       "expected", name, type);
  if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
    return drover_fail(err, DROVER_EFORMAT, "tensor %s is %" PRIu64 " x %"
                       PRIu64 " x %" PRIu64 " x %" PRIu64 ", %" PRIu64 " x %"
                       PRIu64 " expected", name, t->ne[0], t->ne[1], t->ne[2],
                       t->ne[3], cols, rows);
  return DROVER_OK;
}


/* One pass over all parts of a model: each is handed to `visit` with its name
 * in the file and the place of its weight. */
struct walk {
  struct engine_model *m;
  const struct engine_gguf *g;
  int (*visit)(struct walk *w, const struct part *p, const char *name,
               struct engine_weight **at);
  uint32_t found;
  drover_err *err;
};


/* The two tables are the whole of a llama: checking and loading walk them
 * alike, so neither can know a tensor that the other does not. */
static int walk_parts(struct walk *w) {
  char name[ENGINE_GGUF_NAME_MAX + 1];
  int rc = DROVER_OK;
  for (int i = 0; i < MODEL_PARTS && !rc; i++)
    rc = w->visit(w, &model_parts[i], model_parts[i].name,
                  (void *)((char *)w->m + model_parts[i].at));
  for (uint32_t l = 0; l < w->m->shape.layers && !rc; l++)
    for (int i = 0; i < LAYER_PARTS && !rc; i++) {
      snprintf(name, sizeof name, "blk.%" PRIu32 ".%s", l,
               layer_parts[i].name);
      rc = w->visit(w, &layer_parts[i], name,
                    (void *)((char *)&w->m->layer[l] + layer_parts[i].at));
    }
  return rc;
}


/* By shape and type alone; nothing of the tensor's bytes is read yet. */
static int check_part(struct walk *w, const struct part *p, const char *name,
                      struct engine_weight **at) {
  const struct engine_gguf_tensor *t;
  int rc = find_part(w->m, w->g, p, name, &t, w->err);
  (void)at;
  if (rc || !t)
    return rc;
  w->found++;
  w->m->weight_bytes += t->bytes;
  w->m->parameters += t->ne[0] * t->ne[1];
  return DROVER_OK;
}


/* The number behind "blk.", and the name behind that; -1 when it is none. */
static long layer_of(const char *name, const char **rest) {
  char *end;
  if (strncmp(name, "blk.", 4) || name[4] < '0' || name[4] > '9')
    return -1;
  long layer = strtol(name + 4, &end, 10);
  *rest = end + 1;
  return *end == '.' ? layer : -1;
}


/* Also names of layers past the last are none of its parts: such a tensor
 * would be ignored in silence. */
static int is_part(const struct engine_model *m, const char *name) {
  const char *rest;
  long layer = layer_of(name, &rest);
  for (int i = 0; i < MODEL_PARTS; i++)
    if (!strcmp(name, model_parts[i].name))
      return 1;
  for (int i = 0; i < LAYER_PARTS; i++)
    if (layer >= 0 && layer < (long)m->shape.layers
        && !strcmp(rest, layer_parts[i].name))
      return 1;
  return !strcmp(name, rope_name);
}


/* Tensors are counted as they are found, and only where the file has more is
 * the odd one looked for. */
static int check_tensors(struct engine_model *m, const struct engine_gguf *g,
                         drover_err *err) {
  struct walk w = { .m = m, .g = g, .visit = check_part, .err = err };
  const struct part rope = { rope_name, 0, HALF, ONE, 1 };
  const struct engine_gguf_tensor *t;
  int rc = walk_parts(&w);
  if (!rc)
    rc = find_part(m, g, &rope, rope_name, &t, err);
  if (rc)
    return rc;
  w.found += t != NULL;
  for (uint32_t i = 0; i < g->tensors && w.found != g->tensors; i++) {
    struct engine_gguf_shown name = engine_gguf_show(g->tensor[i].name,
                                                     g->tensor[i].name_size);
    if (!is_part(m, name.text))
      return drover_fail(err, DROVER_EFORMAT,
                         "tensor %s is no part of a llama", name.text);
  }
  return w.found == g->tensors ? DROVER_OK
    : drover_fail(err, DROVER_EFORMAT, "a tensor's name is spelled oddly");
}


/* ---- weights ---- */

struct source {                     /* a tensor, for a backend's weight_new */
  const struct engine_gguf *g;
  const struct engine_gguf_tensor *t;
};


/* The hatch's read: a backend asks for a weight's bytes in pieces, in order. */
static int read_source(void *ctx, uint64_t from, void *to, size_t size,
                       drover_err *err) {
  const struct source *s = ctx;
  return engine_gguf_read(s->g, s->t, from, to, size, err);
}


/* `*at` stays NULL for a tensor that may lack and does (output, when it is
 * tied to the embedding). */
static int load_part(struct walk *w, const struct part *p, const char *name,
                     struct engine_weight **at) {
  struct source source = { .g = w->g };
  int rc = find_part(w->m, w->g, p, name, &source.t, w->err);
  if (rc || !source.t)
    return rc;
  struct engine_weight_from from = {
    .type = source.t->type, .cols = (uint32_t)source.t->ne[0],
    .rows = (uint32_t)source.t->ne[1], .read = read_source, .ctx = &source
  };
  return w->m->backend->weight_new(at, &from, w->err);
}


/* Llama 3.1's frequency factors, one divisor a pair: the writer has put the
 * whole formula into the tensor. 0 or less would make angles that are no
 * numbers. */
static int load_rope(struct engine_model *m, const struct engine_gguf *g,
                     drover_err *err) {
  const struct engine_gguf_tensor *t = engine_gguf_tensor(g, rope_name);
  uint32_t half = m->shape.rot / 2;
  if (!t)
    return DROVER_OK;
  m->rope_divisor = mem_alloc(half * sizeof(float));
  if (!m->rope_divisor)
    return no_memory(err);
  int rc = engine_gguf_read(g, t, 0, m->rope_divisor, half * sizeof(float),
                            err);
  for (uint32_t i = 0; i < half && !rc; i++)
    if (!(m->rope_divisor[i] > 0))
      rc = drover_fail(err, DROVER_EFORMAT, "tensor %s: element %" PRIu32
                       " is not above 0", rope_name, i);
  m->shape.rope_divisor = m->rope_divisor;
  return rc;
}


/* When it fails half-way, what was loaded hangs in the model and goes with
 * it. */
int engine_model_load(struct engine_model *m, const struct engine_gguf *g,
                      const struct engine_backend *backend, drover_err *err) {
  struct walk w = { .m = m, .g = g, .visit = load_part, .err = err };
  m->backend = backend;
  return walk_parts(&w);
}


/* ---- the whole ---- */

/* The name goes to people, so it is cut and made printable; the template
 * decides only the family (chat.h). */
static int read_texts(struct engine_model *m, const struct engine_gguf *g,
                      drover_err *err) {
  drover_text name = { 0 }, pattern = { 0 };
  int rc = engine_gguf_text(g, "general.name", &name, err);
  if (!rc || rc == DROVER_ENOTFOUND)
    rc = engine_gguf_text(g, "tokenizer.chat_template", &pattern, err);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (name.size)
    snprintf(m->name, sizeof m->name, "%s",
             engine_gguf_show(name.data, name.size).text);
  m->chat = engine_chat_detect(pattern);
  return DROVER_OK;
}


/* The embedding has a row a token; `vocab_size`, where it stands, agrees. */
static int read_vocab(struct engine_model *m, const struct engine_gguf *g,
                      drover_err *err) {
  int rc = engine_vocab_new(&m->vocab, g, err);
  if (rc)
    return rc;
  uint32_t said = m->shape.vocab = m->vocab->size;
  rc = engine_gguf_u32(g, "llama.vocab_size", &said, err);
  if (said != m->vocab->size)
    return drover_fail(err, DROVER_EFORMAT, "llama.vocab_size is %" PRIu32
                       " for %" PRIu32 " tokens", said, m->vocab->size);
  return rc == DROVER_ENOTFOUND ? DROVER_OK : rc;
}


/* The vocabulary comes before the tensors: the embedding's shape follows
 * from its size. */
static int read_model(struct engine_model *m, const struct engine_gguf *g,
                      drover_err *err) {
  int rc = engine_shape_read(&m->shape, g, err);
  if (!rc)
    rc = read_texts(m, g, err);
  if (!rc)
    rc = read_vocab(m, g, err);
  if (rc)
    return rc;
  m->file_bytes = g->file_bytes;
  m->layer = mem_calloc(m->shape.layers, sizeof *m->layer);
  if (!m->layer)
    return no_memory(err);
  rc = check_tensors(m, g, err);
  return rc ? rc : load_rope(m, g, err);
}


/* `*out` is NULL on an error: callers free without asking. */
int engine_model_new(struct engine_model **out, const struct engine_gguf *g,
                     drover_err *err) {
  struct engine_model *m = mem_calloc(1, sizeof *m);
  int rc = m ? read_model(m, g, err) : no_memory(err);
  if (rc) {
    engine_model_free(m);
    m = NULL;
  }
  *out = m;
  return rc;
}


/* Weights belong to the backend; before engine_model_load() there is none,
 * and no weight either. */
void engine_model_free(struct engine_model *m) {
  if (!m)
    return;
  for (uint32_t l = 0; m->backend && l < m->shape.layers; l++)
    for (int i = 0; i < LAYER_PARTS; i++)
      m->backend->weight_free(*(struct engine_weight **)(void *)
        ((char *)&m->layer[l] + layer_parts[i].at));
  for (int i = 0; m->backend && i < MODEL_PARTS; i++)
    m->backend->weight_free(*(struct engine_weight **)(void *)
      ((char *)m + model_parts[i].at));
  engine_vocab_free(m->vocab);
  mem_free(m->layer);
  mem_free(m->rope_divisor);
  mem_free(m);
}
