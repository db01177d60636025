/* arch: the architectures that are computed here, a row each: what a file of
 * it holds, and where it departs from a llama. A dense architecture that only
 * mixes these needs a row and no code.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_ARCH_H
#define DROVER_ENGINE_ARCH_H

#include <stdint.h>

/* What a model's tensors show; a part of it is there when its bits are. */
enum {
  ENGINE_PRE_NORM = 1,              /* norms before attention and ffn */
  ENGINE_POST_NORM = 2,             /* norms behind them, before the sum */
  ENGINE_HEAD_NORM = 4,             /* of each head's q and k */
  ENGINE_WIDE_NORM = 8,             /* of all heads' q and k at once */
  ENGINE_SPLIT_QKV = 16,            /* q, k and v apart */
  ENGINE_FUSED_QKV = 32,            /* one matrix; and gate over up in one */
  ENGINE_BIAS = 64,                 /* products may have biases */
  ENGINE_SINKS = 128,               /* a logit a head without a value */
  ENGINE_DENSE = 256,               /* one ffn */
  ENGINE_EXPERTS = 512,             /* a router and several */
  ENGINE_POST_NAME = 1024           /* the ffn's norm bears the name of the
                                     * one behind attention */
};

enum engine_glu { ENGINE_SILU, ENGINE_GELU, ENGINE_SWIGLU_OAI };

struct engine_arch {
  const char *name;                 /* general.architecture */
  uint32_t parts;                   /* the bits above; ENGINE_DENSE gives way to
                                     * ENGINE_EXPERTS where a file has any */
  unsigned char neox;               /* rotate i with i + rot / 2, not 2i with
                                     * 2i + 1 */
  unsigned char glu;                /* enum engine_glu */
  unsigned char embed_root;         /* embeddings times sqrt(width) */
  unsigned char scales;             /* the four scales are keys of it */
  unsigned char caps;               /* the two soft caps are keys of it */
  unsigned char window;             /* every window-th layer sees everything;
                                     * 0: all do, whatever the file says */
  unsigned char local_rope;         /* windowed layers turn unscaled, at 10000 */
  unsigned char route_last;         /* experts' shares: softmax over the chosen,
                                     * not a share of the softmax over all */
  unsigned char may_experts;
};


/* By general.architecture; NULL when there is none such. */
const struct engine_arch *engine_arch_find(const char *name);


/* All names, for errors: "gemma2, gemma3, …". */
extern const char engine_arch_names[];

#endif
