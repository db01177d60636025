/* grammar_put: operations, and what is made of them alone: numbers, literals.
 * grammar.c's tools.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_GRAMMAR_PUT_H
#define DROVER_ENGINE_GRAMMAR_PUT_H

#include "grammar_ops.h"

struct engine_maker {
  struct engine_grammar *g;
  const struct engine_schema *s;
  uint32_t any, number, integer;    /* rules behind the schema's own */
  int rc;                           /* the first error; then nothing is added */
};


/* Append one; its number, or 0 after an error. */
uint32_t engine_put(struct engine_maker *m, int kind, uint32_t a);


/* Bytes as they stand; one byte of a range; at most two blanks. */
void engine_put_bytes(struct engine_maker *m, const char *at, uint32_t size);
void engine_put_range(struct engine_maker *m, char lo, char hi);
void engine_put_blanks(struct engine_maker *m);


/* An operation whose `a` engine_put_land() sets, to where the program then
 * ends; with others of one chain, 0 at first. */
uint32_t engine_put_leave(struct engine_maker *m, int kind, unsigned need,
                          uint32_t *chain);
void engine_put_land(struct engine_maker *m, uint32_t chain);


/* The brackets of a body that takes `need`. */
uint32_t engine_put_repeat(struct engine_maker *m, uint32_t min, uint32_t max,
                           unsigned need);
void engine_put_again(struct engine_maker *m, uint32_t repeat);


void engine_put_integer(struct engine_maker *m);
void engine_put_number(struct engine_maker *m);


/* One of the literals of a node. */
void engine_put_texts(struct engine_maker *m, uint32_t node);

#endif
