/* arch: see arch.h. Sources of a row: the model's own publication, and how its
 * files are converted (llama.cpp's conversion, release 0.4).
 *
 * SPDX-License-Identifier: MIT */
#include "arch.h"

#include <stddef.h>
#include <string.h>

enum {
  LLAMA = ENGINE_PRE_NORM | ENGINE_SPLIT_QKV | ENGINE_DENSE,
  SANDWICH = LLAMA | ENGINE_POST_NORM
};

static const struct engine_arch archs[] = {
  { .name = "llama", .parts = LLAMA | ENGINE_BIAS, .may_experts = 1 },
  { .name = "qwen2", .parts = LLAMA | ENGINE_BIAS, .neox = 1 },
  { .name = "qwen3", .parts = LLAMA | ENGINE_HEAD_NORM, .neox = 1 },
  { .name = "qwen3moe", .parts = LLAMA | ENGINE_HEAD_NORM, .neox = 1,
    .may_experts = 1 },
  { .name = "phi3", .parts = ENGINE_PRE_NORM | ENGINE_FUSED_QKV | ENGINE_DENSE,
    .neox = 1 },
  { .name = "gemma2", .parts = SANDWICH, .neox = 1, .glu = ENGINE_GELU,
    .embed_root = 1, .caps = 1, .window = 2 },
  { .name = "gemma3", .parts = SANDWICH | ENGINE_HEAD_NORM, .neox = 1,
    .glu = ENGINE_GELU, .embed_root = 1, .window = 6, .local_rope = 1 },
  { .name = "gpt-oss", .parts = LLAMA | ENGINE_BIAS | ENGINE_SINKS
    | ENGINE_POST_NAME, .neox = 1, .glu = ENGINE_SWIGLU_OAI, .window = 2,
    .route_last = 1, .may_experts = 1 },
  { .name = "granite", .parts = LLAMA | ENGINE_BIAS, .scales = 1 },
  { .name = "olmo2", .parts = ENGINE_SPLIT_QKV | ENGINE_DENSE
    | ENGINE_POST_NORM | ENGINE_WIDE_NORM, .neox = 1 },
};

const char engine_arch_names[] = "llama, qwen2, qwen3, qwen3moe, phi3, gemma2, "
                                 "gemma3, gpt-oss, granite, olmo2";


const struct engine_arch *engine_arch_find(const char *name) {
  for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++)
    if (!strcmp(archs[i].name, name))
      return &archs[i];
  return NULL;
}
