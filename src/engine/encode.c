/* encode: a prompt into tokens, and tokens back into bytes. See vocab.h.
 *
 * Special tokens are found leftmost-longest, by narrowing a range of the
 * sorted list byte by byte. Between them, template text and content are one
 * text: words may cross from one into the other, as they do in training.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "vocab.h"

struct cursor {                     /* a prompt being encoded */
  const struct engine_vocab *v;
  const struct engine_prompt *p;
  size_t span;                      /* where `at` lies */
  int    lead;                      /* 1: first, or behind a special token */
};


/* Doubles from 64: prompts are as long as they are, and replies come a token
 * at a time. */
int engine_ids_add(struct engine_ids *ids, int32_t id) {
  if (ids->count == ids->room) {
    size_t room = ids->room ? ids->room * 2 : 64;
    int32_t *at = mem_realloc(ids->at, room * sizeof *at);
    if (!at)
      return DROVER_ENOMEM;
    ids->at = at;
    ids->room = room;
  }
  ids->at[ids->count++] = id;
  return DROVER_OK;
}


void engine_ids_deinit(struct engine_ids *ids) {
  mem_free(ids->at);
  memset(ids, 0, sizeof *ids);
}


/* SPM files have 256 byte tokens, BPE vocabularies all bytes as tokens; a
 * file that lacks some has `unknown`, and one without that cannot spell the
 * text at all. */
int engine_vocab_spell(const struct engine_vocab *v, unsigned char byte,
                       struct engine_ids *out, drover_err *err) {
  if (v->byte[byte] >= 0)
    return engine_ids_add(out, v->byte[byte]);
  if (v->unknown >= 0)
    return engine_ids_add(out, v->unknown);
  return drover_fail(err, DROVER_EBADREQUEST,
                     "the model has no token for byte 0x%02x", byte);
}


/* ---- special tokens ---- */

/* Byte `depth` of special token i, or -1 past its end. */
static int byte_at(const struct engine_vocab *v, uint32_t i, size_t depth) {
  size_t start = v->start[v->special[i]];
  size_t size = v->start[v->special[i] + 1] - start;
  return depth < size ? (unsigned char)v->bytes[start + depth] : -1;
}


/* The first of special tokens low..high-1 whose byte at `depth` is not below
 * `byte`. */
static uint32_t lower(const struct engine_vocab *v, uint32_t low,
                      uint32_t high, size_t depth, int byte) {
  while (low < high) {
    uint32_t mid = low + (high - low) / 2;
    if (byte_at(v, mid, depth) < byte)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}


/* The special tokens that begin with the first depth + 1 bytes of a text, out of
 * those that begin with the first `depth`. The first of them is returned when
 * it is no longer than that, else -1. */
static int32_t narrow(const struct engine_vocab *v, const char *text,
                      size_t depth, uint32_t *low, uint32_t *high) {
  int byte = (unsigned char)text[depth];
  *low = lower(v, *low, *high, depth, byte);
  *high = lower(v, *low, *high, depth, byte + 1);
  return *low < *high && byte_at(v, *low, depth + 1) < 0 ? v->special[*low]
                                                         : -1;
}


/* The longest special token that `at` begins with, or -1. In content only a
 * user-defined one; a control token ends inside its template span. */
static int32_t special_at(const struct cursor *c, size_t at) {
  const struct engine_vocab *v = c->v;
  const struct engine_span *span = &c->p->span[c->span];
  uint32_t low = 0, high = v->specials;
  int32_t found = -1;
  for (size_t depth = 0; at + depth < c->p->size && low < high; depth++) {
    int32_t id = narrow(v, c->p->text + at, depth, &low, &high);
    if (id >= 0 && (v->type[id] == ENGINE_TOKEN_USER
                    || (span->special && at + depth + 1 <= span->end)))
      found = id;
  }
  return found;
}


int engine_vocab_control_at(const struct engine_vocab *v, const char *text,
                            size_t size) {
  uint32_t low = 0, high = v->specials;
  for (size_t depth = 0; depth < size && low < high; depth++) {
    int32_t id = narrow(v, text, depth, &low, &high);
    if (id >= 0 && v->type[id] != ENGINE_TOKEN_USER)
      return 1;
  }
  return 0;
}


/* `lead` is only for the first piece of plain text and for one behind a
 * special token (SentencePiece's dummy prefix goes there and nowhere else). */
static int encode_plain(struct cursor *c, size_t from, size_t to,
                        struct engine_ids *out, drover_err *err) {
  const char *text = c->p->text + from;
  if (from == to)
    return DROVER_OK;
  int lead = c->lead;
  c->lead = 0;
  return c->v->kind == ENGINE_VOCAB_SPM
    ? engine_spm_encode(c->v, text, to - from, lead, out, err)
    : engine_bpe_encode(c->v, text, to - from, out, err);
}


/* The blanks behind a special token that takes them away: they were no part of
 * any text that a phi-3 was trained on. */
static size_t skip_blanks(const struct cursor *c, int32_t id, size_t at) {
  const char *text = c->v->bytes + c->v->start[id];
  size_t size = c->v->start[id + 1] - c->v->start[id];
  int keeps = size == 13 && !memcmp(text, "<|endoftext|>", 13);
  if (c->v->trims && id != c->v->bos && id != c->v->unknown && !keeps)
    while (at < c->p->size && strchr(" \t\n\v\f\r", c->p->text[at])
           && c->p->text[at])
      at++;
  return at;
}


/* `plain` is where the text begins that no special token has cut yet. Empty
 * spans are stepped over by the inner loop. */
static int encode_spans(struct cursor *c, struct engine_ids *out,
                        drover_err *err) {
  size_t plain = 0, at = 0;
  int rc = DROVER_OK;
  while (at < c->p->size && !rc) {
    while (at >= c->p->span[c->span].end)
      c->span++;
    int32_t id = special_at(c, at);
    if (id < 0) {
      at++;
      continue;
    }
    rc = encode_plain(c, plain, at, out, err);
    if (!rc)
      rc = engine_ids_add(out, id);
    at = skip_blanks(c, id, at + c->v->start[id + 1] - c->v->start[id]);
    plain = at;
    c->lead = 1;
  }
  return rc ? rc : encode_plain(c, plain, c->p->size, out, err);
}


/* The cap on the text comes first: symbols are numbered in 32 bits. */
int engine_vocab_encode(const struct engine_vocab *v,
                        const struct engine_prompt *p, int bos,
                        struct engine_ids *out, drover_err *err) {
  struct cursor c = { .v = v, .p = p, .lead = 1 };
  int rc = DROVER_OK;
  if (p->size > ENGINE_TEXT_MAX)
    return drover_fail(err, DROVER_ETOOLARGE, "a text of %zu bytes, at most %d",
                       p->size, ENGINE_TEXT_MAX);
  if (bos && v->add_bos)
    rc = engine_ids_add(out, v->bos);
  if (!rc)
    rc = encode_spans(&c, out, err);
  return rc == DROVER_ENOMEM
    ? drover_fail(err, rc, "no memory for the tokens of a text") : rc;
}


/* ---- back ---- */

int engine_vocab_ends(const struct engine_vocab *v, int32_t id) {
  return v->ends[id];
}


/* SentencePiece's U+2581 is a blank. */
static size_t blanks(const char *text, size_t size, char *to) {
  size_t used = 0;
  for (size_t at = 0; at < size; used++) {
    int blank = size - at >= 3 && !memcmp(text + at, "\xe2\x96\x81", 3);
    to[used] = blank ? ' ' : text[at];
    at += blank ? 3 : 1;
  }
  return used;
}


/* `to` has room for v->longest bytes, and no piece is longer than its
 * token's text. User-defined tokens are written as they stand, since their
 * text is not in the file's alphabet. */
size_t engine_vocab_piece(const struct engine_vocab *v, int32_t id, char *to) {
  const char *text = v->bytes + v->start[id];
  size_t size = v->start[id + 1] - v->start[id];
  switch (v->type[id]) {
  case ENGINE_TOKEN_CONTROL:
  case ENGINE_TOKEN_UNKNOWN:
    return 0;
  case ENGINE_TOKEN_BYTE:
    to[0] = text[0];                /* put there when it was loaded */
    return 1;
  case ENGINE_TOKEN_USER:
    memcpy(to, text, size);
    return size;
  default:
    if (v->kind == ENGINE_VOCAB_SPM)
      return blanks(text, size, to);
    memcpy(to, text, size);
    return size;
  }
}
