/* vocab: see vocab.h. Loading; encode.c turns prompts into tokens.
 *
 * SPDX-License-Identifier: MIT */
#include "vocab.h"

#include <inttypes.h>
#include <string.h>

#include "../base/err.h"
#include "../base/hash.h"
#include "../base/mem.h"


static int no_memory(drover_err *err) {
  return drover_fail(err, DROVER_ENOMEM, "no memory for a vocabulary");
}


/* ---- tokens and their texts ---- */

/* One block for all texts, an offset each: k->size also counts the strings'
 * eight-byte lengths, which leaves room. */
static int load_texts(struct engine_vocab *v, const struct engine_gguf_key *k,
                      drover_err *err) {
  const unsigned char *at = k->at;
  size_t used = 0;
  v->size = (uint32_t)k->count;
  v->bytes = mem_alloc(k->size);    /* lengths included: room enough */
  v->start = mem_calloc((size_t)v->size + 1, sizeof *v->start);
  v->type = mem_calloc(v->size, 1);
  v->ends = mem_calloc(v->size, 1);
  if (!v->bytes || !v->start || !v->type || !v->ends)
    return no_memory(err);
  for (uint32_t i = 0; i < v->size; i++) {
    drover_text text = engine_gguf_next(&at);
    if (text.size > ENGINE_TOKEN_MAX)
      return drover_fail(err, DROVER_EFORMAT,
                         "tokenizer.ggml.tokens[%" PRIu32 "] has %zu bytes, "
                         "at most %d", i, text.size, ENGINE_TOKEN_MAX);
    memcpy(v->bytes + used, text.data, text.size);
    v->start[i] = used;
    used += text.size;
    if (text.size > v->longest)
      v->longest = text.size;
  }
  v->start[v->size] = used;
  return DROVER_OK;
}


/* An optional array of the vocabulary's length; `out` is NULL without one. */
static int load_array(const struct engine_vocab *v,
                      const struct engine_gguf *g, const char *name,
                      uint32_t item, const unsigned char **out,
                      drover_err *err) {
  const struct engine_gguf_key *k;
  int rc = engine_gguf_array(g, name, item, &k, err);
  *out = NULL;
  if (rc)
    return rc == DROVER_ENOTFOUND ? DROVER_OK : rc;
  if (k->count != v->size)
    return drover_fail(err, DROVER_EFORMAT, "%s has %" PRIu64
                       " elements for %" PRIu32 " tokens", name, k->count,
                       v->size);
  *out = k->at;
  return DROVER_OK;
}


/* Old writers have 0 for tokens without a type: as normal. Without the array
 * all are. */
static int load_types(struct engine_vocab *v, const struct engine_gguf *g,
                      drover_err *err) {
  const unsigned char *types;
  int rc = load_array(v, g, "tokenizer.ggml.token_type", ENGINE_GGUF_I32,
                      &types, err);
  for (uint32_t i = 0; i < v->size && !rc; i++) {
    int32_t type = ENGINE_TOKEN_NORMAL;
    if (types)
      memcpy(&type, types + 4 * (size_t)i, sizeof type);
    if (type < 0 || type > ENGINE_TOKEN_BYTE)
      rc = drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.token_type[%"
                       PRIu32 "] is %" PRId32 ", 1 to 6 expected", i, type);
    else
      v->type[i] = (unsigned char)(type ? type : ENGINE_TOKEN_NORMAL);
  }
  return rc;
}


/* Only SPM merges by score; a NaN would have no place in its heap. */
static int load_scores(struct engine_vocab *v, const struct engine_gguf *g,
                       drover_err *err) {
  const unsigned char *scores;
  int rc = load_array(v, g, "tokenizer.ggml.scores", ENGINE_GGUF_F32, &scores,
                      err);
  if (rc || v->kind != ENGINE_VOCAB_SPM)
    return rc;
  if (!scores)
    return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.scores is missing");
  v->score = mem_alloc(v->size * sizeof *v->score);
  if (!v->score)
    return no_memory(err);
  memcpy(v->score, scores, v->size * sizeof *v->score);
  for (uint32_t i = 0; i < v->size; i++)
    if (v->score[i] != v->score[i])
      return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.scores[%" PRIu32
                         "] is not a number", i);
  return DROVER_OK;
}


/* ---- text to id ---- */

/* -1: no hexadecimal digit. */
static int hex(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}


/* The byte that "<0xNN>" stands for, or -1. */
static int spelled_byte(const char *text, size_t size) {
  if (size != 6 || memcmp(text, "<0x", 3) || text[5] != '>')
    return -1;
  int high = hex(text[3]), low = hex(text[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}


/* Open addressing at most half full, linear probing: a miss ends at the
 * first empty slot. */
int32_t engine_vocab_find(const struct engine_vocab *v, const char *text,
                          size_t size) {
  uint32_t i = (uint32_t)hash_bytes(0, text, size) & (v->slots - 1);
  for (; v->slot[i] >= 0; i = (i + 1) & (v->slots - 1)) {
    size_t start = v->start[v->slot[i]];
    if (v->start[v->slot[i] + 1] - start == size
        && !memcmp(v->bytes + start, text, size))
      return v->slot[i];
  }
  return -1;
}


/* Empty texts are never looked for and would match everywhere. */
static void add_text(struct engine_vocab *v, int32_t id) {
  const char *text = v->bytes + v->start[id];
  size_t size = v->start[id + 1] - v->start[id];
  if (!size || engine_vocab_find(v, text, size) >= 0)
    return;                         /* of equal texts the first one wins */
  uint32_t i = (uint32_t)hash_bytes(0, text, size) & (v->slots - 1);
  while (v->slot[i] >= 0)
    i = (i + 1) & (v->slots - 1);
  v->slot[i] = id;
}


/* BPE: words are bytes; control and user-defined tokens are spelled plainly. */
static void undo_spelling(struct engine_vocab *v) {
  size_t used = 0;
  for (uint32_t i = 0; i < v->size; i++) {
    char *text = v->bytes + v->start[i];
    size_t size = v->start[i + 1] - v->start[i];
    memmove(v->bytes + used, text, size);
    v->start[i] = used;
    long plain = -1;
    if (v->type[i] == ENGINE_TOKEN_NORMAL || v->type[i] == ENGINE_TOKEN_UNUSED)
      plain = engine_bpe_undo(v->bytes + used, size);
    used += plain < 0 ? size : (size_t)plain;
  }
  v->start[v->size] = used;
}


/* Byte tokens are found by their byte and not by the text "<0x41>", which a
 * user may type. Control and unknown tokens are in no index: nothing that is
 * plain text may become one. BPE has no byte tokens; there the text of one
 * byte is it. */
static int index_texts(struct engine_vocab *v, drover_err *err) {
  v->slots = 16;
  while (v->slots < 2 * v->size)
    v->slots *= 2;
  v->slot = mem_alloc(v->slots * sizeof *v->slot);
  if (!v->slot)
    return no_memory(err);
  memset(v->slot, 0xff, v->slots * sizeof *v->slot);
  memset(v->byte, 0xff, sizeof v->byte);
  for (uint32_t i = 0; i < v->size; i++) {
    char *text = v->bytes + v->start[i];
    size_t size = v->start[i + 1] - v->start[i];
    int byte = -1;
    if (v->type[i] == ENGINE_TOKEN_BYTE) {
      byte = spelled_byte(text, size);
      if (byte < 0)
        return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.tokens[%"
                           PRIu32 "]: %s is no byte token", i,
                           engine_gguf_show(text, size).text);
      if (v->byte[byte] < 0)
        v->byte[byte] = (int32_t)i;
      text[0] = (char)byte;         /* its bytes in a reply */
    } else if (v->type[i] != ENGINE_TOKEN_CONTROL
               && v->type[i] != ENGINE_TOKEN_UNKNOWN) {
      add_text(v, (int32_t)i);
    }
  }
  for (int b = 0; b < 256 && v->kind == ENGINE_VOCAB_BPE; b++) {
    char c = (char)b;
    v->byte[b] = engine_vocab_find(v, &c, 1);
  }
  return DROVER_OK;
}


/* ---- merges ---- */

/* The pair as one number: 16 bytes a slot, and no text is touched while
 * encoding. */
static uint32_t merge_slot(const struct engine_vocab *v, int32_t left,
                           int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  return (uint32_t)hash_mix(key) & (v->merges - 1);
}


/* NULL most of the time: few neighbours merge. */
const struct engine_merge_rank *engine_vocab_merge(
  const struct engine_vocab *v, int32_t left, int32_t right) {
  uint32_t i = merge_slot(v, left, right);
  for (; v->merge[i].id >= 0; i = (i + 1) & (v->merges - 1))
    if (v->merge[i].left == left && v->merge[i].right == right)
      return &v->merge[i];
  return NULL;
}


/* One rule "left right" into `m`: 0, or -1 when it is not made of tokens. */
static int read_merge(const struct engine_vocab *v, drover_text rule,
                      char *copy, struct engine_merge_rank *m) {
  const char *space = rule.size > 1
    ? memchr(rule.data + 1, ' ', rule.size - 1) : NULL;
  if (!space || rule.size > 2 * ENGINE_TOKEN_MAX)
    return -1;
  size_t left = (size_t)(space - rule.data), right = rule.size - left - 1;
  memcpy(copy, rule.data, left);
  memcpy(copy + left, space + 1, right);
  long a = engine_bpe_undo(copy, left);
  long b = engine_bpe_undo(copy + left, right);
  if (a <= 0 || b <= 0)
    return -1;
  memmove(copy + a, copy + left, (size_t)b);
  m->left = engine_vocab_find(v, copy, (size_t)a);
  m->right = engine_vocab_find(v, copy + a, (size_t)b);
  m->id = engine_vocab_find(v, copy, (size_t)(a + b));
  return m->left < 0 || m->right < 0 || m->id < 0 ? -1 : 0;
}


/* The rule's place in the list is its rank; of a pair that stands there
 * twice the first counts. `copy` has room for both halves of the longest
 * rule, spelled in the file's alphabet. read_merge() refuses rules that are
 * not made of tokens: they could never apply. */
static int load_merges(struct engine_vocab *v, const struct engine_gguf *g,
                       drover_err *err) {
  const struct engine_gguf_key *k = NULL;
  int rc = engine_gguf_array(g, "tokenizer.ggml.merges", ENGINE_GGUF_STRING,
                             &k, err);
  if (rc)
    return rc == DROVER_ENOTFOUND
      ? drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.merges is missing")
      : rc;
  v->merges = 16;
  while (v->merges < 2 * k->count)
    v->merges *= 2;
  v->merge = mem_alloc(v->merges * sizeof *v->merge);
  char *copy = mem_alloc(2 * ENGINE_TOKEN_MAX);
  if (!v->merge || !copy) {
    mem_free(copy);
    return no_memory(err);
  }
  memset(v->merge, 0xff, v->merges * sizeof *v->merge);
  const unsigned char *at = k->at;
  for (uint32_t rank = 0; rank < k->count && !rc; rank++) {
    struct engine_merge_rank m = { .rank = rank };
    drover_text rule = engine_gguf_next(&at);
    if (read_merge(v, rule, copy, &m)) {
      rc = drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.merges[%" PRIu32
                       "]: \"%s\" is not made of tokens", rank,
                       engine_gguf_show(rule.data, rule.size).text);
    } else if (!engine_vocab_merge(v, m.left, m.right)) {
      uint32_t i = merge_slot(v, m.left, m.right);
      while (v->merge[i].id >= 0)
        i = (i + 1) & (v->merges - 1);
      v->merge[i] = m;
    }
  }
  mem_free(copy);
  return rc;
}


/* ---- the whole ---- */

/* "llama" means SentencePiece, "gpt2" byte-level BPE, whatever the model. A
 * file without `pre` is old and was cut by GPT-2's rules; an unknown name is
 * refused, because other words give other tokens and worse answers. */
static int load_kind(struct engine_vocab *v, const struct engine_gguf *g,
                     drover_err *err) {
  drover_text model = { 0 }, pre = { "default", 7 };
  int rc = engine_gguf_text(g, "tokenizer.ggml.model", &model, err);
  if (rc)
    return rc == DROVER_ENOTFOUND
      ? drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.model is missing")
      : rc;
  struct engine_gguf_shown name = engine_gguf_show(model.data, model.size);
  v->kind = strcmp(name.text, "llama") ? ENGINE_VOCAB_BPE : ENGINE_VOCAB_SPM;
  if (v->kind == ENGINE_VOCAB_SPM)
    return DROVER_OK;
  if (strcmp(name.text, "gpt2"))
    return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.model %s is not "
                       "supported (llama and gpt2 are)", name.text);
  rc = engine_gguf_text(g, "tokenizer.ggml.pre", &pre, err);
  if (rc && rc != DROVER_ENOTFOUND)
    return rc;
  v->pre = engine_pre_find(pre.data, pre.size);
  return v->pre ? DROVER_OK
    : drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.pre %s is not supported",
                  engine_gguf_show(pre.data, pre.size).text);
}


/* In this order: BPE's spelling is undone before texts are indexed, because
 * merges and words are looked up as bytes, and types come before both,
 * because they say which texts are spelled so. */
static int load(struct engine_vocab *v, const struct engine_gguf *g,
                drover_err *err) {
  const struct engine_gguf_key *tokens = NULL;
  int rc = load_kind(v, g, err);
  if (!rc)
    rc = engine_gguf_array(g, "tokenizer.ggml.tokens", ENGINE_GGUF_STRING,
                           &tokens, err);
  if (rc == DROVER_ENOTFOUND || (!rc && tokens->count == 0))
    return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.tokens is missing");
  if (!rc && tokens->count > ENGINE_VOCAB_MAX)
    return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.tokens has %" PRIu64
                       " elements, at most %d", tokens->count,
                       ENGINE_VOCAB_MAX);
  if (!rc)
    rc = load_texts(v, tokens, err);
  if (!rc)
    rc = load_types(v, g, err);
  if (!rc)
    rc = load_scores(v, g, err);
  if (rc)
    return rc;
  if (v->kind == ENGINE_VOCAB_BPE)
    undo_spelling(v);
  rc = index_texts(v, err);
  if (!rc && v->kind == ENGINE_VOCAB_BPE)
    rc = load_merges(v, g, err);
  if (!rc)
    rc = engine_vocab_specials(v, err);
  return rc ? rc : engine_vocab_ids(v, g, err);
}


/* `*out` is NULL on an error. */
int engine_vocab_new(struct engine_vocab **out, const struct engine_gguf *g,
                     drover_err *err) {
  struct engine_vocab *v = mem_calloc(1, sizeof *v);
  int rc = v ? load(v, g, err) : no_memory(err);
  if (rc) {
    engine_vocab_free(v);
    v = NULL;
  }
  *out = v;
  return rc;
}


/* Takes half-built ones. */
void engine_vocab_free(struct engine_vocab *v) {
  if (!v)
    return;
  mem_free(v->bytes);
  mem_free(v->start);
  mem_free(v->type);
  mem_free(v->ends);
  mem_free(v->score);
  mem_free(v->slot);
  mem_free(v->merge);
  mem_free(v->special);
  mem_free(v->pattern);
  mem_free(v);
}
