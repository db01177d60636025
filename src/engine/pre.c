/* pre: the names, and the cuts that come before the rules: numbers one by one
 * (SINGLE_N), numbers in threes and then runs of Han and kana (DEEPSEEK), runs
 * of punctuation (DEFAULT); what is between is a text of its own to the
 * rules.
 *
 * SPDX-License-Identifier: MIT */
#include "pre.h"

#include <string.h>

#include "pre_rules.h"
#include "unicode.h"

static const struct engine_pre rows[] = {
  { "llama-bpe", RULES_CLASSES, 3, 1, 1 }, { "llama3", RULES_CLASSES, 3, 1, 1 },
  { "llama-v3", RULES_CLASSES, 3, 1, 1 },  { "falcon3", RULES_CLASSES, 3, 1, 1 },
  { "pixtral", RULES_CLASSES, 3, 1, 1 },   { "lfm2", RULES_CLASSES, 3, 1, 1 },
  { "smaug-bpe", RULES_CLASSES, 3, 0, 0 }, { "dbrx", RULES_CLASSES, 3, 0, 0 },
  { "chatglm-bpe", RULES_CLASSES, 3, 0, 0 },
  { "glm4", RULES_CLASSES, 3, 0, 0 },
  { "qwen2", RULES_CLASSES, 1, 0, 0 },     { "hunyuan", RULES_CLASSES, 1, 0, 0 },
  { "megrez", RULES_CLASSES, 1, 0, 0 },
  { "stablelm2", RULES_CLASSES, 1, 0, 0 },
  { "deepseek-r1-qwen", RULES_CLASSES, 1, 0, 0 },
  { "grok-2", RULES_CLASSES, 1, 0, 0 },
  { "solar-open", RULES_CLASSES, 1, 0, 0 },
  { "seed-coder", RULES_PLAIN_END, 1, 0, 0 },
  { "qwen35", RULES_MARKS, 1, 0, 0 },
  { "gpt-4o", RULES_CASED, 3, 0, 0 },      { "llama4", RULES_CASED, 3, 0, 0 },
  { "kanana2", RULES_CASED, 3, 0, 0 },
  { "tekken", RULES_TEKKEN, 1, 1, 1 },
  { "deepseek-v3", RULES_DEEPSEEK, 3, 0, 0 },
  { "hunyuan-dense", RULES_DEEPSEEK, 3, 0, 0 },
  { "joyai-llm", RULES_DEEPSEEK, 3, 0, 0 },
  { "gpt-2", RULES_GPT2, 0, 0, 0 },        { "phi-2", RULES_GPT2, 0, 0, 0 },
  { "olmo", RULES_GPT2, 0, 0, 0 },         { "mpt", RULES_GPT2, 0, 0, 0 },
  { "jais", RULES_GPT2, 0, 0, 0 },         { "exaone4", RULES_GPT2, 0, 0, 0 },
  { "gigachat", RULES_GPT2, 0, 0, 0 },     { "default", RULES_DEFAULT, 0, 0, 0 },
  { "starcoder", RULES_SINGLE_N, 0, 0, 0 },
  { "refact", RULES_SINGLE_N, 0, 0, 0 },
  { "command-r", RULES_SINGLE_N, 0, 0, 0 },
  { "smollm", RULES_SINGLE_N, 0, 0, 0 },
  { "codeshell", RULES_SINGLE_N, 0, 0, 0 },
  { "exaone", RULES_SINGLE_N, 0, 0, 0 },
  { "minerva-7b", RULES_SINGLE_N, 0, 0, 0 },
};

enum cut { CUT_NONE, CUT_NUMBER, CUT_HAN, CUT_SIGN };


/* By the name as it stands, case included. NULL is refused by the caller
 * with the name. */
const struct engine_pre *engine_pre_find(const char *name, size_t size) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (strlen(rows[i].name) == size && !memcmp(rows[i].name, name, size))
      return &rows[i];
  return NULL;
}


static enum cut sign(uint32_t code) {
  return engine_unicode_class(code) == ENGINE_CLASS_PUNCTUATION
    || (code && code < 0x80 && strchr("$+<=>^~|", (int)code)) ? CUT_SIGN
                                                              : CUT_NONE;
}


/* Which cut the character at `at` belongs to, and its bytes. DEEPSEEK's: U+4E00
 * to 9FA5, hiragana and katakana. */
static enum cut cut_at(const struct engine_pre_walk *w, size_t at,
                       size_t *size) {
  uint32_t code;
  *size = engine_unicode_decode(w->text + at, w->size - at, &code);
  if (w->pre->rules == RULES_DEFAULT)
    return sign(code);
  if (engine_unicode_class(code) == ENGINE_CLASS_NUMBER)
    return CUT_NUMBER;
  if (w->pre->rules == RULES_DEEPSEEK
      && ((code >= 0x4e00 && code <= 0x9fa5)
          || (code >= 0x3040 && code <= 0x30ff)))
    return CUT_HAN;
  return CUT_NONE;
}


/* The end of the piece that begins at `at`. *whole is 1 when it is a word. */
static size_t piece_end(const struct engine_pre_walk *w, size_t at,
                        int *whole) {
  size_t size, most = w->pre->rules == RULES_DEEPSEEK ? 3 : 1;
  enum cut cut = cut_at(w, at, &size);
  *whole = cut != CUT_NONE;
  if (cut != CUT_NUMBER)
    most = SIZE_MAX;
  for (size_t n = 0; at < w->size && n < most; n++) {
    if (cut_at(w, at, &size) != cut)
      break;
    at += size;
  }
  return at;
}


static int is_cut_first(const struct engine_pre *pre) {
  return pre->rules == RULES_SINGLE_N || pre->rules == RULES_DEEPSEEK
    || pre->rules == RULES_DEFAULT;
}


/* Every rule takes one character at least, so `at` moves and the walk ends. */
int engine_pre_next(struct engine_pre_walk *w, size_t *start, size_t *size) {
  int whole = 0;
  if (w->at >= w->size)
    return 0;
  if (w->at >= w->piece)
    w->piece = is_cut_first(w->pre) ? piece_end(w, w->at, &whole) : w->size;
  *start = w->at;
  w->at = whole ? w->piece : engine_pre_word(w, w->at);
  *size = w->at - *start;
  return 1;
}
