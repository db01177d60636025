/* pre: see pre.h. The rules, at each position the first that matches:
 *
 *   CLASSES (llama 3, qwen 2)            GPT2
 *   1 ' and s t m d re ve ll, any case   1 the same, lower case only
 *   2 [not CR LF L N]? L+                2 space? L+
 *   3 N, `digits` at most                3 space? N+
 *   4 space? [not \s L N]+ [CR LF]*      4 space? [not \s L N]+
 *   5 \s* that ends in CR or LF          -
 *   6 whitespace, but for its last character when a word follows
 *   7 whitespace
 *
 * SINGLE_N cuts out each number first and treats what is between as texts of
 * their own, by GPT2. L and N are Unicode's letters and numbers.
 *
 * SPDX-License-Identifier: MIT */
#include "pre.h"

#include <string.h>

#include "unicode.h"

enum { CLASSES, GPT2, SINGLE_N };

static const struct engine_pre rows[] = {
  { "llama-bpe", CLASSES, 3, 1, 1 },     { "llama3", CLASSES, 3, 1, 1 },
  { "llama-v3", CLASSES, 3, 1, 1 },      { "falcon3", CLASSES, 3, 1, 1 },
  { "pixtral", CLASSES, 3, 1, 1 },       { "lfm2", CLASSES, 3, 1, 1 },
  { "smaug-bpe", CLASSES, 3, 0, 0 },     { "dbrx", CLASSES, 3, 0, 0 },
  { "chatglm-bpe", CLASSES, 3, 0, 0 },   { "glm4", CLASSES, 3, 0, 0 },
  { "qwen2", CLASSES, 1, 0, 0 },         { "hunyuan", CLASSES, 1, 0, 0 },
  { "megrez", CLASSES, 1, 0, 0 },        { "stablelm2", CLASSES, 1, 0, 0 },
  { "deepseek-r1-qwen", CLASSES, 1, 0, 0 },
  { "gpt-2", GPT2, 0, 0, 0 },            { "phi-2", GPT2, 0, 0, 0 },
  { "olmo", GPT2, 0, 0, 0 },             { "mpt", GPT2, 0, 0, 0 },
  { "jais", GPT2, 0, 0, 0 },             { "exaone4", GPT2, 0, 0, 0 },
  { "gigachat", GPT2, 0, 0, 0 },         { "default", GPT2, 0, 0, 0 },
  { "starcoder", SINGLE_N, 0, 0, 0 },    { "refact", SINGLE_N, 0, 0, 0 },
  { "command-r", SINGLE_N, 0, 0, 0 },    { "smollm", SINGLE_N, 0, 0, 0 },
  { "codeshell", SINGLE_N, 0, 0, 0 },    { "exaone", SINGLE_N, 0, 0, 0 },
  { "minerva-7b", SINGLE_N, 0, 0, 0 },
};

enum { END = -1 };                  /* the class past the end of the piece */


/* By the name as it stands, case included. NULL is refused by the caller
 * with the name. */
const struct engine_pre *engine_pre_find(const char *name, size_t size) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (strlen(rows[i].name) == size && !memcmp(rows[i].name, name, size))
      return &rows[i];
  return NULL;
}


/* The class at `at`, and the bytes that its character takes. */
static int class_at(const struct engine_pre_walk *w, size_t at, size_t *size) {
  uint32_t code;
  *size = 0;
  if (at >= w->piece)
    return END;
  *size = engine_unicode_decode(w->text + at, w->piece - at, &code);
  return engine_unicode_class(code);
}


static int is_other(int class) {    /* not(\s L N) */
  return class != END && class != ENGINE_CLASS_LETTER
    && class != ENGINE_CLASS_NUMBER && class != ENGINE_CLASS_SPACE;
}


static int is_newline(const struct engine_pre_walk *w, size_t at) {
  return at < w->piece && (w->text[at] == '\r' || w->text[at] == '\n');
}


/* The end of a run of one class, `most` characters at most (0: any). */
static size_t run_end(const struct engine_pre_walk *w, size_t at, int class,
                      int most) {
  size_t size;
  for (int n = 0; class_at(w, at, &size) == class && (!most || n < most); n++)
    at += size;
  return at;
}


/* The end of a run of what rule 4 takes. */
static size_t other_end(const struct engine_pre_walk *w, size_t at) {
  size_t size;
  while (is_other(class_at(w, at, &size)))
    at += size;
  return at;
}


/* The end of a contraction at `at`, or `at`. */
static size_t contraction_end(const struct engine_pre_walk *w, size_t at,
                              int any_case) {
  static const char *const tails[] = { "s", "t", "m", "d", "re", "ve", "ll" };
  if (w->text[at] != '\'')
    return at;
  for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
    size_t size = strlen(tails[i]), same = 0;
    if (size > w->piece - at - 1)
      continue;
    while (same < size
           && (w->text[at + 1 + same] | (any_case ? 0x20 : 0))
                == tails[i][same])
      same++;
    if (same == size)
      return at + 1 + size;
  }
  return at;
}


/* Rules 5 to 7 over the whitespace at `at`. */
static size_t space_end(const struct engine_pre_walk *w, size_t at,
                        int newlines) {
  size_t end = at, last = at, line = at, size;
  while (class_at(w, end, &size) == ENGINE_CLASS_SPACE) {
    last = end;
    end += size;
    if (is_newline(w, last))
      line = end;
  }
  if (newlines && line > at)
    return line;
  return end < w->piece && last > at ? last : end;
}


/* Rules 1 to 7 by the class of the first character. Rule 2's optional
 * character may be any but CR, LF, letter or number, also a blank that would
 * else go to rule 4, so it is looked at first. */
static size_t classes_end(const struct engine_pre_walk *w, size_t at) {
  size_t size, next, end = contraction_end(w, at, 1);
  if (end > at)
    return end;
  int class = class_at(w, at, &size);
  if (class == ENGINE_CLASS_LETTER)
    return run_end(w, at, class, 0);
  if (class == ENGINE_CLASS_NUMBER)
    return run_end(w, at, class, w->pre->digits);
  if (!is_newline(w, at)
      && class_at(w, at + size, &next) == ENGINE_CLASS_LETTER)
    return run_end(w, at + size, ENGINE_CLASS_LETTER, 0);
  size_t from = w->text[at] == ' ' ? at + 1 : at;
  end = other_end(w, from);
  if (end == from)
    return space_end(w, at, 1);
  while (is_newline(w, end))
    end++;
  return end;
}


/* As above with GPT-2's two differences: the optional character is a blank
 * and nothing else, and it also goes before a number. */
static size_t gpt2_end(const struct engine_pre_walk *w, size_t at) {
  size_t size, end = contraction_end(w, at, 0);
  if (end > at)
    return end;
  size_t from = w->text[at] == ' ' ? at + 1 : at;
  int class = class_at(w, from, &size);
  if (class == ENGINE_CLASS_LETTER || class == ENGINE_CLASS_NUMBER)
    return run_end(w, from, class, 0);
  end = other_end(w, from);
  return end > from ? end : space_end(w, at, 0);
}


/* Where the piece that begins at w->at ends: a number, or what comes before
 * the next. */
static void next_piece(struct engine_pre_walk *w) {
  size_t size, at = w->at;
  w->piece = w->size;
  if (w->pre->rules != SINGLE_N)
    return;
  if (class_at(w, at, &size) == ENGINE_CLASS_NUMBER) {
    w->piece = at + size;
    return;
  }
  int class = class_at(w, at, &size);
  while (class != END && class != ENGINE_CLASS_NUMBER) {
    at += size;
    class = class_at(w, at, &size);
  }
  w->piece = at;
}


/* Every rule takes one character at least, so `at` moves and the walk ends. */
int engine_pre_next(struct engine_pre_walk *w, size_t *start, size_t *size) {
  if (w->at >= w->size)
    return 0;
  if (w->at >= w->piece)
    next_piece(w);
  *start = w->at;
  w->at = w->pre->rules == CLASSES ? classes_end(w, w->at)
                                   : gpt2_end(w, w->at);
  *size = w->at - *start;
  return 1;
}
