/* special: the tokens of a vocabulary that are more than text: which ones are
 * parsed in a template, which one begins a prompt, which ones end a reply. See
 * vocab.h.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "vocab.h"


/* Texts that end a reply, whatever the keys say. */
static const char *const end_texts[] = {
  "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
  "<|end_of_text|>", "<|eom_id|>", "<EOT>", "</s>", "<|return|>", "<|call|>"
};
enum { END_TEXTS = sizeof end_texts / sizeof end_texts[0] };


static int is_text(const struct engine_vocab *v, uint32_t id,
                   const char *text) {
  size_t size = strlen(text);
  return v->start[id + 1] - v->start[id] == size
    && !memcmp(v->bytes + v->start[id], text, size);
}


static int is_end_text(const struct engine_vocab *v, uint32_t id) {
  for (int t = 0; t < END_TEXTS; t++)
    if (is_text(v, id, end_texts[t]))
      return 1;
  return 0;
}


/* Bytes first, the shorter of two that begin alike before the longer: what
 * special_at() (encode.c) narrows down. */
static int text_order(const struct engine_vocab *v, int32_t a, int32_t b) {
  size_t a_size = v->start[a + 1] - v->start[a];
  size_t b_size = v->start[b + 1] - v->start[b];
  int d = memcmp(v->bytes + v->start[a], v->bytes + v->start[b],
                 a_size < b_size ? a_size : b_size);
  return d ? d : (a_size > b_size) - (a_size < b_size);
}


/* By id where texts are equal: qsort_r() is not stable, and the first id
 * counts. */
static int order_special(const void *a, const void *b, void *vocab) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  int d = text_order(vocab, x, y);
  return d ? d : (x > y) - (x < y);
}


/* Control tokens, and what users of the file defined; also the unknown
 * token's text, which is a mark like the others. */
static int is_special(const struct engine_vocab *v, uint32_t id) {
  return (v->type[id] == ENGINE_TOKEN_CONTROL
          || v->type[id] == ENGINE_TOKEN_UNKNOWN
          || v->type[id] == ENGINE_TOKEN_USER)
    && v->start[id + 1] > v->start[id];
}


/* What ends a reply is a control token, also where the file calls it one of the
 * user's: those are parsed everywhere, and nobody's message may end a turn. */
static void claim_ends(struct engine_vocab *v) {
  for (uint32_t i = 0; i < v->size; i++)
    if (v->type[i] == ENGINE_TOKEN_USER && is_end_text(v, i))
      v->type[i] = ENGINE_TOKEN_CONTROL;
}


/* mem_alloc(0) gives a block too, so an empty list needs no case of its own. */
int engine_vocab_specials(struct engine_vocab *v, drover_err *err) {
  uint32_t count = 0, kept = 0;
  claim_ends(v);
  for (uint32_t i = 0; i < v->size; i++)
    count += (uint32_t)is_special(v, i);
  v->special = mem_alloc(count * sizeof *v->special);
  if (!v->special)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a vocabulary");
  for (uint32_t i = 0; i < v->size; i++)
    if (is_special(v, i))
      v->special[v->specials++] = (int32_t)i;
  if (count)
    qsort_r(v->special, count, sizeof *v->special, order_special, v);
  for (uint32_t i = 0; i < count; i++)      /* of equal texts the first id */
    if (!kept || text_order(v, v->special[kept - 1], v->special[i]))
      v->special[kept++] = v->special[i];
  v->specials = kept;
  return DROVER_OK;
}


/* A key that is missing leaves the default; one past the vocabulary is
 * refused, or the id would be an index out of it. */
static int load_id(const struct engine_vocab *v, const struct engine_gguf *g,
                   const char *name, int32_t *out, drover_err *err) {
  uint32_t id;
  int rc = engine_gguf_u32(g, name, &id, err);
  if (rc)
    return rc == DROVER_ENOTFOUND ? DROVER_OK : rc;
  if (id >= v->size)
    return drover_fail(err, DROVER_EFORMAT, "%s is %" PRIu32 " of %" PRIu32
                       " tokens", name, id, v->size);
  *out = (int32_t)id;
  return DROVER_OK;
}


/* Missing: the default of the vocabulary's kind stays. */
static int load_flag(const struct engine_gguf *g, const char *name, int *out,
                     drover_err *err) {
  int rc = engine_gguf_bool(g, name, out, err);
  return rc == DROVER_ENOTFOUND ? DROVER_OK : rc;
}


/* The control token of that text, or -1. */
static int32_t control(const struct engine_vocab *v, const char *text) {
  for (uint32_t i = 0; i < v->size; i++)
    if (v->type[i] == ENGINE_TOKEN_CONTROL && is_text(v, i, text))
      return (int32_t)i;
  return -1;
}


/* By text too, because files of chat models that were converted early name
 * only one of their two end tokens. Control tokens alone: a reply that
 * merely spells "</s>" goes on. In gpt-oss's dialect, which has "<|return|>"
 * and "<|call|>", "<|end|>" only ends one of a reply's parts. */
static void mark_ends(struct engine_vocab *v) {
  for (uint32_t i = 0; i < v->size; i++)
    if (v->type[i] == ENGINE_TOKEN_CONTROL && is_end_text(v, i))
      v->ends[i] = 1;
  int32_t part = control(v, "<|end|>");
  if (part >= 0 && control(v, "<|return|>") >= 0 && control(v, "<|call|>") >= 0)
    v->ends[part] = 0;
}


/* A copy, since the file is closed when its weights are loaded. */
static int load_pattern(struct engine_vocab *v, const struct engine_gguf *g,
                        drover_err *err) {
  drover_text text = { 0 };
  int rc = engine_gguf_text(g, "tokenizer.chat_template", &text, err);
  if (rc || !text.size)
    return rc == DROVER_ENOTFOUND ? DROVER_OK : rc;
  v->pattern = mem_alloc(text.size);
  if (!v->pattern)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a vocabulary");
  memcpy(v->pattern, text.data, text.size);
  v->pattern_size = text.size;
  return DROVER_OK;
}


/* Defaults by kind, as the format's readers have them; a key that is present
 * always wins. "seperator" is how the format spells it. Padding and
 * separator are read only to be checked. */
int engine_vocab_ids(struct engine_vocab *v, const struct engine_gguf *g,
                     drover_err *err) {
  int spm = v->kind == ENGINE_VOCAB_SPM;
  int32_t turn = -1, message = -1, padding = -1, separator = -1;
  v->bos = spm && v->size > 1 ? 1 : -1;     /* SentencePiece's own numbers */
  v->eos = spm && v->size > 2 ? 2 : -1;
  v->unknown = spm ? 0 : -1;
  v->add_bos = spm || v->pre->add_bos;
  v->space_prefix = spm;
  const struct { const char *name; int32_t *to; } ids[] = {
    { "tokenizer.ggml.bos_token_id", &v->bos },
    { "tokenizer.ggml.eos_token_id", &v->eos },
    { "tokenizer.ggml.eot_token_id", &turn },
    { "tokenizer.ggml.eom_token_id", &message },
    { "tokenizer.ggml.unknown_token_id", &v->unknown },
    { "tokenizer.ggml.padding_token_id", &padding },
    { "tokenizer.ggml.seperator_token_id", &separator },
  };
  int rc = DROVER_OK;
  for (size_t i = 0; i < sizeof ids / sizeof ids[0] && !rc; i++)
    rc = load_id(v, g, ids[i].name, ids[i].to, err);
  if (!rc)
    rc = load_flag(g, "tokenizer.ggml.add_bos_token", &v->add_bos, err);
  if (!rc)
    rc = load_flag(g, "tokenizer.ggml.add_space_prefix", &v->space_prefix,
                   err);
  if (rc)
    return rc;
  if (v->add_bos && v->bos < 0)
    return drover_fail(err, DROVER_EFORMAT, "tokenizer.ggml.add_bos_token is "
                       "set and there is no bos_token_id");
  drover_text arch = { 0 };
  if (engine_gguf_text(g, "general.architecture", &arch, NULL) == DROVER_OK)
    v->trims = arch.size == 4 && !memcmp(arch.data, "phi3", 4);
  const int32_t ends[] = { v->eos, turn, message };
  for (int i = 0; i < 3; i++)
    if (ends[i] >= 0)
      v->ends[ends[i]] = 1;
  mark_ends(v);
  return load_pattern(v, g, err);
}
