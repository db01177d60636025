/* mask: which tokens of a vocabulary a grammar lets follow.
 *
 * The tokens lie sorted by their bytes, each with how many it shares with the
 * one before, so one walk takes every prefix once and leaves a dead one at
 * its first byte; no pointers. Inside a string nearly all tokens pass: of those
 * that are whole plain characters the number is known, and only the others are
 * walked. Masks are kept for the states seen last.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_MASK_H
#define DROVER_ENGINE_MASK_H

#include "grammar.h"
#include "vocab.h"

enum {
  ENGINE_PIECE_MAX = 64,            /* bytes; longer tokens are not used */
  ENGINE_MASKS_KEPT = 16
};

struct engine_words {               /* tokens in the order of their bytes */
  uint32_t count;
  uint32_t *id, *start;             /* start: in `bytes` */
  unsigned char *size, *shared;     /* shared: with the one before */
  uint32_t first[257];              /* where each first byte begins */
};

struct engine_trie {                /* of a vocabulary; read-only once made */
  const struct engine_vocab *vocab;
  char    *bytes;                   /* of all tokens */
  struct engine_words all, rest;    /* rest: those that are not plain */
  unsigned char *chars;             /* by id: of a plain token its characters,
                                     * 0 of others */
  size_t   mask_words;              /* uint64_t of a bitmap */
};

struct engine_mask_kept {
  struct engine_state state;
  uint64_t *bits;                   /* NULL: none yet */
};

struct engine_mask {                /* one request's place in its grammar */
  const struct engine_trie *trie;
  struct engine_grammar *grammar;
  struct engine_state state;
  struct engine_mask_kept kept[ENGINE_MASKS_KEPT];
  uint32_t next;                    /* of `kept`, to be overwritten */
  uint64_t made, found;             /* masks that were walked; were kept */
};


int engine_trie_new(struct engine_trie **out, const struct engine_vocab *v,
                    drover_err *err);
void engine_trie_free(struct engine_trie *t);       /* takes NULL */


/* `json`: a schema, or NULL for any object. Errors as engine_grammar_new(). */
int engine_mask_new(struct engine_mask **out, const struct engine_trie *t,
                    const char *json, size_t size, drover_err *err);
void engine_mask_free(struct engine_mask *m);       /* takes NULL */


/* 1 when the token may come next. */
int engine_mask_allows(struct engine_mask *m, int32_t id);


/* The bitmap of all that may, by token id; holds until the next call. NULL:
 * no memory. */
const uint64_t *engine_mask_bits(struct engine_mask *m);


/* Take a token that was allowed. 1 when nothing else can follow. */
int engine_mask_take(struct engine_mask *m, int32_t id);

#endif
