/* shape: a file's hyper-parameters, each in its range, and what is refused
 * because it would change what a llama computes. See shape.h.
 *
 * SPDX-License-Identifier: MIT */
#include "shape.h"

#include <inttypes.h>
#include <string.h>

#include "../base/err.h"


/* Keys that change what a llama computes, in ways that are not built. */
static const char *const refused[] = {
  "llama.attention.scale", "llama.logit_scale", "llama.embedding_scale",
  "llama.residual_scale", "llama.attention.sliding_window",
  "llama.attn_logit_softcapping", "llama.final_logit_softcapping",
  "llama.attention.causal", "llama.attention.clamp_kqv",
};


/* A count in low..high; `fallback` when the key is absent, 0: it is needed. */
static int count(const struct engine_gguf *g, const char *name, uint32_t high,
                 uint32_t fallback, uint32_t *out, drover_err *err) {
  uint32_t n = fallback;
  int rc = engine_gguf_u32(g, name, &n, err);
  if (rc == DROVER_ENOTFOUND && !fallback)
    return drover_fail(err, DROVER_EFORMAT, "%s is missing", name);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (n < 1 || n > high)
    return drover_fail(err, DROVER_EFORMAT, "%s is %" PRIu32
                       ", 1 to %" PRIu32 " expected", name, n, high);
  *out = n;
  return DROVER_OK;
}


/* A number above 0 and below `high`; `fallback` 0: it is needed. */
static int number(const struct engine_gguf *g, const char *name, float high,
                  float fallback, float *out, drover_err *err) {
  float x = fallback;
  int rc = engine_gguf_f32(g, name, &x, err);
  if (rc == DROVER_ENOTFOUND && fallback == 0)
    return drover_fail(err, DROVER_EFORMAT, "%s is missing", name);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (!(x > 0 && x < high))
    return drover_fail(err, DROVER_EFORMAT, "%s is %g, more than 0 and less "
                       "than %g expected", name, (double)x, (double)high);
  *out = x;
  return DROVER_OK;
}


/* Grouped-query attention needs whole groups. A head's size is a key of its
 * own in some models and need not be width / heads. `rot` is even, since
 * dimensions turn in pairs. */
static int read_heads(struct engine_shape *s, const struct engine_gguf *g,
                      drover_err *err) {
  uint32_t values = 0;
  int rc = count(g, "llama.attention.head_count", 1024, 0, &s->heads, err);
  if (!rc)
    rc = count(g, "llama.attention.head_count_kv", 1024, s->heads,
               &s->kv_heads, err);
  if (rc)
    return rc;
  if (s->heads % s->kv_heads)
    return drover_fail(err, DROVER_EFORMAT, "llama.attention.head_count_kv is "
                       "%" PRIu32 " for %" PRIu32 " heads", s->kv_heads,
                       s->heads);
  if (!engine_gguf_key(g, "llama.attention.key_length")
      && s->width % s->heads)
    return drover_fail(err, DROVER_EFORMAT, "llama.embedding_length %" PRIu32
                       " is no multiple of %" PRIu32 " heads", s->width,
                       s->heads);
  uint32_t share = s->width / s->heads;
  rc = count(g, "llama.attention.key_length", 4096, share ? share : 1,
             &s->head_dim, err);
  if (!rc)
    rc = count(g, "llama.attention.value_length", 4096, s->head_dim, &values,
               err);
  if (!rc && values != s->head_dim)
    rc = drover_fail(err, DROVER_EFORMAT, "llama.attention.value_length %"
                     PRIu32 " differs from the key's %" PRIu32, values,
                     s->head_dim);
  if (!rc)
    rc = count(g, "llama.rope.dimension_count", s->head_dim, s->head_dim,
               &s->rot, err);
  if (!rc && s->rot % 2)
    rc = drover_fail(err, DROVER_EFORMAT, "llama.rope.dimension_count is odd: "
                     "%" PRIu32, s->rot);
  return rc;
}


/* angle = pos * scale * base^(-2i / rot): 10000 is the base of the original
 * paper (Su et al. 2021), linear scaling divides positions (Chen et al.
 * 2023). yarn and longrope are refused: other angles are a wrong model, not
 * a worse one. */
static int read_rope(struct engine_shape *s, const struct engine_gguf *g,
                     drover_err *err) {
  drover_text type = { "none", 4 };
  float base = 0, factor = 1;
  int rc = number(g, "llama.rope.freq_base", 1e12f, 10000, &base, err);
  if (!rc)
    rc = engine_gguf_text(g, "llama.rope.scaling.type", &type, err);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  struct engine_gguf_shown name = engine_gguf_show(type.data, type.size);
  s->rope_base = base;
  s->rope_scale = 1;
  if (!strcmp(name.text, "none"))
    return DROVER_OK;
  if (strcmp(name.text, "linear"))
    return drover_fail(err, DROVER_EFORMAT, "llama.rope.scaling.type %s is "
                       "not supported (none and linear are)", name.text);
  rc = number(g, "llama.rope.scaling.factor", 1e6f, 1, &factor, err);
  s->rope_scale = 1.0 / factor;
  return rc;
}


/* Bounds are far above every model known and far below what could overflow:
 * products of two of them fit 64 bits with room. */
static int read_shape(struct engine_shape *s, const struct engine_gguf *g,
                      drover_err *err) {
  int rc = count(g, "llama.block_count", ENGINE_LAYERS_MAX, 0, &s->layers,
                 err);
  if (!rc)
    rc = count(g, "llama.embedding_length", 1 << 16, 0, &s->width, err);
  if (!rc)
    rc = count(g, "llama.feed_forward_length", 1 << 20, 0, &s->ff, err);
  if (!rc)
    rc = count(g, "llama.context_length", ENGINE_CONTEXT_MAX, 0, &s->context,
               err);
  if (!rc)
    rc = number(g, "llama.attention.layer_norm_rms_epsilon", 1, 0, &s->eps,
                err);
  if (!rc)
    rc = read_heads(s, g, err);
  return rc ? rc : read_rope(s, g, err);
}


/* The architecture names which keys are looked for at all. What would need
 * other arithmetic is refused by the key's name. */
static int check_kind(const struct engine_gguf *g, drover_err *err) {
  drover_text arch = { 0 };
  uint32_t experts = 0;
  int rc = engine_gguf_text(g, "general.architecture", &arch, err);
  if (rc)
    return rc == DROVER_ENOTFOUND
      ? drover_fail(err, DROVER_EFORMAT, "general.architecture is missing")
      : rc;
  struct engine_gguf_shown name = engine_gguf_show(arch.data, arch.size);
  if (strcmp(name.text, "llama"))
    return drover_fail(err, DROVER_EFORMAT, "general.architecture %s is not "
                       "supported, only llama is", name.text);
  if (engine_gguf_key(g, "split.count"))
    return drover_fail(err, DROVER_EFORMAT, "split.count: a model in several "
                       "files is not supported");
  rc = engine_gguf_u32(g, "llama.expert_count", &experts, err);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (experts)
    return drover_fail(err, DROVER_EFORMAT, "llama.expert_count is %" PRIu32
                       ": experts are not supported", experts);
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
    if (engine_gguf_key(g, refused[i]))
      return drover_fail(err, DROVER_EFORMAT, "%s is not supported",
                         refused[i]);
  return DROVER_OK;
}


int engine_shape_read(struct engine_shape *s, const struct engine_gguf *g,
                      drover_err *err) {
  int rc = check_kind(g, err);
  return rc ? rc : read_shape(s, g, err);
}
