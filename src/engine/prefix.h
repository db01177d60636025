/* prefix: which blocks of the KV pool hold which tokens, so that a prompt's
 * beginning that was computed once is found again. Numbers alone.
 *
 * A full block is known by its 16 tokens, the block before it and a salt
 * (whose prompts they are). A hit compares all three, so a collision of
 * hashes costs time and never serves another prompt's keys. That the block
 * before it still means the same is kv.c's promise: a block leaves the map
 * after all that follow it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_PREFIX_H
#define DROVER_ENGINE_PREFIX_H

#include <stdint.h>

#include "backend.h"

struct engine_prefix_key {          /* of a full block */
  uint64_t salt;                    /* of its tenant */
  int32_t  before;                  /* the block before it; -1: none */
  const int32_t *token;             /* [ENGINE_BLOCK_TOKENS] */
};

struct engine_prefix_block {
  uint64_t salt;
  int32_t  before;
  int32_t  next;                    /* in its chain; -1: the last */
  int32_t  known;                   /* 1: it is in the map */
  int32_t  token[ENGINE_BLOCK_TOKENS];
};

struct engine_prefix {
  struct engine_prefix_block *block;    /* [blocks] of the pool */
  int32_t *slot;                    /* [slots] heads of chains; -1: empty */
  uint32_t slots;                   /* a power of two, >= blocks */
  uint64_t secret;                  /* keys the hash */
};


/* An empty map for a pool; `secret` is random. 0 or DROVER_ENOMEM. */
int engine_prefix_init(struct engine_prefix *p, uint32_t blocks,
                       uint64_t secret);
void engine_prefix_deinit(struct engine_prefix *p);     /* half-built too */


/* The keyed hash of a block's key. */
uint64_t engine_prefix_hash(const struct engine_prefix *p,
                            const struct engine_prefix_key *key);


/* The block that holds what `key` says, or -1. */
int32_t engine_prefix_find(const struct engine_prefix *p,
                           const struct engine_prefix_key *key);


/* Say what a block holds. Returns the block that is known by that key now: an
 * older one if there is one, and then `block` stays unknown. */
int32_t engine_prefix_add(struct engine_prefix *p, int32_t block,
                          const struct engine_prefix_key *key);


/* Forget a block, known or not. */
void engine_prefix_drop(struct engine_prefix *p, int32_t block);

#endif
