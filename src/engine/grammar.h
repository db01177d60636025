/* grammar: a schema as an automaton over bytes, with a stack of its own. It
 * knows no tokens (mask.h) and no model.
 *
 * A program of small operations; threads run it side by side where more than
 * one reading is open, at most ENGINE_READINGS_MAX. A thread is a place in the
 * program and a stack; stacks are chains of frames, each kept once, so that
 * equal states are equal bytes.
 *
 *   {"a": 1, "b": "x"}     object: bytes, inline
 *                          number, $ref, any value: CALL a rule, RET
 *                          [ … ], bounded strings: REPEAT … AGAIN, counted
 *
 * No thread ever enters what it cannot leave: a branch that needs more frames
 * than are left is not taken, and every branch was measured (schema_need.c).
 * Dropping a thread makes the language smaller, never wrong. White space is
 * at most two blanks or line ends where JSON allows it behind the first byte;
 * object members come in the schema's order; numbers have at most 15 digits
 * on each side of the point and 2 of exponent.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_GRAMMAR_H
#define DROVER_ENGINE_GRAMMAR_H

#include "grammar_ops.h"


/* Of a schema, or with NULL of any JSON object. Errors as
 * engine_schema_new(). */
int engine_grammar_new(struct engine_grammar **out, const char *json,
                       size_t size, drover_err *err);
void engine_grammar_free(struct engine_grammar *g);     /* takes NULL */


/* ---- automaton.c ---- */

/* The state before the first byte. */
void engine_grammar_start(struct engine_grammar *g, struct engine_state *to);


/* Take a byte: returns how many threads live on in `to`, which may not be
 * `from`. */
uint32_t engine_grammar_step(struct engine_grammar *g,
                             const struct engine_state *from,
                             unsigned char byte, struct engine_state *to);


/* 1 when the value may end here; 2 when nothing else can follow. */
int engine_grammar_done(const struct engine_state *s);


/* How many characters a string that is open between two of them may still
 * take, at most ENGINE_CHARS_AHEAD. 0: none is open, or other readings than
 * strings could take more. */
uint32_t engine_grammar_room(const struct engine_grammar *g,
                             const struct engine_state *s);


/* Forget all stacks but a state's, which is renumbered, once half of the
 * frames are in use. 1 when that was done: no other state holds any more. */
int engine_grammar_tidy(struct engine_grammar *g, struct engine_state *s);

#endif
