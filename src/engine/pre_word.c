/* pre_word: the rules. At each position the first that matches, greedy:
 *
 *   CLASSES (llama 3, qwen 2)            GPT2
 *   1 ' and s t m d re ve ll, any case   1 the same, lower case only
 *   2 [not CR LF L N]? L+                2 space? L+
 *   3 N, `digits` at most                3 space? N+
 *   4 space? [not \s L N]+ [CR LF]*      4 space? [not \s L N]+
 *   5 \s* that ends in CR or LF          -
 *   6 whitespace, but for its last character when something follows
 *   7 whitespace
 *
 * MARKS is CLASSES with marks among the letters of 2 and 4; PLAIN_END is
 * CLASSES whose rule 4 takes no newlines. CASED (gpt-4o) has words that end
 * where lower case turns to upper in place of 1 and 2, with the contraction
 * behind the word, and `/` among the newlines of 4; TEKKEN is CASED without
 * contractions. U = upper, title, modifier and other letters and marks, W =
 * lower, modifier and other letters and marks:
 *
 *   2 [not CR LF L N]? (U* W+ | U+ W*) contraction?
 *
 * DEEPSEEK (behind cuts at numbers and at Han and kana, see pre.c):
 *
 *   2 ASCII punctuation, A-Z a-z+        4 space? [P S]+ [CR LF]*
 *   3 [not CR LF L P S]? [L M]+          5 to 7 as above
 *
 * DEFAULT (files that name none; behind a cut at punctuation) is GPT2, but that
 * no blank leads a number, and ASCII digits stand in threes.
 *
 * What no rule takes stands by itself, up to where one does.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "pre.h"
#include "pre_rules.h"
#include "unicode.h"

enum {
  PUNCTUATION = 1 << ENGINE_CLASS_PUNCTUATION,
  SYMBOLS = 1 << ENGINE_CLASS_SYMBOL,
  OTHERS = 1 << ENGINE_CLASS_OTHER,
  NO_CASE = 1 << ENGINE_CLASS_LETTER | ENGINE_PRE_MARKS,
  UPPERS = NO_CASE | 1 << ENGINE_CLASS_UPPER,
  LOWERS = NO_CASE | 1 << ENGINE_CLASS_LOWER,
  NOT_WORDS = OTHERS | PUNCTUATION | SYMBOLS | ENGINE_PRE_MARKS
};


/* Rule 4: a blank may lead; newlines (and `/`) may follow. `at` when there is
 * nothing of the set. */
static size_t signs(const struct engine_pre_walk *w, size_t at, unsigned set,
                    const char *tail) {
  size_t from = w->text[at] == ' ' ? at + 1 : at;
  size_t end = engine_pre_run(w, from, set, 0);
  if (end == from)
    return at;
  while (end < w->piece && w->text[end] && strchr(tail, w->text[end]))
    end++;
  return end;
}


/* ---- CLASSES ---- */

/* Rule 2's optional character may be any but CR, LF, letter or number, also a
 * blank that would else go to rule 4, so it is looked at first. */
static size_t classes(const struct engine_pre_walk *w, size_t at) {
  int rules = w->pre->rules;
  unsigned letters = ENGINE_PRE_LETTERS, rest = NOT_WORDS;
  if (rules == RULES_MARKS) {
    letters |= ENGINE_PRE_MARKS;
    rest &= ~(unsigned)ENGINE_PRE_MARKS;
  }
  size_t size, end = engine_pre_contraction(w, at, 1);
  if (end > at)
    return end;
  int class = engine_pre_class(w, at, &size);
  if (engine_pre_in(class, ENGINE_PRE_NUMBERS))
    return engine_pre_run(w, at, ENGINE_PRE_NUMBERS, w->pre->digits);
  if (!engine_pre_newline(w, at) && !engine_pre_in(class, ENGINE_PRE_LETTERS)) {
    end = engine_pre_run(w, at + size, letters, 0);
    if (end > at + size)
      return end;
  }
  end = engine_pre_run(w, at, letters, 0);
  if (end == at)
    end = signs(w, at, rest, rules == RULES_PLAIN_END ? "" : "\r\n");
  return end > at ? end : engine_pre_space(w, at, 1);
}


/* ---- GPT2 ---- */

static size_t gpt2(const struct engine_pre_walk *w, size_t at) {
  size_t size, end = engine_pre_contraction(w, at, 0);
  if (end > at)
    return end;
  size_t from = w->text[at] == ' ' ? at + 1 : at;
  int class = engine_pre_class(w, from, &size);
  if (engine_pre_in(class, ENGINE_PRE_LETTERS))
    return engine_pre_run(w, from, ENGINE_PRE_LETTERS, 0);
  if (engine_pre_in(class, ENGINE_PRE_NUMBERS))
    return engine_pre_run(w, from, ENGINE_PRE_NUMBERS, 0);
  end = signs(w, at, NOT_WORDS, "");
  return end > at ? end : engine_pre_space(w, at, 0);
}


/* ---- DEFAULT ---- */

static int three_digits(const struct engine_pre_walk *w, size_t at) {
  for (size_t i = at; i < at + 3; i++)
    if (i >= w->piece || w->text[i] < '0' || w->text[i] > '9')
      return 0;
  return 1;
}


static size_t plain(const struct engine_pre_walk *w, size_t at) {
  size_t size, end = at, from = w->text[at] == ' ' ? at + 1 : at;
  if (!engine_pre_in(engine_pre_class(w, from, &size), ENGINE_PRE_NUMBERS))
    return gpt2(w, at);
  if (from > at)
    return from;
  if (three_digits(w, at))
    return at + 3;
  while (engine_pre_in(engine_pre_class(w, end, &size), ENGINE_PRE_NUMBERS)
         && !three_digits(w, end))
    end += size;
  return end;
}


/* ---- CASED ---- */

/* U* W+ from `at`, or `at`: U* gives back as little as leaves one W. Where the
 * run of U does not end before a W, its last W is the end. */
static size_t down(const struct engine_pre_walk *w, size_t at) {
  size_t size, end = at, last = at;
  int class;
  while (engine_pre_in(class = engine_pre_class(w, end, &size), UPPERS)) {
    end += size;
    if (engine_pre_in(class, LOWERS))
      last = end;
  }
  return engine_pre_in(class, LOWERS) ? engine_pre_run(w, end, LOWERS, 0)
                                      : last;
}


/* U+ W* from `at`, or `at`. */
static size_t up(const struct engine_pre_walk *w, size_t at) {
  size_t end = engine_pre_run(w, at, UPPERS, 0);
  return end > at ? engine_pre_run(w, end, LOWERS, 0) : at;
}


/* Either, first with the optional character in front, then without. */
static size_t cased_word(const struct engine_pre_walk *w, size_t at,
                         size_t (*word)(const struct engine_pre_walk *,
                                        size_t)) {
  size_t size;
  int class = engine_pre_class(w, at, &size);
  if (!engine_pre_newline(w, at)
      && !engine_pre_in(class, ENGINE_PRE_LETTERS | ENGINE_PRE_NUMBERS)) {
    size_t end = word(w, at + size);
    if (end > at + size)
      return end;
  }
  return word(w, at);
}


static size_t cased(const struct engine_pre_walk *w, size_t at) {
  size_t size, end = cased_word(w, at, down);
  if (end == at)
    end = cased_word(w, at, up);
  if (end > at)
    return w->pre->rules == RULES_TEKKEN ? end
                                         : engine_pre_contraction(w, end, 1);
  if (engine_pre_in(engine_pre_class(w, at, &size), ENGINE_PRE_NUMBERS))
    return engine_pre_run(w, at, ENGINE_PRE_NUMBERS, w->pre->digits);
  end = signs(w, at, NOT_WORDS, "\r\n/");
  return end > at ? end : engine_pre_space(w, at, 1);
}


/* ---- DEEPSEEK ---- */

static int ascii_sign(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@')
    || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}


static int ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}


/* Rules 2 to 5, or `at` where none takes anything. */
static size_t deepseek_word(const struct engine_pre_walk *w, size_t at) {
  unsigned letters = ENGINE_PRE_LETTERS | ENGINE_PRE_MARKS;
  unsigned lead = letters | PUNCTUATION | SYMBOLS;
  size_t size, end = at + 1;
  if (ascii_sign(w->text[at]) && end < w->piece && ascii_letter(w->text[end])) {
    while (end < w->piece && ascii_letter(w->text[end]))
      end++;
    return end;
  }
  int class = engine_pre_class(w, at, &size);
  if (!engine_pre_newline(w, at)
      && !engine_pre_in(class, lead & ~(unsigned)ENGINE_PRE_MARKS)) {
    end = engine_pre_run(w, at + size, letters, 0);
    if (end > at + size)
      return end;
  }
  end = engine_pre_run(w, at, letters, 0);
  if (end == at)
    end = signs(w, at, PUNCTUATION | SYMBOLS, "\r\n");
  return end > at ? end : engine_pre_space(w, at, 1);
}


static size_t deepseek(const struct engine_pre_walk *w, size_t at) {
  size_t end = at, size;
  while (end < w->piece && deepseek_word(w, end) == end) {
    engine_pre_class(w, end, &size);
    end += size;
  }
  return end > at ? end : deepseek_word(w, at);
}


/* Each takes one character at least. */
size_t engine_pre_word(const struct engine_pre_walk *w, size_t at) {
  switch (w->pre->rules) {
  case RULES_GPT2: case RULES_SINGLE_N:
    return gpt2(w, at);
  case RULES_CASED: case RULES_TEKKEN:
    return cased(w, at);
  case RULES_DEEPSEEK:
    return deepseek(w, at);
  case RULES_DEFAULT:
    return plain(w, at);
  default:
    return classes(w, at);
  }
}
