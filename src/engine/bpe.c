/* bpe: byte-level BPE. A word begins as its bytes; of all neighbours that a
 * merge rule joins, the rule of the lowest rank goes first. See vocab.h.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "../base/err.h"
#include "merge.h"
#include "unicode.h"
#include "vocab.h"


/* GPT-2 spells each byte as a printable character: itself where it is one,
 * else U+0100 and up in the order of the bytes. */
static int byte_of(uint32_t code) {
  if ((code >= 33 && code <= 126) || (code >= 161 && code <= 172)
      || (code >= 174 && code <= 255))
    return (int)code;
  if (code < 256 || code > 256 + 67)
    return -1;
  code -= 256;
  if (code < 33)
    return (int)code;               /* 0..32 */
  return code < 33 + 34 ? (int)(127 + code - 33) : 173;
}


/* In place, since no character of that alphabet takes fewer bytes than the
 * one it stands for. A byte that is no UTF-8 decodes to ENGINE_UNICODE_BAD
 * and so to -1. */
long engine_bpe_undo(char *text, size_t size) {
  size_t at = 0, to = 0;
  while (at < size) {
    uint32_t code;
    size_t n = engine_unicode_decode(text + at, size - at, &code);
    int byte = byte_of(code);
    if (byte < 0)
      return -1;
    text[to++] = (char)byte;
    at += n;
  }
  return (long)to;
}


/* Ids and no strings at run time: the table of merges was keyed by two
 * tokens when the file was loaded. A symbol without a token (a byte that the
 * vocabulary lacks) merges with nothing. */
static int fits(const void *ctx, const struct engine_merge_symbol *left,
                const struct engine_merge_symbol *right, uint32_t *key,
                int32_t *id) {
  if (left->id < 0 || right->id < 0)
    return 0;
  const struct engine_merge_rank *m = engine_vocab_merge(ctx, left->id,
                                                         right->id);
  if (!m)
    return 0;
  *key = m->rank;
  *id = m->id;
  return 1;
}


/* A byte without a token is spelled only at the end, so its neighbours still
 * merge among themselves. `whole_words` is llama 3's ignore_merges: a word
 * that is a token is taken as it is, even where the merges would not lead to
 * it. */
static int encode_word(const struct engine_vocab *v, struct engine_merge *m,
                       const drover_text *word, struct engine_ids *out,
                       drover_err *err) {
  int rc = DROVER_OK;
  if (v->pre->whole_words) {
    int32_t id = engine_vocab_find(v, word->data, word->size);
    if (id >= 0)
      return engine_ids_add(out, id);
  }
  engine_merge_clear(m);
  for (size_t i = 0; i < word->size && !rc; i++)
    rc = engine_merge_add(m, (uint32_t)i, 1,
                          v->byte[(unsigned char)word->data[i]]);
  if (!rc)
    rc = engine_merge_run(m, fits, v);
  for (int32_t i = 0; i >= 0 && !rc; i = m->symbol[i].next) {
    const struct engine_merge_symbol *s = &m->symbol[i];
    if (s->id >= 0)
      rc = engine_ids_add(out, s->id);
    else
      rc = engine_vocab_spell(v, (unsigned char)word->data[s->start], out,
                              err);
  }
  return rc;
}


/* One merge workspace for all words: its arrays grow to the longest word and
 * are kept. */
int engine_bpe_encode(const struct engine_vocab *v, const char *text,
                      size_t size, struct engine_ids *out, drover_err *err) {
  struct engine_pre_walk walk = { .pre = v->pre, .text = text, .size = size };
  struct engine_merge merge = { 0 };
  size_t start;
  drover_text word;
  int rc = DROVER_OK;
  while (!rc && engine_pre_next(&walk, &start, &word.size)) {
    word.data = text + start;
    rc = encode_word(v, &merge, &word, out, err);
  }
  engine_merge_deinit(&merge);
  return rc;
}
