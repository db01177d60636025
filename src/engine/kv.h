/* kv: which blocks of the KV pool are free. Blocks are numbers; a sequence's
 * positions 16 i .. 16 i + 15 lie in its i-th block. One thread at a time.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_KV_H
#define DROVER_ENGINE_KV_H

#include <stdint.h>

struct engine_kv {
  int32_t *spare;                   /* [free] a stack of free blocks */
  uint32_t free;                    /* blocks that nobody holds */
  uint32_t blocks;                  /* of the pool, fixed */
};


/* All blocks free. 0 or DROVER_ENOMEM. */
int engine_kv_init(struct engine_kv *kv, uint32_t blocks);
void engine_kv_deinit(struct engine_kv *kv);


/* Blocks that `tokens` positions need. */
uint32_t engine_kv_need(uint32_t tokens);


/* Take `count` blocks, or none and DROVER_EAGAIN. */
int engine_kv_take(struct engine_kv *kv, uint32_t count, int32_t *to);


/* Give blocks back. */
void engine_kv_give(struct engine_kv *kv, const int32_t *blocks,
                    uint32_t count);

#endif
