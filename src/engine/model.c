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

enum side { ONE, WIDTH, QUERIES, KEYS, QKV, HEAD, HEADS, FF, FF2, VOCAB, EXPERTS,
            HALF };                 /* of a tensor */

struct part {                       /* a tensor that a model is made of */
  const char *name;                 /* behind "blk.N." for a layer's */
  size_t at;                        /* of its weight in the struct */
  unsigned char cols, rows;         /* enum side; rows ONE: a vector */
  unsigned char may_lack;
  uint32_t bits;                    /* of arch.h: there when all are */
  uint32_t but;                     /* and none of these is */
};

#define AT(type, field) offsetof(struct type, field)
#define MATRIX(name, field, cols, rows, bits) \
  { name ".weight", AT(engine_layer, field.w), cols, rows, 0, bits, 0 }, \
  { name ".bias", AT(engine_layer, field.bias), rows, ONE, 1, \
    (bits) | ENGINE_BIAS, 0 }
#define VECTOR(name, field, cols, bits, but) \
  { name ".weight", AT(engine_layer, field), cols, ONE, 0, bits, but }
/* Of all experts: rows of the one behind rows of the other. */
#define MATRICES(name, field, cols, rows) \
  { name ".weight", AT(engine_layer, field.w), cols, rows, 0, \
    ENGINE_EXPERTS, 0 }, \
  { name ".bias", AT(engine_layer, field.bias), rows, EXPERTS, 1, \
    ENGINE_EXPERTS | ENGINE_BIAS, 0 }

static const struct part layer_parts[] = {
  VECTOR("attn_norm", attn_norm, WIDTH, ENGINE_PRE_NORM, 0),
  MATRIX("attn_qkv", qkv, WIDTH, QKV, ENGINE_FUSED_QKV),
  MATRIX("attn_q", q, WIDTH, QUERIES, ENGINE_SPLIT_QKV),
  MATRIX("attn_k", k, WIDTH, KEYS, ENGINE_SPLIT_QKV),
  MATRIX("attn_v", v, WIDTH, KEYS, ENGINE_SPLIT_QKV),
  VECTOR("attn_q_norm", q_norm, HEAD, ENGINE_HEAD_NORM, 0),
  VECTOR("attn_k_norm", k_norm, HEAD, ENGINE_HEAD_NORM, 0),
  VECTOR("attn_q_norm", q_norm, QUERIES, ENGINE_WIDE_NORM, 0),
  VECTOR("attn_k_norm", k_norm, KEYS, ENGINE_WIDE_NORM, 0),
  VECTOR("attn_sinks", sinks, HEADS, ENGINE_SINKS, 0),
  MATRIX("attn_output", attn_output, QUERIES, WIDTH, 0),
  VECTOR("post_attention_norm", attn_post, WIDTH, ENGINE_POST_NORM, 0),
  VECTOR("ffn_norm", ffn_norm, WIDTH, ENGINE_PRE_NORM, ENGINE_POST_NAME),
  VECTOR("post_attention_norm", ffn_norm, WIDTH, ENGINE_POST_NAME, 0),
  MATRIX("ffn_gate", gate, WIDTH, FF, ENGINE_DENSE | ENGINE_SPLIT_QKV),
  MATRIX("ffn_up", up, WIDTH, FF, ENGINE_DENSE | ENGINE_SPLIT_QKV),
  MATRIX("ffn_up", up, WIDTH, FF2, ENGINE_DENSE | ENGINE_FUSED_QKV),
  MATRIX("ffn_down", down, FF, WIDTH, ENGINE_DENSE),
  MATRIX("ffn_gate_inp", moe.router, WIDTH, EXPERTS, ENGINE_EXPERTS),
  MATRICES("ffn_gate_exps", moe.gate, WIDTH, FF),
  MATRICES("ffn_up_exps", moe.up, WIDTH, FF),
  MATRICES("ffn_down_exps", moe.down, FF, WIDTH),
  VECTOR("post_ffw_norm", ffn_post, WIDTH, ENGINE_POST_NORM, 0),
};

static const struct part model_parts[] = {
  { "token_embd.weight", AT(engine_model, embed), WIDTH, VOCAB, 0, 0, 0 },
  { "output_norm.weight", AT(engine_model, output_norm), WIDTH, ONE, 0, 0, 0 },
  { "output.weight", AT(engine_model, output), WIDTH, VOCAB, 1, 0, 0 },
};

/* Divisors of the angles: Llama 3.1's, or the two of longrope. */
static const struct part rope_parts[] = {
  { "rope_freqs.weight", AT(engine_model, rope_divisor[0]), HALF, ONE, 1, 0, 0 },
  { "rope_factors_long.weight", AT(engine_model, rope_divisor[1]), HALF, ONE, 1,
    0, 0 },
  { "rope_factors_short.weight", AT(engine_model, rope_divisor[2]), HALF, ONE, 1,
    0, 0 },
};

enum {
  ROPE_PARTS = sizeof rope_parts / sizeof rope_parts[0],
  LAYER_PARTS = sizeof layer_parts / sizeof layer_parts[0],
  MODEL_PARTS = sizeof model_parts / sizeof model_parts[0]
};

static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for a model");
}


/* ---- tensors ---- */

/* KEYS stands for both k and v: their lengths were checked to be equal
 * (shape.c). */
static uint64_t side(const struct engine_shape *s, unsigned char which) {
  uint64_t q = (uint64_t)s->heads * s->head_dim;
  uint64_t k = (uint64_t)s->kv_heads * s->head_dim;
  const uint64_t sides[] = {
    [ONE] = 1, [WIDTH] = s->width, [QUERIES] = q, [KEYS] = k,
    [QKV] = q + 2 * k, [HEAD] = s->head_dim, [HEADS] = s->heads,
    [FF] = s->ff, [FF2] = 2 * (uint64_t)s->ff, [VOCAB] = s->vocab,
    [EXPERTS] = s->experts, [HALF] = s->rot / 2
  };
  return sides[which];
}


/* A part of this file? */
static int belongs(const struct engine_shape *s, const struct part *p) {
  return (s->parts & p->bits) == p->bits && !(s->parts & p->but);
}


/* Matrices of experts lie behind one another; their biases are as wide as one
 * of them is high. */
static int is_stack(const struct part *p) {
  return p->bits & ENGINE_EXPERTS && (p->rows == FF || p->rows == WIDTH);
}


static int is_vector(const struct part *p) {
  return p->rows == ONE || (p->rows == EXPERTS && p->may_lack);
}


static int wrong_shape(const struct engine_gguf_tensor *t, const char *name,
                       const uint64_t *want, drover_err *err) {
  char text[96];
  int n = snprintf(text, sizeof text, "%" PRIu64 " x %" PRIu64, want[0],
                   want[1]);
  if (want[2] > 1)
    snprintf(text + n, sizeof text - (size_t)n, " x %" PRIu64, want[2]);
  return drover_fail(err, DROVER_EFORMAT, "tensor %s is %" PRIu64 " x %" PRIu64
                     " x %" PRIu64 " x %" PRIu64 ", %s expected", name,
                     t->ne[0], t->ne[1], t->ne[2], t->ne[3], text);
}


/* Find a part and check its type and shape. `out` is NULL when it may lack. */
static int find_part(const struct engine_model *m, const struct engine_gguf *g,
                     const struct part *p, const char *name,
                     const struct engine_gguf_tensor **out, drover_err *err) {
  const struct engine_gguf_tensor *t = engine_gguf_tensor(g, name);
  const uint64_t want[3] = {
    side(&m->shape, p->cols), side(&m->shape, p->rows),
    is_stack(p) ? m->shape.experts : 1,
  };
  *out = t;
  if (!t)
    return p->may_lack ? DROVER_OK
      : drover_fail(err, DROVER_EFORMAT, "tensor %s is missing", name);
  const char *type = engine_quant_type(t->type)->name;
  if (!engine_quant_reads(t->type))
    return drover_fail(err, DROVER_EFORMAT, "tensor %s is of type %s, which "
                       "is not supported", name, type);
  if (is_vector(p) && t->type != ENGINE_F32)
    return drover_fail(err, DROVER_EFORMAT, "tensor %s is of type %s, F32 "
                       "expected", name, type);
  if (t->ne[0] != want[0] || t->ne[1] != want[1] || t->ne[2] != want[2]
      || t->ne[3] != 1)
    return wrong_shape(t, name, want, err);
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


/* The two tables are the whole of a model: checking and loading walk them
 * alike, so neither can know a tensor that the other does not. */
static int walk_parts(struct walk *w) {
  char name[ENGINE_GGUF_NAME_MAX + 1];
  int rc = DROVER_OK;
  for (int i = 0; i < MODEL_PARTS && !rc; i++)
    rc = w->visit(w, &model_parts[i], model_parts[i].name,
                  (void *)((char *)w->m + model_parts[i].at));
  for (uint32_t l = 0; l < w->m->shape.layers && !rc; l++)
    for (int i = 0; i < LAYER_PARTS && !rc; i++) {
      if (!belongs(&w->m->shape, &layer_parts[i]))
        continue;
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
  w->m->parameters += t->ne[0] * t->ne[1] * t->ne[2];
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
  const char *rest = "";
  long layer = layer_of(name, &rest);
  for (int i = 0; i < MODEL_PARTS; i++)
    if (!strcmp(name, model_parts[i].name))
      return 1;
  for (int i = 0; i < LAYER_PARTS; i++)
    if (layer >= 0 && layer < (long)m->shape.layers
        && belongs(&m->shape, &layer_parts[i]) && !strcmp(rest, layer_parts[i].name))
      return 1;
  for (int i = 0; i < ROPE_PARTS; i++)
    if (!strcmp(name, rope_parts[i].name))
      return 1;
  return 0;
}


/* Tensors are counted as they are found, and only where the file has more is
 * the odd one looked for. */
static int check_tensors(struct engine_model *m, const struct engine_gguf *g,
                         drover_err *err) {
  struct walk w = { .m = m, .g = g, .visit = check_part, .err = err };
  int rc = walk_parts(&w);
  for (int i = 0; i < ROPE_PARTS && !rc; i++) {
    const struct engine_gguf_tensor *t;
    rc = find_part(m, g, &rope_parts[i], rope_parts[i].name, &t, err);
    w.found += !rc && t;
  }
  if (rc)
    return rc;
  for (uint32_t i = 0; i < g->tensors && w.found != g->tensors; i++) {
    struct engine_gguf_shown name = engine_gguf_show(g->tensor[i].name,
                                                     g->tensor[i].name_size);
    if (!is_part(m, name.text))
      return drover_fail(err, DROVER_EFORMAT,
                         "tensor %s is no part of a %s", name.text,
                         m->shape.arch->name);
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


static struct engine_weight_from weight_from(struct source *s) {
  return (struct engine_weight_from){
    .type = s->t->type, .cols = (uint32_t)s->t->ne[0],
    .rows = (uint32_t)(s->t->ne[1] * s->t->ne[2]),
    .read = read_source, .ctx = s
  };
}


/* `*at` stays NULL for a tensor that may lack and does (output, when it is
 * tied to the embedding). */
static int load_part(struct walk *w, const struct part *p, const char *name,
                     struct engine_weight **at) {
  struct source source = { .g = w->g };
  int rc = find_part(w->m, w->g, p, name, &source.t, w->err);
  if (rc || !source.t)
    return rc;
  struct engine_weight_from from = weight_from(&source);
  return w->m->backend->weight_new(at, &from, w->err);
}


static int weigh_part(struct walk *w, const struct part *p, const char *name,
                      struct engine_weight **at) {
  struct source source = { .g = w->g };
  int rc = find_part(w->m, w->g, p, name, &source.t, w->err);
  (void)at;
  if (rc || !source.t)
    return rc;
  struct engine_weight_from from = weight_from(&source);
  uint64_t bytes = w->m->backend->weight_bytes(&from);
  if (__builtin_add_overflow(w->m->weight_bytes, bytes, &w->m->weight_bytes))
    w->m->weight_bytes = UINT64_MAX;
  return DROVER_OK;
}


/* One divisor a pair: the writer has put the whole formula into the tensor. 0
 * or less would make angles that are no numbers. */
static int load_divisor(struct engine_model *m, const struct engine_gguf *g,
                        int which, drover_err *err) {
  const char *name = rope_parts[which].name;
  const struct engine_gguf_tensor *t = engine_gguf_tensor(g, name);
  uint32_t half = m->shape.rot / 2;
  if (!t)
    return DROVER_OK;
  float *to = m->rope_divisor[which] = mem_alloc(half * sizeof *to);
  if (!to)
    return no_memory(err);
  int rc = engine_gguf_read(g, t, 0, to, half * sizeof *to, err);
  for (uint32_t i = 0; i < half && !rc; i++)
    if (!(to[i] > 0))
      rc = drover_fail(err, DROVER_EFORMAT, "tensor %s: element %" PRIu32
                       " is not above 0", name, i);
  return rc;
}


static int load_rope(struct engine_model *m, const struct engine_gguf *g,
                     drover_err *err) {
  int rc = DROVER_OK;
  for (int i = 0; i < ROPE_PARTS && !rc; i++)
    rc = load_divisor(m, g, i, err);
  if (!rc && m->more.longrope && (!m->rope_divisor[1] || !m->rope_divisor[2]))
    rc = drover_fail(err, DROVER_EFORMAT, "tensor %s is missing",
                     rope_parts[m->rope_divisor[1] ? 2 : 1].name);
  return rc;
}


/* longrope has divisors for texts that fit the context that the model was first
 * trained on, and others for all that do not: chosen once, by the context that
 * is wanted, since the cache holds keys that were turned. */
void engine_model_context(const struct engine_model *m, uint32_t context,
                          struct engine_shape *shape) {
  *shape = m->shape;
  shape->context = context;
  shape->rope.divisor = m->rope_divisor[0];
  if (m->more.longrope)
    shape->rope.divisor =
      m->rope_divisor[context > m->more.original_context ? 1 : 2];
  if (!m->shape.arch->local_rope)
    shape->rope_local = shape->rope;
}


static int load_windows(struct engine_model *m, const struct engine_gguf *g,
                        drover_err *err) {
  const struct engine_gguf_key *list = engine_shape_window_list(&m->shape, g);
  if (!m->shape.window)
    return DROVER_OK;
  m->windowed = mem_alloc(m->shape.layers);
  if (!m->windowed)
    return no_memory(err);
  for (uint32_t l = 0; l < m->shape.layers; l++)
    m->windowed[l] = (unsigned char)engine_shape_windowed(&m->more, l, list);
  m->shape.windowed = m->windowed;
  return DROVER_OK;
}


int engine_model_weigh(struct engine_model *m, const struct engine_gguf *g,
                       const struct engine_backend *backend, drover_err *err) {
  struct walk w = { .m = m, .g = g, .visit = weigh_part, .err = err };
  m->backend = backend;
  m->weight_bytes = 0;
  return walk_parts(&w);
}


/* What was loaded when it fails hangs in the model and goes with it. */
int engine_model_load(struct engine_model *m, const struct engine_gguf *g,
                      const struct engine_backend *backend, drover_err *err) {
  struct walk w = { .m = m, .g = g, .visit = load_part, .err = err };
  m->backend = backend;
  int rc = walk_parts(&w);
  return rc ? rc : engine_trie_new(&m->trie, m->vocab, err);
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
  char key[64];
  snprintf(key, sizeof key, "%s.vocab_size", m->shape.arch->name);
  rc = engine_gguf_u32(g, key, &said, err);
  if (said != m->vocab->size)
    return drover_fail(err, DROVER_EFORMAT, "%s is %" PRIu32 " for %" PRIu32
                       " tokens", key, said, m->vocab->size);
  return rc == DROVER_ENOTFOUND ? DROVER_OK : rc;
}


/* Vocabulary before tensors: the embedding's shape follows from its size. */
static int read_model(struct engine_model *m, const struct engine_gguf *g,
                      drover_err *err) {
  int rc = engine_shape_read(&m->shape, &m->more, g, err);
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
  if (!rc)
    rc = load_rope(m, g, err);
  return rc ? rc : load_windows(m, g, err);
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
      if (belongs(&m->shape, &layer_parts[i]))
        m->backend->weight_free(*(struct engine_weight **)(void *)
          ((char *)&m->layer[l] + layer_parts[i].at));
  for (int i = 0; m->backend && i < MODEL_PARTS; i++)
    m->backend->weight_free(*(struct engine_weight **)(void *)
      ((char *)m + model_parts[i].at));
  engine_trie_free(m->trie);
  engine_vocab_free(m->vocab);
  mem_free(m->layer);
  for (int i = 0; i < ROPE_PARTS; i++)
    mem_free(m->rope_divisor[i]);
  mem_free(m->windowed);
  mem_free(m);
}
