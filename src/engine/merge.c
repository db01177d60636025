/* merge: see merge.h.
 *
 * SPDX-License-Identifier: MIT */
#include "merge.h"

#include <string.h>

#include "../base/mem.h"
#include "../drover.h"


/* Room for one more; 0 or DROVER_ENOMEM. */
static int grow(void **at, size_t *room, size_t used, size_t size) {
  if (used < *room)
    return DROVER_OK;
  size_t wider = *room ? *room * 2 : 64, bytes;
  if (__builtin_mul_overflow(wider, size, &bytes))
    return DROVER_ENOMEM;
  void *p = mem_realloc(*at, bytes);
  if (!p)
    return DROVER_ENOMEM;
  *at = p;
  *room = wider;
  return DROVER_OK;
}


/* Numbers of symbols are 32 bits: texts are capped at ENGINE_TEXT_MAX. */
int engine_merge_add(struct engine_merge *m, uint32_t start, uint32_t size,
                     int32_t id) {
  void *at = m->symbol;
  if (grow(&at, &m->symbol_room, m->symbols, sizeof *m->symbol))
    return DROVER_ENOMEM;
  m->symbol = at;
  int32_t i = (int32_t)m->symbols++;
  m->symbol[i] = (struct engine_merge_symbol){ start, size, id, i - 1, -1 };
  if (i > 0)
    m->symbol[i - 1].next = i;
  return DROVER_OK;
}


/* The order of the heap: the key, and of equal keys the leftmost, as both
 * tokenizers' originals have it. */
static int before(const struct engine_merge_pair *a,
                  const struct engine_merge_pair *b) {
  return a->key != b->key ? a->key < b->key : a->left < b->left;
}


/* Sift up with a hole instead of swaps. */
static int push(struct engine_merge *m, struct engine_merge_pair p) {
  void *at = m->heap;
  if (grow(&at, &m->heap_room, m->pairs, sizeof *m->heap))
    return DROVER_ENOMEM;
  m->heap = at;
  size_t i = m->pairs++;
  while (i > 0 && before(&p, &m->heap[(i - 1) / 2])) {
    m->heap[i] = m->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  m->heap[i] = p;
  return DROVER_OK;
}


/* Sift down, likewise. */
static struct engine_merge_pair pop(struct engine_merge *m) {
  struct engine_merge_pair top = m->heap[0], last = m->heap[--m->pairs];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= m->pairs)
      break;
    if (child + 1 < m->pairs && before(&m->heap[child + 1], &m->heap[child]))
      child++;
    if (!before(&m->heap[child], &last))
      break;
    m->heap[i] = m->heap[child];
    i = child;
  }
  if (m->pairs)
    m->heap[i] = last;
  return top;
}


/* A pair remembers its size: when one of its symbols has grown or gone
 * since, the sizes no longer add up and the pair is stale. Nothing has to be
 * searched in the heap. */
static int offer(struct engine_merge *m, int32_t left, engine_merge_fn fits,
                 const void *ctx) {
  struct engine_merge_pair p = { .left = left };
  if (left < 0 || m->symbol[left].next < 0)
    return DROVER_OK;
  p.right = m->symbol[left].next;
  const struct engine_merge_symbol *a = &m->symbol[left];
  const struct engine_merge_symbol *b = &m->symbol[p.right];
  p.size = a->size + b->size;
  return fits(ctx, a, b, &p.key, &p.id) ? push(m, p) : DROVER_OK;
}


/* Each merge takes one symbol away and offers two pairs at most, so the heap
 * sees at most 3 n pairs: n log n also for a megabyte of one letter. An
 * equal size can only be the same pair, since symbols only grow. */
int engine_merge_run(struct engine_merge *m, engine_merge_fn fits,
                     const void *ctx) {
  int rc = DROVER_OK;
  m->pairs = 0;
  for (size_t i = 0; i + 1 < m->symbols && !rc; i++)
    rc = offer(m, (int32_t)i, fits, ctx);
  while (m->pairs && !rc) {
    struct engine_merge_pair p = pop(m);
    struct engine_merge_symbol *a = &m->symbol[p.left];
    struct engine_merge_symbol *b = &m->symbol[p.right];
    if (!a->size || !b->size || a->size + b->size != p.size)
      continue;                     /* one of them merged since */
    a->size = p.size;
    a->id = p.id;
    a->next = b->next;
    b->size = 0;
    if (a->next >= 0)
      m->symbol[a->next].prev = p.left;
    rc = offer(m, a->prev, fits, ctx);
    if (!rc)
      rc = offer(m, p.left, fits, ctx);
  }
  return rc;
}


void engine_merge_clear(struct engine_merge *m) {
  m->symbols = 0;
  m->pairs = 0;
}


/* Usable again afterwards, from empty. */
void engine_merge_deinit(struct engine_merge *m) {
  mem_free(m->symbol);
  mem_free(m->heap);
  memset(m, 0, sizeof *m);
}
