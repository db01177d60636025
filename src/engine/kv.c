/* kv: see kv.h.
 *
 * SPDX-License-Identifier: MIT */
#include "kv.h"

#include <string.h>

#include "../base/mem.h"
#include "../drover.h"

enum { TOKENS = ENGINE_BLOCK_TOKENS };


/* ---- the free, by last use ---- */

static void unlink_free(struct engine_kv *kv, int32_t block) {
  struct engine_kv_link *l = &kv->link[block];
  *(l->older >= 0 ? &kv->link[l->older].newer : &kv->oldest) = l->newer;
  *(l->newer >= 0 ? &kv->link[l->newer].older : &kv->newest) = l->older;
  kv->free--;
}


/* What can be found again goes to the new end; what cannot is the first to be
 * taken, while it is still in the caches. */
static void link_free(struct engine_kv *kv, int32_t block) {
  struct engine_kv_link *l = &kv->link[block];
  if (kv->prefix.block[block].known) {
    l->older = kv->newest;
    l->newer = -1;
  } else {
    l->older = -1;
    l->newer = kv->oldest;
  }
  *(l->older >= 0 ? &kv->link[l->older].newer : &kv->oldest) = block;
  *(l->newer >= 0 ? &kv->link[l->newer].older : &kv->newest) = block;
  kv->free++;
}


/* Linked from the last to the first: block 0 is taken first. */
int engine_kv_init(struct engine_kv *kv, uint32_t blocks, uint64_t secret) {
  *kv = (struct engine_kv){ .oldest = -1, .newest = -1 };
  kv->link = mem_calloc(blocks, sizeof *kv->link);
  int rc = engine_prefix_init(&kv->prefix, blocks, secret);
  if (rc || !kv->link)
    return DROVER_ENOMEM;
  kv->blocks = blocks;
  for (uint32_t i = blocks; i-- > 0;)
    link_free(kv, (int32_t)i);
  return DROVER_OK;
}


void engine_kv_deinit(struct engine_kv *kv) {
  mem_free(kv->link);
  engine_prefix_deinit(&kv->prefix);
  *kv = (struct engine_kv){ 0 };
}


uint32_t engine_kv_need(uint32_t tokens) {
  return tokens / TOKENS + (tokens % TOKENS != 0);
}


/* All or nothing: a sequence with half of its blocks could neither run nor
 * be waited for. */
int engine_kv_take(struct engine_kv *kv, uint32_t count, int32_t *to) {
  if (count > kv->free)
    return DROVER_EAGAIN;
  for (uint32_t i = 0; i < count; i++) {
    to[i] = kv->oldest;
    unlink_free(kv, to[i]);
    engine_prefix_drop(&kv->prefix, to[i]);
    kv->link[to[i]].holders = 1;
  }
  return DROVER_OK;
}


void engine_kv_hold(struct engine_kv *kv, const int32_t *blocks,
                    uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (kv->link[blocks[i]].holders++ == 0)
      unlink_free(kv, blocks[i]);
}


/* From the last to the first: the beginning of a prompt, which others may
 * share, outlives its end. */
void engine_kv_give(struct engine_kv *kv, const int32_t *blocks,
                    uint32_t count) {
  while (count-- > 0)
    if (--kv->link[blocks[count]].holders == 0)
      link_free(kv, blocks[count]);
}


/* ---- a sequence ---- */

uint32_t engine_kv_find(const struct engine_kv *kv, uint64_t salt,
                        const int32_t *ids, size_t count, int32_t *to) {
  struct engine_prefix_key key = { salt, -1, ids };
  uint32_t found = 0;
  for (; count >= TOKENS; count -= TOKENS, key.token += TOKENS, found++) {
    int32_t at = engine_prefix_find(&kv->prefix, &key);
    if (at < 0)
      break;
    if (to)
      to[found] = at;
    key.before = at;
  }
  return found;
}


/* The last position is always computed: its logits are what is asked for. */
long engine_seat_open(struct engine_kv *kv, struct engine_seat *s,
                      const int32_t *ids, uint32_t tokens) {
  uint32_t hits = engine_kv_find(kv, s->salt, ids, tokens - 1, s->block);
  engine_kv_hold(kv, s->block, hits);
  uint32_t more = engine_kv_need(tokens) - hits;
  if (engine_kv_take(kv, more, s->block + hits)) {
    engine_kv_give(kv, s->block, hits);
    return DROVER_EAGAIN;
  }
  s->held = hits + more;
  s->kept = hits;
  return (long)hits * TOKENS;
}


int engine_seat_grow(struct engine_kv *kv, struct engine_seat *s,
                     uint32_t tokens) {
  uint32_t need = engine_kv_need(tokens);
  if (need <= s->held)
    return DROVER_OK;
  int rc = engine_kv_take(kv, need - s->held, s->block + s->held);
  if (!rc)
    s->held = need;
  return rc;
}


static struct engine_prefix_key key_of(const struct engine_seat *s,
                                       const int32_t *ids, uint32_t i) {
  return (struct engine_prefix_key){
    s->salt, i ? s->block[i - 1] : -1, ids + (size_t)i * TOKENS
  };
}


/* Its block i becomes `other`, which holds the same. */
static void exchange(struct engine_kv *kv, struct engine_seat *s, uint32_t i,
                     int32_t other) {
  engine_kv_hold(kv, &other, 1);
  engine_kv_give(kv, &s->block[i], 1);
  s->block[i] = other;
}


/* In order, so a known block's predecessor is known too and is held by all
 * that hold it: what kv.h promises about taking follows. */
void engine_seat_keep(struct engine_kv *kv, struct engine_seat *s,
                      const int32_t *ids, uint32_t computed) {
  for (; s->kept < computed / TOKENS && s->kept < s->held; s->kept++) {
    struct engine_prefix_key key = key_of(s, ids, s->kept);
    int32_t mine = s->block[s->kept];
    int32_t at = engine_prefix_add(&kv->prefix, mine, &key);
    if (at != mine)
      exchange(kv, s, s->kept, at);
  }
}


uint32_t engine_seat_advance(struct engine_kv *kv, struct engine_seat *s,
                             const int32_t *ids, uint32_t computed,
                             uint32_t known) {
  while (computed == s->kept * TOKENS && computed + TOKENS < known) {
    struct engine_prefix_key key = key_of(s, ids, s->kept);
    int32_t at = engine_prefix_find(&kv->prefix, &key);
    if (at < 0)
      break;
    exchange(kv, s, s->kept++, at);
    computed += TOKENS;
  }
  return computed;
}


int32_t engine_seat_last(const struct engine_kv *kv,
                         const struct engine_seat *s, const int32_t *ids,
                         uint32_t computed, uint32_t known) {
  if (computed != s->kept * TOKENS || computed + TOKENS != known)
    return -1;
  struct engine_prefix_key key = key_of(s, ids, s->kept);
  return engine_prefix_find(&kv->prefix, &key);
}


int engine_seat_fork(struct engine_kv *kv, const struct engine_seat *from,
                     uint32_t computed, struct engine_seat *to,
                     int32_t copy[2]) {
  uint32_t full = computed / TOKENS, part = computed % TOKENS != 0;
  copy[0] = copy[1] = -1;
  if (engine_kv_take(kv, part, to->block + full))
    return DROVER_EAGAIN;
  memcpy(to->block, from->block, full * sizeof *to->block);
  engine_kv_hold(kv, to->block, full);
  if (part) {
    copy[0] = from->block[full];
    copy[1] = to->block[full];
  }
  to->held = full + part;
  to->kept = from->kept < full ? from->kept : full;
  to->salt = from->salt;
  return DROVER_OK;
}


void engine_seat_close(struct engine_kv *kv, struct engine_seat *s) {
  engine_kv_give(kv, s->block, s->held);
  s->held = s->kept = 0;
}


uint32_t engine_seat_own(const struct engine_kv *kv,
                         const struct engine_seat *s) {
  uint32_t own = 0;
  for (uint32_t i = 0; i < s->held; i++)
    own += kv->link[s->block[i]].holders == 1;
  return own;
}
