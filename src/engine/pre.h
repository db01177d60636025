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

#endif
