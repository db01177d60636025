/* vocab: the tokens of a model, texts to ids and ids to bytes.
 *
 *   prompt (spans) -> special tokens cut out -> bpe | spm over what is between
 *
 * Tokens are bytes: what a file spells in an alphabet of its own (GPT-2's
 * bytes, SentencePiece's U+2581) is undone when it is loaded or printed.
 * Special tokens are recognised only inside template spans of a prompt,
 * user-defined ones everywhere, so what a user writes is never a control
 * token. Read-only once loaded: any thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_VOCAB_H
#define DROVER_ENGINE_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"
#include "gguf.h"
#include "pre.h"

enum {
  ENGINE_VOCAB_MAX = 1 << 20,       /* tokens */
  ENGINE_TOKEN_MAX = 64 << 10,      /* bytes of one token */
  ENGINE_TEXT_MAX = 64 << 20        /* bytes of a text to tokenize */
};

enum engine_vocab_kind { ENGINE_VOCAB_SPM, ENGINE_VOCAB_BPE };

enum engine_token_type {            /* as GGUF numbers them */
  ENGINE_TOKEN_NORMAL = 1, ENGINE_TOKEN_UNKNOWN, ENGINE_TOKEN_CONTROL,
  ENGINE_TOKEN_USER, ENGINE_TOKEN_UNUSED, ENGINE_TOKEN_BYTE
};

struct engine_merge_rank {          /* two tokens that merge; id -1: empty */
  int32_t  left, right, id;
  uint32_t rank;
};

struct engine_vocab {
  enum engine_vocab_kind kind;
  const struct engine_pre *pre;     /* BPE: how words are cut */
  uint32_t size;                    /* tokens */
  char    *bytes;                   /* of all tokens, one after the other */
  size_t  *start;                   /* [size + 1] in bytes */
  unsigned char *type;              /* [size] enum engine_token_type */
  unsigned char *ends;              /* [size] 1: ends a reply */
  float   *score;                   /* [size], SPM */
  int32_t *slot;                    /* text -> id, open addressing; -1 empty */
  uint32_t slots;                   /* a power of two */
  struct engine_merge_rank *merge;  /* BPE, open addressing */
  uint32_t merges;                  /* a power of two */
  int32_t *special;                 /* ids, sorted by their bytes */
  uint32_t specials;
  int32_t  byte[256];               /* the token of each byte, or -1 */
  int32_t  bos, eos, unknown;       /* or -1 */
  int      add_bos, space_prefix;
  int      trims;                   /* phi-3: special tokens, but bos, unknown
                                     * and "<|endoftext|>", take the blanks
                                     * behind them */
  size_t   longest;                 /* bytes of the longest token */
  char    *pattern;                 /* the chat template, owned; or NULL */
  size_t   pattern_size;
};

struct engine_ids {                 /* zeroed by the caller */
  int32_t *at;
  size_t   count, room;
};

struct engine_span {                /* of a prompt */
  size_t end;                       /* in the prompt; where the next begins */
  int    special;                   /* 1: template, special tokens are parsed */
};

struct engine_prompt {
  const char *text;
  size_t size;
  const struct engine_span *span;   /* the last ends at `size` */
  size_t spans;
};


/* From a file's tokenizer keys, all checked. */
int engine_vocab_new(struct engine_vocab **out, const struct engine_gguf *g,
                     drover_err *err);
void engine_vocab_free(struct engine_vocab *v);     /* takes NULL */


/* The token that is spelled so, control tokens and bytes left out; or -1. */
int32_t engine_vocab_find(const struct engine_vocab *v, const char *text,
                          size_t size);


/* How two tokens merge, or NULL. */
const struct engine_merge_rank *engine_vocab_merge(
  const struct engine_vocab *v, int32_t left, int32_t right);


/* Append the tokens of a prompt. `bos`: with one in front, if the model wants
 * it. DROVER_ETOOLARGE past ENGINE_TEXT_MAX; DROVER_EBADREQUEST when the
 * vocabulary cannot spell a byte. */
int engine_vocab_encode(const struct engine_vocab *v,
                        const struct engine_prompt *p, int bos,
                        struct engine_ids *out, drover_err *err);


/* 1 when the text begins with the spelling of a special token that is not
 * user-defined. */
int engine_vocab_control_at(const struct engine_vocab *v, const char *text,
                            size_t size);


/* The bytes of a token in a reply: none for control and unknown tokens.
 * Writes at most v->longest bytes, returns how many. */
size_t engine_vocab_piece(const struct engine_vocab *v, int32_t id, char *to);


/* 1 when the token ends a reply. */
int engine_vocab_ends(const struct engine_vocab *v, int32_t id);


/* Append an id; 0 or DROVER_ENOMEM. */
int engine_ids_add(struct engine_ids *ids, int32_t id);
void engine_ids_deinit(struct engine_ids *ids);


/* ---- loading: special.c's part of engine_vocab_new() ---- */

/* The sorted list of special tokens, behind types and texts; then the numbers
 * that the file's keys name, and what ends a reply. */
int engine_vocab_specials(struct engine_vocab *v, drover_err *err);
int engine_vocab_ids(struct engine_vocab *v, const struct engine_gguf *g,
                     drover_err *err);


/* ---- the two kinds: pieces of plain text, called by encode ---- */

/* bpe.c; spm.c. `lead`: put SPM's blank in front, where the file wants it. */
int engine_bpe_encode(const struct engine_vocab *v, const char *text,
                      size_t size, struct engine_ids *out, drover_err *err);
int engine_spm_encode(const struct engine_vocab *v, const char *text,
                      size_t size, int lead, struct engine_ids *out,
                      drover_err *err);


/* bpe.c: undo GPT-2's spelling of `size` bytes in place. Returns the new
 * size, or -1 when a character is none of that alphabet's. */
long engine_bpe_undo(char *text, size_t size);


/* A byte without a token of its own: unknown, or DROVER_EBADREQUEST. */
int engine_vocab_spell(const struct engine_vocab *v, unsigned char byte,
                       struct engine_ids *out, drover_err *err);

#endif
