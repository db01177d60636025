/* shape: a file's hyper-parameters, each in its range, and what is refused
 * because it would change what is computed. See shape.h.
 *
 * SPDX-License-Identifier: MIT */
#include "shape.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../base/err.h"

/* The base of the original paper (Su et al. 2021). */
#define ROPE_BASE 10000.0f

struct keys {                       /* what all readers take */
  const struct engine_gguf *g;
  const char *arch;
  drover_err *err;
  char name[96];                    /* of the key last asked for */
};

/* Keys that change what a model computes, in ways that are not built; behind
 * the architecture's name. Windows of llama and phi3 are none of them: their
 * files are run without, as llama.cpp runs them. */
static const char *const refused[] = {
  "attention.causal", "attention.clamp_kqv", "attention.max_alibi_bias",
  "expert_shared_count", "expert_group_count", "leading_dense_block_count",
  "rope.scaling.yarn_log_multiplier", "attention.layer_norm_epsilon",
};
static const char *const scale_keys[] = {
  "attention.scale", "logit_scale", "embedding_scale", "residual_scale",
};
static const char *const cap_keys[] = {
  "attn_logit_softcapping", "final_logit_softcapping",
};


static const char *key(struct keys *k, const char *rest) {
  snprintf(k->name, sizeof k->name, "%s.%s", k->arch, rest);
  return k->name;
}


static int has(struct keys *k, const char *rest) {
  return engine_gguf_key(k->g, key(k, rest)) != NULL;
}


static int missing(struct keys *k) {
  return drover_fail(k->err, DROVER_EFORMAT, "%s is missing", k->name);
}


/* A count in 1..high; `fallback` when the key is absent, 0: it is needed. */
static int count(struct keys *k, const char *rest, uint32_t high,
                 uint32_t fallback, uint32_t *out) {
  uint32_t n = fallback;
  int rc = engine_gguf_u32(k->g, key(k, rest), &n, k->err);
  if (rc == DROVER_ENOTFOUND && !fallback)
    return missing(k);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (n < 1 || n > high)
    return drover_fail(k->err, DROVER_EFORMAT, "%s is %" PRIu32
                       ", 1 to %" PRIu32 " expected", k->name, n, high);
  *out = n;
  return DROVER_OK;
}


/* A number above 0 and below `high`; `fallback` 0: it is needed. */
static int number(struct keys *k, const char *rest, float high,
                  float fallback, float *out) {
  float x = fallback;
  int rc = engine_gguf_f32(k->g, key(k, rest), &x, k->err);
  if (rc == DROVER_ENOTFOUND && fallback == 0)
    return missing(k);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (!(x > 0 && x < high))
    return drover_fail(k->err, DROVER_EFORMAT, "%s is %g, more than 0 and less "
                       "than %g expected", k->name, (double)x, (double)high);
  *out = x;
  return DROVER_OK;
}


/* ---- heads ---- */

/* Grouped-query attention needs whole groups. A head's size is a key of its
 * own in some models and need not be width / heads. */
static int read_groups(struct keys *k, struct engine_shape *s) {
  int rc = count(k, "attention.head_count", 1024, 0, &s->heads);
  if (!rc)
    rc = count(k, "attention.head_count_kv", 1024, s->heads, &s->kv_heads);
  if (rc)
    return rc;
  if (s->heads % s->kv_heads)
    return drover_fail(k->err, DROVER_EFORMAT, "%s is %" PRIu32 " for %" PRIu32
                       " heads", k->name, s->kv_heads, s->heads);
  if (!has(k, "attention.key_length") && s->width % s->heads)
    return drover_fail(k->err, DROVER_EFORMAT, "%s %" PRIu32 " is no multiple "
                       "of %" PRIu32 " heads", key(k, "embedding_length"),
                       s->width, s->heads);
  return DROVER_OK;
}


/* `rot` is even, since dimensions turn in pairs. */
static int read_heads(struct keys *k, struct engine_shape *s) {
  uint32_t values = 0;
  int rc = read_groups(k, s);
  if (rc)
    return rc;
  uint32_t share = s->width / s->heads;
  rc = count(k, "attention.key_length", 4096, share ? share : 1, &s->head_dim);
  if (!rc)
    rc = count(k, "attention.value_length", 4096, s->head_dim, &values);
  if (!rc && values != s->head_dim)
    rc = drover_fail(k->err, DROVER_EFORMAT, "%s %" PRIu32 " differs from the "
                     "key's %" PRIu32, k->name, values, s->head_dim);
  if (!rc)
    rc = count(k, "rope.dimension_count", s->head_dim, s->head_dim, &s->rot);
  if (!rc && s->rot % 2)
    rc = drover_fail(k->err, DROVER_EFORMAT, "%s is odd: %" PRIu32, k->name,
                     s->rot);
  return rc;
}


/* ---- rope ---- */

/* The pair that turns `b` times over the original context (Peng et al. 2023,
 * equation 23). */
static double yarn_pair(const struct engine_shape *s, double context,
                        double b) {
  return s->rot * log(context / (b * 2 * 3.14159265358979323846))
         / (2 * log(s->rope.base));
}


/* beta_fast 32 and beta_slow 1 are the paper's for llamas; files may say
 * others. Attention is made warmer by 1 + 0.1 ln factor. */
static int read_yarn(struct keys *k, struct engine_shape *s, float factor,
                     uint32_t original) {
  float fast = 0, slow = 0;
  int rc = number(k, "rope.scaling.yarn_beta_fast", 1e6f, 32, &fast);
  if (!rc)
    rc = number(k, "rope.scaling.yarn_beta_slow", 1e6f, 1, &slow);
  if (rc)
    return rc;
  double low = floor(yarn_pair(s, original, (double)fast));
  double high = ceil(yarn_pair(s, original, (double)slow));
  s->rope.low = (float)fmax(0, low);
  s->rope.high = (float)fmin(s->rot - 1.0, high);
  if (factor > 1)
    s->rope.stretch *= 1 + 0.1f * logf(factor);
  return DROVER_OK;
}


/* none, linear (Chen et al. 2023), yarn, and longrope (Ding et al. 2024), whose
 * divisors are tensors. Other angles are a wrong model, not a worse one. */
static int read_scaling(struct keys *k, struct engine_shape *s,
                        struct engine_shape_more *more) {
  drover_text type = { "none", 4 };
  float factor = 1;
  int rc = engine_gguf_text(k->g, key(k, "rope.scaling.type"), &type, k->err);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  struct engine_gguf_shown name = engine_gguf_show(type.data, type.size);
  int is_yarn = !strcmp(name.text, "yarn");
  more->longrope = !strcmp(name.text, "longrope");
  if (!strcmp(name.text, "none"))
    return DROVER_OK;
  if (strcmp(name.text, "linear") && !is_yarn && !more->longrope)
    return drover_fail(k->err, DROVER_EFORMAT, "%s %s is not supported (none, "
                       "linear, yarn and longrope are)", k->name, name.text);
  rc = number(k, "rope.scaling.factor", 1e6f, 1, &factor);
  if (!rc)
    rc = number(k, "rope.scaling.attn_factor", 1e3f, 1, &s->rope.stretch);
  if (!rc)
    rc = count(k, "rope.scaling.original_context_length", ENGINE_CONTEXT_MAX,
               s->context, &more->original_context);
  if (rc)
    return rc;
  if (!more->longrope)
    s->rope.scale = 1.0 / (double)factor;
  return is_yarn ? read_yarn(k, s, factor, more->original_context) : DROVER_OK;
}


/* Windowed layers turn as the others, or (gemma3) unscaled at a base of their
 * own. */
static int read_rope(struct keys *k, struct engine_shape *s,
                     struct engine_shape_more *more) {
  float base = 0, local = 0;
  int rc = number(k, "rope.freq_base", 1e12f, ROPE_BASE, &base);
  s->rope = (struct engine_rope){ .base = (double)base, .scale = 1,
                                  .stretch = 1 };
  if (!rc)
    rc = read_scaling(k, s, more);
  if (!rc && s->arch->local_rope)
    rc = number(k, "rope.freq_base_swa", 1e12f, ROPE_BASE, &local);
  s->rope_local = s->rope;
  if (s->arch->local_rope)
    s->rope_local = (struct engine_rope){ .base = (double)local, .scale = 1,
                                          .stretch = 1 };
  return rc;
}


/* ---- scales, caps, windows, experts ---- */

static int read_scales(struct keys *k, struct engine_shape *s) {
  float heads = 1.0f / sqrtf((float)s->head_dim), logits = 1;
  float root = s->arch->embed_root ? sqrtf((float)s->width) : 1;
  s->score_scale = heads;
  s->embed_scale = root;
  s->residual_scale = s->logit_scale = s->expert_scale = 1;
  if (!s->arch->scales)
    return DROVER_OK;
  int rc = number(k, "attention.scale", 1e6f, heads, &s->score_scale);
  if (!rc)
    rc = number(k, "embedding_scale", 1e6f, 1, &s->embed_scale);
  if (!rc)
    rc = number(k, "residual_scale", 1e6f, 1, &s->residual_scale);
  if (!rc)
    rc = number(k, "logit_scale", 1e6f, 1, &logits);
  s->logit_scale = 1 / logits;      /* the key's number is divided by */
  return rc;
}


/* gemma2's are 50 and 30 where its file does not say. */
static int read_caps(struct keys *k, struct engine_shape *s) {
  if (!s->arch->caps)
    return DROVER_OK;
  int rc = number(k, cap_keys[0], 1e6f, 50, &s->score_cap);
  return rc ? rc : number(k, cap_keys[1], 1e6f, 30, &s->logit_cap);
}


/* The pattern is a number, or a list of a truth value a layer. */
static int read_window(struct keys *k, struct engine_shape *s,
                       struct engine_shape_more *more) {
  uint32_t every = s->arch->window;
  if (!every || !has(k, "attention.sliding_window"))
    return DROVER_OK;
  int rc = count(k, "attention.sliding_window", ENGINE_CONTEXT_MAX, 0,
                 &s->window);
  const struct engine_gguf_key *list =
    engine_gguf_key(k->g, key(k, "attention.sliding_window_pattern"));
  if (!rc && list && list->type != ENGINE_GGUF_ARRAY)
    rc = count(k, "attention.sliding_window_pattern", ENGINE_LAYERS_MAX, 0,
               &every);
  else if (!rc && list && (list->item != ENGINE_GGUF_BOOL
                           || list->count != s->layers))
    rc = drover_fail(k->err, DROVER_EFORMAT, "%s must hold a truth value a "
                     "layer", k->name);
  more->window_every = every;
  return rc;
}


const struct engine_gguf_key *engine_shape_window_list(
  const struct engine_shape *s, const struct engine_gguf *g) {
  struct keys k = { .g = g, .arch = s->arch->name };
  const struct engine_gguf_key *list =
    engine_gguf_key(g, key(&k, "attention.sliding_window_pattern"));
  return list && list->type == ENGINE_GGUF_ARRAY ? list : NULL;
}


int engine_shape_windowed(const struct engine_shape_more *more, uint32_t layer,
                          const struct engine_gguf_key *list) {
  if (list)
    return list->at[layer] != 0;
  return layer % more->window_every < more->window_every - 1;
}


/* An expert's hidden layer takes the place of the dense one. */
static int read_experts(struct keys *k, struct engine_shape *s) {
  if (!s->arch->may_experts || !has(k, "expert_count"))
    return DROVER_OK;
  uint32_t experts = 0;
  int rc = engine_gguf_u32(k->g, k->name, &experts, k->err);
  if (rc || !experts)
    return rc;
  rc = count(k, "expert_count", ENGINE_EXPERTS_MAX, 0, &s->experts);
  if (!rc)
    rc = count(k, "expert_used_count", s->experts, 0, &s->used);
  if (!rc)
    rc = count(k, "expert_feed_forward_length", 1 << 20, s->ff, &s->ff);
  if (!rc)
    rc = number(k, "expert_weights_scale", 1e6f, 1, &s->expert_scale);
  uint32_t softmax = s->arch->route_last ? 3 : 1, gate = softmax;
  if (!rc)
    rc = engine_gguf_u32(k->g, key(k, "expert_gating_func"), &gate, k->err);
  if (rc == DROVER_ENOTFOUND)
    rc = DROVER_OK;
  if (!rc && gate != softmax)
    rc = drover_fail(k->err, DROVER_EFORMAT, "%s %" PRIu32 " is not supported",
                     k->name, gate);
  s->parts = (s->parts & ~(uint32_t)ENGINE_DENSE) | ENGINE_EXPERTS;
  return rc;
}


/* ---- the whole ---- */

/* Bounds are far above every model known and far below what could overflow:
 * products of two of them fit 64 bits with room. */
static int read_shape(struct keys *k, struct engine_shape *s,
                      struct engine_shape_more *more) {
  int rc = count(k, "block_count", ENGINE_LAYERS_MAX, 0, &s->layers);
  if (!rc)
    rc = count(k, "embedding_length", 1 << 16, 0, &s->width);
  if (!rc)
    rc = count(k, "feed_forward_length", 1 << 20, 0, &s->ff);
  if (!rc)
    rc = count(k, "context_length", ENGINE_CONTEXT_MAX, 0, &s->context);
  if (!rc)
    rc = number(k, "attention.layer_norm_rms_epsilon", 1, 0, &s->eps);
  if (!rc)
    rc = read_heads(k, s);
  if (!rc)
    rc = read_rope(k, s, more);
  if (!rc)
    rc = read_scales(k, s);
  if (!rc)
    rc = read_caps(k, s);
  if (!rc)
    rc = read_window(k, s, more);
  return rc ? rc : read_experts(k, s);
}


static int refuse(struct keys *k, const char *const *list, size_t count_of) {
  for (size_t i = 0; i < count_of; i++)
    if (has(k, list[i]))
      return drover_fail(k->err, DROVER_EFORMAT, "%s is not supported",
                         k->name);
  return DROVER_OK;
}


/* What would need other arithmetic is refused by the key's name. */
static int check_keys(struct keys *k, const struct engine_arch *arch) {
  uint32_t experts = 0;
  int rc = engine_gguf_u32(k->g, key(k, "expert_count"), &experts, k->err);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  if (experts && !arch->may_experts)
    return drover_fail(k->err, DROVER_EFORMAT, "%s is %" PRIu32 ": experts are "
                       "no part of a %s", k->name, experts, arch->name);
  rc = refuse(k, refused, sizeof refused / sizeof refused[0]);
  if (!rc && !arch->scales)
    rc = refuse(k, scale_keys, sizeof scale_keys / sizeof scale_keys[0]);
  if (!rc && !arch->caps)
    rc = refuse(k, cap_keys, sizeof cap_keys / sizeof cap_keys[0]);
  if (!rc && engine_gguf_key(k->g, "split.count"))
    rc = drover_fail(k->err, DROVER_EFORMAT, "split.count: a model in several "
                     "files is not supported");
  return rc;
}


int engine_shape_read(struct engine_shape *s, struct engine_shape_more *more,
                      const struct engine_gguf *g, drover_err *err) {
  drover_text text = { 0 };
  int rc = engine_gguf_text(g, "general.architecture", &text, err);
  if (rc)
    return rc == DROVER_ENOTFOUND
      ? drover_fail(err, DROVER_EFORMAT, "general.architecture is missing")
      : rc;
  struct engine_gguf_shown name = engine_gguf_show(text.data, text.size);
  s->arch = engine_arch_find(name.text);
  if (!s->arch)
    return drover_fail(err, DROVER_EFORMAT, "general.architecture %s is not "
                       "supported (%s are)", name.text, engine_arch_names);
  struct keys k = { .g = g, .arch = s->arch->name, .err = err };
  s->parts = s->arch->parts;
  rc = check_keys(&k, s->arch);
  return rc ? rc : read_shape(&k, s, more);
}
