/* pre: cutting a text into words before byte-level BPE, by the rules that
 * `tokenizer.ggml.pre` names. Written out by hand, one pass, no regular
 * expressions. Pure.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_PRE_H
#define DROVER_ENGINE_PRE_H

#include <stddef.h>

struct engine_pre {                 /* one row a name */
  const char *name;                 /* as the file spells it */
  int rules;                        /* enum in pre.c */
  int digits;                       /* numbers in one word, at most */
  int whole_words;                  /* a word that is a token is not merged */
  int add_bos;                      /* when the file does not say */
};

struct engine_pre_walk {            /* a text being cut */
  const struct engine_pre *pre;
  const char *text;
  size_t at, piece, size;           /* next word; ends of piece and text */
};


/* The row of a name, or NULL. */
const struct engine_pre *engine_pre_find(const char *name, size_t size);


/* The next word's start and size; 0 at the end. */
int engine_pre_next(struct engine_pre_walk *w, size_t *start, size_t *size);


/* ---- pre_scan.c: what the rules look at; ends are offsets, at most
 * w->piece ---- */

enum { ENGINE_PRE_END = -1 };       /* the class past the end of the piece */


/* The class at `at` (enum engine_class, letters with their case), and the bytes
 * that its character takes. */
int engine_pre_class(const struct engine_pre_walk *w, size_t at, size_t *size);


/* A set of classes, bit 1 << class. */
enum {
  ENGINE_PRE_LETTERS = 1 << 1 | 1 << 7 | 1 << 8, ENGINE_PRE_NUMBERS = 1 << 2,
  ENGINE_PRE_MARKS = 1 << 5, ENGINE_PRE_SPACES = 1 << 6
};
int engine_pre_in(int class, unsigned set);


/* The end of a run of characters of a set, `most` at most (0: any). */
size_t engine_pre_run(const struct engine_pre_walk *w, size_t at, unsigned set,
                      int most);


int engine_pre_newline(const struct engine_pre_walk *w, size_t at);


/* The end of a contraction ('s, 've …) at `at`, or `at`. */
size_t engine_pre_contraction(const struct engine_pre_walk *w, size_t at,
                              int any_case);


/* The end of the whitespace at `at`: up to its last CR or LF (where `newlines`
 * count), else all but its last character when something follows. */
size_t engine_pre_space(const struct engine_pre_walk *w, size_t at,
                        int newlines);


/* ---- pre_word.c: the end of the word at `at`, by each kind of rules ---- */

size_t engine_pre_word(const struct engine_pre_walk *w, size_t at);

#endif
