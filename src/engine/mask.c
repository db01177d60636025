/* mask: see mask.h.
 *
 * SPDX-License-Identifier: MIT */
#include "mask.h"

#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "unicode.h"

/* Threads moved by a byte, in one walk: a plain reading of 250,000 tokens stays
 * below it, a schema of dozens of readings at once is cut short. */
enum { WALK_MAX = 4 << 20 };

struct entry {                      /* while tokens are sorted */
  const char *at;
  uint32_t size, id;
};


/* ---- the vocabulary, sorted ---- */

/* How many characters there are, if all are whole, stand in a string as they
 * are, and are few enough; else 0. */
static unsigned plain_chars(const char *at, uint32_t size) {
  uint32_t chars = 0;
  for (uint32_t i = 0; i < size; chars++) {
    int n = engine_unicode_check(at + i, size - i);
    if (n <= 0 || at[i] == '"' || at[i] == '\\' || (unsigned char)at[i] < 32)
      return 0;
    i += (uint32_t)n;
  }
  return chars <= ENGINE_CHARS_AHEAD ? chars : 0;
}


static int by_bytes(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  int order = memcmp(x->at, y->at, x->size < y->size ? x->size : y->size);
  if (order || x->size != y->size)
    return order ? order : x->size < y->size ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}


static int fill_words(struct engine_words *w, const struct entry *e,
                      uint32_t count, const char *bytes) {
  w->count = count;
  w->id = mem_alloc((count + 1) * sizeof *w->id);
  w->start = mem_alloc((count + 1) * sizeof *w->start);
  w->size = mem_alloc(count + 1);
  w->shared = mem_alloc(count + 1);
  if (!w->id || !w->start || !w->size || !w->shared)
    return DROVER_ENOMEM;
  for (uint32_t i = 0, shared; i < count; i++) {
    w->id[i] = e[i].id;
    w->start[i] = (uint32_t)(e[i].at - bytes);
    w->size[i] = (unsigned char)e[i].size;
    for (shared = 0; i && shared < e[i].size && shared < e[i - 1].size
           && e[i].at[shared] == e[i - 1].at[shared];)
      shared++;
    w->shared[i] = (unsigned char)shared;
  }
  for (uint32_t byte = 0, i = 0; byte <= 256; byte++) {
    while (i < count && (unsigned char)e[i].at[0] < byte)
      i++;
    w->first[byte] = i;
  }
  return DROVER_OK;
}


static void free_words(struct engine_words *w) {
  mem_free(w->id);
  mem_free(w->start);
  mem_free(w->size);
  mem_free(w->shared);
}


/* The bytes of all tokens that have some and may be used; `e` says which. */
static uint32_t gather(struct engine_trie *t, struct entry *e) {
  const struct engine_vocab *v = t->vocab;
  size_t used = 0;
  uint32_t count = 0;
  for (uint32_t id = 0; id < v->size; id++) {
    size_t size = engine_vocab_piece(v, (int32_t)id, t->bytes + used);
    if (!size || size > ENGINE_PIECE_MAX || v->ends[id])
      continue;
    e[count++] = (struct entry){ t->bytes + used, (uint32_t)size, id };
    used += size;
  }
  return count;
}


/* The list of all, and after it the list without the plain ones, in the same
 * memory. */
static int build(struct engine_trie *t, struct entry *e) {
  uint32_t count = gather(t, e), kept = 0;
  qsort(e, count, sizeof *e, by_bytes);
  int rc = fill_words(&t->all, e, count, t->bytes);
  for (uint32_t i = 0; i < count; i++) {
    t->chars[e[i].id] = (unsigned char)plain_chars(e[i].at, e[i].size);
    if (!t->chars[e[i].id])
      e[kept++] = e[i];
  }
  return rc ? rc : fill_words(&t->rest, e, kept, t->bytes);
}


/* Room for the bytes: what the vocabulary has, and one more token, since a
 * piece is written before its size is known. */
int engine_trie_new(struct engine_trie **out, const struct engine_vocab *v,
                    drover_err *err) {
  struct engine_trie *t = mem_calloc(1, sizeof *t);
  struct entry *e = mem_calloc(v->size, sizeof *e);
  int rc = DROVER_ENOMEM;
  *out = NULL;
  if (t && e) {
    t->vocab = v;
    t->mask_words = ((size_t)v->size + 63) / 64;
    t->bytes = mem_alloc(v->start[v->size] + v->size + v->longest + 1);
    t->chars = mem_calloc(t->mask_words, 64);
    if (t->bytes && t->chars)
      rc = build(t, e);
  }
  mem_free(e);
  if (rc) {
    engine_trie_free(t);
    return drover_fail(err, rc, "no memory for a vocabulary");
  }
  *out = t;
  return DROVER_OK;
}


void engine_trie_free(struct engine_trie *t) {
  if (!t)
    return;
  free_words(&t->all);
  free_words(&t->rest);
  mem_free(t->bytes);
  mem_free(t->chars);
  mem_free(t);
}


/* ---- one request's place ---- */

int engine_mask_new(struct engine_mask **out, const struct engine_trie *t,
                    const char *json, size_t size, drover_err *err) {
  struct engine_mask *m = mem_calloc(1, sizeof *m);
  *out = NULL;
  if (!m)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a grammar");
  m->trie = t;
  int rc = engine_grammar_new(&m->grammar, json, size, err);
  if (rc) {
    engine_mask_free(m);
    return rc;
  }
  engine_grammar_start(m->grammar, &m->state);
  *out = m;
  return DROVER_OK;
}


void engine_mask_free(struct engine_mask *m) {
  if (!m)
    return;
  for (int i = 0; i < ENGINE_MASKS_KEPT; i++)
    mem_free(m->kept[i].bits);
  engine_grammar_free(m->grammar);
  mem_free(m);
}


/* Where a token leads from the present state; 0: nowhere. */
static int after(struct engine_mask *m, int32_t id, struct engine_state *end) {
  const struct engine_vocab *v = m->trie->vocab;
  size_t room = v->start[id + 1] - v->start[id];
  char piece[ENGINE_PIECE_MAX * 4];
  if (room + 1 > sizeof piece)
    return 0;
  size_t size = engine_vocab_piece(v, id, piece);
  struct engine_state from = m->state;
  if (!size || size > ENGINE_PIECE_MAX)
    return 0;
  for (size_t i = 0; i < size; i++) {
    if (!engine_grammar_step(m->grammar, &from, (unsigned char)piece[i], end))
      return 0;
    from = *end;
  }
  return 1;
}


int engine_mask_allows(struct engine_mask *m, int32_t id) {
  struct engine_state end;
  if (engine_vocab_ends(m->trie->vocab, id))
    return engine_grammar_done(&m->state) > 0;
  return after(m, id, &end);
}


static size_t state_bytes(const struct engine_state *s) {
  return offsetof(struct engine_state, thread)
    + s->count * sizeof *s->thread;
}


int engine_mask_take(struct engine_mask *m, int32_t id) {
  struct engine_state end;
  if (!engine_vocab_ends(m->trie->vocab, id) && after(m, id, &end))
    m->state = end;
  if (engine_grammar_tidy(m->grammar, &m->state))
    for (int i = 0; i < ENGINE_MASKS_KEPT; i++)
      m->kept[i].state.count = 0;   /* its stacks are others now */
  return engine_grammar_done(&m->state) == 2;
}


/* ---- masks ---- */

/* Walk the words: `state[d]` is that after d bytes of the last word that was
 * not passed over, which hold up to `alive`; a word that shares more than that
 * with its neighbour shares its death. What a walk that is too long does not
 * reach is left out, which forbids more and allows nothing wrong. */
static void walk(struct engine_mask *m, const struct engine_words *w,
                 uint64_t *bits) {
  struct engine_state state[ENGINE_PIECE_MAX + 1];
  uint32_t alive = 0, dead = UINT32_MAX, work = 0;
  state[0] = m->state;
  for (uint32_t i = 0; i < w->count && work < WALK_MAX; i++) {
    uint32_t shared = w->shared[i], at = alive;
    if (shared > dead)
      continue;
    if (at > shared)
      at = shared;
    const char *bytes = m->trie->bytes + w->start[i];
    while (at < w->size[i]
           && engine_grammar_step(m->grammar, &state[at],
                                  (unsigned char)bytes[at], &state[at + 1]))
      work += state[at++].count;
    alive = at;
    dead = at < w->size[i] ? at : UINT32_MAX;
    if (at == w->size[i])
      bits[w->id[i] / 64] |= 1ull << w->id[i] % 64;
    else if (at == 0)
      i = w->first[(unsigned char)bytes[0] + 1] - 1;
  }
}


static void make(struct engine_mask *m, uint64_t *bits) {
  const struct engine_trie *t = m->trie;
  const struct engine_vocab *v = t->vocab;
  unsigned room = engine_grammar_room(m->grammar, &m->state);
  for (size_t i = 0; i < t->mask_words; i++) {
    const unsigned char *chars = t->chars + i * 64;
    uint64_t word = 0;
    for (int k = 0; k < 64 && room; k++)
      word |= (uint64_t)(chars[k] - 1u < room) << k;
    bits[i] = word;
  }
  walk(m, room ? &t->rest : &t->all, bits);
  if (engine_grammar_done(&m->state))
    for (uint32_t id = 0; id < v->size; id++)
      if (v->ends[id])
        bits[id / 64] |= 1ull << id % 64;
}


const uint64_t *engine_mask_bits(struct engine_mask *m) {
  size_t size = state_bytes(&m->state);
  for (int i = 0; i < ENGINE_MASKS_KEPT; i++)
    if (m->kept[i].state.count == m->state.count
        && !memcmp(&m->kept[i].state, &m->state, size)) {
      m->found++;
      return m->kept[i].bits;
    }
  struct engine_mask_kept *k = &m->kept[m->next++ % ENGINE_MASKS_KEPT];
  if (!k->bits)
    k->bits = mem_alloc(m->trie->mask_words * sizeof *k->bits);
  k->state.count = 0;
  if (!k->bits)
    return NULL;
  m->made++;
  make(m, k->bits);
  memcpy(&k->state, &m->state, size);
  return k->bits;
}
