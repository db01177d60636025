/* Fuzzes schemas and their automata. The input is a schema, a 0xff byte, and
 * choices. Wanted: a schema that is taken has a text, found by walking the
 * automaton with the choices (closing as soon as they are used up), and that
 * text is JSON; no walk gets stuck; a text that the automaton of any object
 * takes is JSON, and an object, and short ones that are JSON are only refused
 * for their white space or numbers. All memory is given back.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "drover.h"
#include "engine/grammar.h"

enum { TEXT_MAX = 16384 };

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


/* The next byte that the automaton lets follow, from `start` on. */
static int next_byte(struct engine_grammar *g, const struct engine_state *s,
                     unsigned start, struct engine_state *to) {
  for (unsigned i = 0; i < 256; i++) {
    unsigned char byte = (unsigned char)(start + i);
    if (engine_grammar_step(g, s, byte, to))
      return byte;
  }
  return -1;
}


/* Bytes that end things, in the order in which they are tried. */
static int closing_byte(struct engine_grammar *g, const struct engine_state *s,
                        struct engine_state *to) {
  static const char closers[] = "\"}]0:";
  for (const char *p = closers; *p; p++)
    if (engine_grammar_step(g, s, (unsigned char)*p, to))
      return (unsigned char)*p;
  return next_byte(g, s, 0x21, to);
}


static void walk(struct engine_grammar *g, const unsigned char *choice,
                 size_t choices) {
  static char text[TEXT_MAX];
  struct engine_state s, to;
  size_t size = 0;
  engine_grammar_start(g, &s);
  must(s.count > 0);
  while (size < TEXT_MAX) {
    int done = engine_grammar_done(&s), used = size >= choices, byte;
    if (done == 2 || (done && used))
      break;
    byte = used ? closing_byte(g, &s, &to)
                : next_byte(g, &s, choice[size], &to);
    must(byte >= 0);                /* what is not done goes on */
    text[size++] = (char)byte;
    s = to;
    engine_grammar_tidy(g, &s);
  }
  must(size == TEXT_MAX || drover_json_check(text, size, NULL) == 0);
}


/* 1 when the automaton takes all of a text as a whole value. */
static int takes(struct engine_grammar *g, const unsigned char *text,
                 size_t size) {
  struct engine_state s, to;
  engine_grammar_start(g, &s);
  for (size_t i = 0; i < size; i++) {
    if (!engine_grammar_step(g, &s, text[i], &to))
      return 0;
    s = to;
    engine_grammar_tidy(g, &s);
  }
  return engine_grammar_done(&s) > 0;
}


/* Texts with blanks, digits, escapes or depth may be refused though they are
 * JSON; all others that are objects may not. */
static int is_simple(const unsigned char *text, size_t size) {
  int depth = 0;
  for (size_t i = 0; i < size; i++) {
    depth += text[i] == '{' || text[i] == '[';
    if (strchr(" \t\r\n\\0123456789", text[i]) || depth > 8)
      return 0;
  }
  return size > 0 && text[0] == '{';
}


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static struct engine_grammar *any;
  if (!any)
    must(engine_grammar_new(&any, NULL, 0, NULL) == 0);
  long before = mem_live();
  const unsigned char *cut = size ? memchr(data, 0xff, size) : NULL;
  size_t schema = cut ? (size_t)(cut - data) : size;
  const unsigned char *rest = cut ? cut + 1 : data + size;
  size_t left = size - schema - (cut != NULL);
  struct engine_grammar *g;
  drover_err err;
  char *text = malloc(schema ? schema : 1);
  must(text != NULL);
  if (schema)
    memcpy(text, data, schema);
  int rc = engine_grammar_new(&g, text, schema, &err);
  free(text);
  must(rc == 0 || err.code == DROVER_EBADREQUEST);
  if (!rc)
    walk(g, rest, left);
  engine_grammar_free(g);
  int json = drover_json_check((const char *)rest, left, NULL) == 0;
  int taken = takes(any, rest, left);
  must(!taken || json);
  must(taken || !json || !is_simple(rest, left));
  walk(any, rest, left);
  must(mem_live() == before);
  return 0;
}
