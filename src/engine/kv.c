/* kv: see kv.h.
 *
 * SPDX-License-Identifier: MIT */
#include "kv.h"

#include "../base/mem.h"
#include "../drover.h"
#include "backend.h"


/* A stack: blocks that were just given back are taken first, while they are
 * still in the caches. */
int engine_kv_init(struct engine_kv *kv, uint32_t blocks) {
  kv->spare = mem_alloc((size_t)blocks * sizeof *kv->spare);
  kv->free = kv->blocks = kv->spare ? blocks : 0;
  for (uint32_t i = 0; i < kv->free; i++)
    kv->spare[i] = (int32_t)(blocks - 1 - i);   /* block 0 goes first */
  return kv->spare ? DROVER_OK : DROVER_ENOMEM;
}


void engine_kv_deinit(struct engine_kv *kv) {
  mem_free(kv->spare);
  *kv = (struct engine_kv){ 0 };
}


uint32_t engine_kv_need(uint32_t tokens) {
  return tokens / ENGINE_BLOCK_TOKENS + (tokens % ENGINE_BLOCK_TOKENS != 0);
}


/* All or nothing: a sequence with half of its blocks could neither run nor
 * be waited for. */
int engine_kv_take(struct engine_kv *kv, uint32_t count, int32_t *to) {
  if (count > kv->free)
    return DROVER_EAGAIN;
  for (uint32_t i = 0; i < count; i++)
    to[i] = kv->spare[--kv->free];
  return DROVER_OK;
}


/* From the last to the first, so that the next taker gets them in the order
 * in which this one had them. */
void engine_kv_give(struct engine_kv *kv, const int32_t *blocks,
                    uint32_t count) {
  while (count > 0)
    kv->spare[kv->free++] = blocks[--count];
}
