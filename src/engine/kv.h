/* kv: who holds which blocks of the KV pool. Blocks are numbers; a sequence's
 * positions 16 i .. 16 i + 15 lie in its i-th block.
 *
 * Full blocks may have many holders and are never written again; a block
 * that nobody holds is free, and what it holds can still be found (prefix.h)
 * until it is taken. The longest unused is taken first, a sequence's end
 * before its beginning; so a block is never taken before one that follows
 * it. One thread writes.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_KV_H
#define DROVER_ENGINE_KV_H

#include <stddef.h>
#include <stdint.h>

#include "prefix.h"

struct engine_kv_link {
  uint32_t holders;
  int32_t  older, newer;            /* among the free; -1: the end */
};

struct engine_kv {
  struct engine_kv_link *link;      /* [blocks] */
  int32_t  oldest, newest;          /* of the free, by last use; -1: none */
  uint32_t free;                    /* blocks that nobody holds */
  uint32_t blocks;                  /* of the pool, fixed */
  struct engine_prefix prefix;
};

struct engine_seat {                /* a sequence's place in the pool */
  int32_t *block;                   /* [most] */
  uint32_t most;                    /* blocks that it can ever need */
  uint32_t held;                    /* blocks that it has */
  uint32_t kept;                    /* of them known to the prefix map */
  uint64_t salt;                    /* of its tenant */
};


/* All blocks free; `secret` keys the prefix map. 0 or DROVER_ENOMEM. */
int engine_kv_init(struct engine_kv *kv, uint32_t blocks, uint64_t secret);
void engine_kv_deinit(struct engine_kv *kv);    /* half-built too */


/* Blocks that `tokens` positions need. */
uint32_t engine_kv_need(uint32_t tokens);


/* Take `count` free blocks, or none and DROVER_EAGAIN. */
int engine_kv_take(struct engine_kv *kv, uint32_t count, int32_t *to);


/* One holder more for each of these; one less. */
void engine_kv_hold(struct engine_kv *kv, const int32_t *blocks,
                    uint32_t count);
void engine_kv_give(struct engine_kv *kv, const int32_t *blocks,
                    uint32_t count);


/* ---- a sequence ---- */

/* How many blocks of `ids` the pool knows, from the first on; their numbers
 * to `to` (NULL: only counted). Nothing is held. */
uint32_t engine_kv_find(const struct engine_kv *kv, uint64_t salt,
                        const int32_t *ids, size_t count, int32_t *to);


/* Blocks for `tokens` positions: those that are known are shared, as far as
 * they end before the last position, the others taken. Returns how many
 * positions are computed already, or DROVER_EAGAIN and nothing is held. */
long engine_seat_open(struct engine_kv *kv, struct engine_seat *s,
                      const int32_t *ids, uint32_t tokens);


/* Blocks for as many positions, those behind the ones it has taken. 0 or
 * DROVER_EAGAIN. */
int engine_seat_grow(struct engine_kv *kv, struct engine_seat *s,
                     uint32_t tokens);


/* `computed` of its positions hold what belongs there: what full blocks hold
 * can be found from now on. Where another block already holds the same,
 * that one is shared and its own given back. */
void engine_seat_keep(struct engine_kv *kv, struct engine_seat *s,
                      const int32_t *ids, uint32_t computed);


/* Share what has become known behind the `computed` positions (whole blocks)
 * since it was opened, ending before position `known` - 1. Returns the new
 * count of computed positions. */
uint32_t engine_seat_advance(struct engine_kv *kv, struct engine_seat *s,
                             const int32_t *ids, uint32_t computed,
                             uint32_t known);


/* The block that holds the same as its last one would, where `computed` and
 * `known` are its two ends; or -1. Nothing is held: copy it at once. */
int32_t engine_seat_last(const struct engine_kv *kv,
                         const struct engine_seat *s, const int32_t *ids,
                         uint32_t computed, uint32_t known);


/* A second sequence over the same `computed` positions: full blocks are
 * shared; `copy` becomes the last, partial block of `from` and of `to`, to
 * be copied by the caller (-1, -1: there is none). `to` has an array of its
 * own. 0 or DROVER_EAGAIN. */
int engine_seat_fork(struct engine_kv *kv, const struct engine_seat *from,
                     uint32_t computed, struct engine_seat *to,
                     int32_t copy[2]);


/* Give all of it back. */
void engine_seat_close(struct engine_kv *kv, struct engine_seat *s);


/* Blocks that nobody else holds: free once it is closed. */
uint32_t engine_seat_own(const struct engine_kv *kv,
                         const struct engine_seat *s);

#endif
