/* spm: SentencePiece's BPE. A piece begins as its characters, blanks spelled
 * U+2581; of all neighbours that together are a token, the one of the highest
 * score goes first. What is left and no token is spelled in bytes. See
 * vocab.h.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/buf.h"
#include "merge.h"
#include "unicode.h"
#include "vocab.h"

struct piece {                      /* what merging looks at */
  const struct engine_vocab *vocab;
  const char *text;                 /* with U+2581 for blanks */
};


/* Rising keys for falling scores: a float's bits, made to sort as numbers. The
 * sum makes +0 of -0: equal scores must have equal keys, or the leftmost pair
 * would not go first. */
static uint32_t key_of(float score) {
  uint32_t bits;
  score += 0.0f;
  memcpy(&bits, &score, sizeof bits);
  return bits & 0x80000000 ? bits : 0x7fffffff - bits;
}


/* The two spans touch in the text, so their concatenation is one span of it. */
static int fits(const void *ctx, const struct engine_merge_symbol *left,
                const struct engine_merge_symbol *right, uint32_t *key,
                int32_t *id) {
  const struct piece *p = ctx;
  size_t size = (size_t)left->size + right->size;
  if (size > p->vocab->longest)
    return 0;
  *id = engine_vocab_find(p->vocab, p->text + left->start, size);
  if (*id < 0)
    return 0;
  *key = key_of(p->vocab->score[*id]);
  return 1;
}


/* Every blank, runs of them too, becomes U+2581 as SentencePiece has it.
 * `lead`: one in front, its "dummy prefix". */
static int escape(struct buf *b, const char *text, size_t size, int lead) {
  static const char blank[] = "\xe2\x96\x81";
  int rc = lead ? buf_add(b, blank, 3) : DROVER_OK;
  for (size_t at = 0; at < size && !rc;) {
    const char *space = memchr(text + at, ' ', size - at);
    size_t end = space ? (size_t)(space - text) : size;
    rc = buf_add(b, text + at, end - at);
    if (space && !rc)
      rc = buf_add(b, blank, 3);
    at = end + 1;
  }
  return rc;
}


/* A character that was never merged has no id yet: it may be a token itself,
 * else its bytes are spelled. */
static int emit(const struct piece *p, const struct engine_merge_symbol *s,
                struct engine_ids *out, drover_err *err) {
  int32_t id = s->id;
  if (id < 0)
    id = engine_vocab_find(p->vocab, p->text + s->start, s->size);
  if (id >= 0)
    return engine_ids_add(out, id);
  int rc = DROVER_OK;
  for (uint32_t i = 0; i < s->size && !rc; i++)
    rc = engine_vocab_spell(p->vocab,
                            (unsigned char)p->text[s->start + i], out, err);
  return rc;
}


/* A byte that is no UTF-8 is a symbol of one byte and comes out as its byte
 * token. */
static int encode_piece(const struct piece *p, size_t size,
                        struct engine_merge *m, struct engine_ids *out,
                        drover_err *err) {
  int rc = DROVER_OK;
  for (size_t at = 0; at < size && !rc;) {
    uint32_t code;
    size_t n = engine_unicode_decode(p->text + at, size - at, &code);
    rc = engine_merge_add(m, (uint32_t)at, (uint32_t)n, -1);
    at += n;
  }
  if (!rc)
    rc = engine_merge_run(m, fits, p);
  for (int32_t i = m->symbols ? 0 : -1; i >= 0 && !rc; i = m->symbol[i].next)
    rc = emit(p, &m->symbol[i], out, err);
  return rc;
}


/* The copy may be three times the text, when all of it is blanks. SPM merges
 * over the whole piece, words and all: the heap keeps that n log n. */
int engine_spm_encode(const struct engine_vocab *v, const char *text,
                      size_t size, int lead, struct engine_ids *out,
                      drover_err *err) {
  struct engine_merge merge = { 0 };
  struct buf b;
  buf_init(&b, (size_t)ENGINE_TEXT_MAX * 3 + 3);
  int rc = escape(&b, text, size, lead && v->space_prefix);
  if (!rc) {
    struct piece p = { v, b.at };
    rc = encode_piece(&p, b.size, &merge, out, err);
  }
  engine_merge_deinit(&merge);
  buf_deinit(&b, 0);
  return rc;
}
