/* grammar_ops: a grammar's program and its states. See grammar.h for how it
 * runs.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_GRAMMAR_OPS_H
#define DROVER_ENGINE_GRAMMAR_OPS_H

#include "schema_tree.h"

enum {
  ENGINE_READINGS_MAX = 64,
  ENGINE_OPS_MAX = 1 << 18,
  ENGINE_FRAMES_MAX = 1 << 13,
  ENGINE_CHARS_AHEAD = 32           /* see engine_grammar_room() */
};

enum engine_op_kind {
  ENGINE_OP_DONE,                   /* op 0: the value is whole */
  ENGINE_OP_BYTE,                   /* lo..hi */
  ENGINE_OP_BLANK, ENGINE_OP_EXPONENT, ENGINE_OP_SIGN,
  ENGINE_OP_TEXT,                   /* a string's inside and its end quote */
  ENGINE_OP_CHAR,                   /* one character of a string */
  ENGINE_OP_BRANCH,                 /* branch[a .. a + b) by the byte */
  /* those above take a byte; those below take none */
  ENGINE_OP_TRY,                    /* also go on at `a`, if `need` fits */
  ENGINE_OP_JUMP,                   /* to `a` */
  ENGINE_OP_CALL,                   /* rule `a`, which takes `need` */
  ENGINE_OP_RET,
  ENGINE_OP_REPEAT,                 /* body behind it; the next time from `a`;
                                     * behind the last at `b` */
  ENGINE_OP_AGAIN,
  ENGINE_OP_FAIL
};

struct engine_op {
  unsigned char kind, lo, hi, need;
  uint32_t a, b, min, max;
};

struct engine_branch { unsigned char byte; uint32_t to; };

struct engine_frame {               /* of a stack; 0 is the empty one */
  uint32_t parent, op, count, depth;
};

struct engine_thread {
  uint32_t op;                      /* and, in the upper byte, the place
                                     * inside a character (TEXT, CHAR) */
  uint32_t stack;
};

struct engine_state {
  uint32_t count;                   /* 0: nothing can follow */
  struct engine_thread thread[ENGINE_READINGS_MAX];
};

struct engine_grammar {             /* one request's; one thread at a time */
  struct engine_op *op;
  uint32_t ops, op_room;
  struct engine_branch *branch;
  uint32_t branches, branch_room;
  uint32_t rule[ENGINE_SCHEMA_RULES_MAX + 3];   /* where each begins */
  struct engine_frame *frame;       /* [ENGINE_FRAMES_MAX] */
  uint32_t frames;
  uint32_t *slot;                   /* frame by content; 0: empty */
};

#endif
