/* merge: the heap that both tokenizers share. Symbols are spans of one text,
 * in a list; of all adjacent pairs that may merge, the one of the least key
 * goes first, the leftmost of equals; n log n in the text's length. Pure.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_MERGE_H
#define DROVER_ENGINE_MERGE_H

#include <stddef.h>
#include <stdint.h>

struct engine_merge_symbol {
  uint32_t start, size;             /* in the text; size 0: merged away */
  int32_t  id;                      /* its token, or -1 */
  int32_t  prev, next;              /* -1: none */
};

struct engine_merge_pair {          /* a merge that may happen */
  uint32_t key;                     /* the least goes first */
  int32_t  left, right;             /* symbols */
  uint32_t size;                    /* of both together: else it is stale */
  int32_t  id;                      /* the merged token */
};

struct engine_merge {               /* zeroed by the caller; kept for reuse */
  struct engine_merge_symbol *symbol;
  struct engine_merge_pair *heap;   /* the least pair first */
  size_t symbols, symbol_room;      /* in use; allocated */
  size_t pairs, heap_room;
};

/* Whether two neighbours make a token: 1 with its `key` and `id`, else 0. */
typedef int (*engine_merge_fn)(const void *ctx,
                               const struct engine_merge_symbol *left,
                               const struct engine_merge_symbol *right,
                               uint32_t *key, int32_t *id);


/* Append a symbol behind the last. 0 or DROVER_ENOMEM. */
int engine_merge_add(struct engine_merge *m, uint32_t start, uint32_t size,
                     int32_t id);


/* Merge until no pair is left. Symbol 0 stays the first; follow `next`. */
int engine_merge_run(struct engine_merge *m, engine_merge_fn fits,
                     const void *ctx);


/* Forget the symbols, keep the room. */
void engine_merge_clear(struct engine_merge *m);
void engine_merge_deinit(struct engine_merge *m);

#endif
