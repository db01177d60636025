/* prefix: see prefix.h. Chains run through the blocks themselves, so the map
 * never grows, never fails and has no tombstones.
 *
 * SPDX-License-Identifier: MIT */
#include "prefix.h"

#include <string.h>

#include "../base/hash.h"
#include "../base/mem.h"
#include "../drover.h"

enum { TOKENS_BYTES = ENGINE_BLOCK_TOKENS * sizeof(int32_t) };


int engine_prefix_init(struct engine_prefix *p, uint32_t blocks,
                       uint64_t secret) {
  p->slots = 16;
  while (p->slots < blocks)
    p->slots *= 2;                  /* blocks < 2^31 */
  p->secret = secret;
  p->block = mem_calloc(blocks, sizeof *p->block);
  p->slot = mem_alloc(p->slots * sizeof *p->slot);
  if (!p->block || !p->slot)
    return DROVER_ENOMEM;
  for (uint32_t i = 0; i < p->slots; i++)
    p->slot[i] = -1;
  return DROVER_OK;
}


void engine_prefix_deinit(struct engine_prefix *p) {
  mem_free(p->block);
  mem_free(p->slot);
  *p = (struct engine_prefix){ 0 };
}


uint64_t engine_prefix_hash(const struct engine_prefix *p,
                            const struct engine_prefix_key *key) {
  uint64_t seed = hash_mix(p->secret ^ key->salt)
    + (uint64_t)(int64_t)key->before;
  return hash_bytes(hash_mix(seed), key->token, TOKENS_BYTES);
}


static int32_t *chain(const struct engine_prefix *p, uint64_t hash) {
  return &p->slot[hash & (p->slots - 1)];
}


static int same(const struct engine_prefix_block *b,
                const struct engine_prefix_key *key) {
  return b->before == key->before && b->salt == key->salt
    && !memcmp(b->token, key->token, TOKENS_BYTES);
}


int32_t engine_prefix_find(const struct engine_prefix *p,
                           const struct engine_prefix_key *key) {
  int32_t at = *chain(p, engine_prefix_hash(p, key));
  while (at >= 0 && !same(&p->block[at], key))
    at = p->block[at].next;
  return at;
}


int32_t engine_prefix_add(struct engine_prefix *p, int32_t block,
                          const struct engine_prefix_key *key) {
  int32_t *head = chain(p, engine_prefix_hash(p, key));
  for (int32_t at = *head; at >= 0; at = p->block[at].next)
    if (same(&p->block[at], key))
      return at;
  struct engine_prefix_block *b = &p->block[block];
  *b = (struct engine_prefix_block){ key->salt, key->before, *head, 1, { 0 } };
  memcpy(b->token, key->token, TOKENS_BYTES);
  *head = block;
  return block;
}


void engine_prefix_drop(struct engine_prefix *p, int32_t block) {
  struct engine_prefix_block *b = &p->block[block];
  struct engine_prefix_key key = { b->salt, b->before, b->token };
  if (!b->known)
    return;
  int32_t *at = chain(p, engine_prefix_hash(p, &key));
  while (*at != block)
    at = &p->block[*at].next;
  *at = b->next;
  b->known = 0;
}
