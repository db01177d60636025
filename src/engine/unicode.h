/* unicode: what the tokenizers ask of a code point, and UTF-8. Pure.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_UNICODE_H
#define DROVER_ENGINE_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum engine_class {                 /* general category, or White_Space */
  ENGINE_CLASS_OTHER, ENGINE_CLASS_LETTER, ENGINE_CLASS_NUMBER,
  ENGINE_CLASS_PUNCTUATION, ENGINE_CLASS_SYMBOL, ENGINE_CLASS_MARK,
  ENGINE_CLASS_SPACE,
  ENGINE_CLASS_UPPER,               /* letters in upper or title case */
  ENGINE_CLASS_LOWER
};

enum { ENGINE_UNICODE_BAD = 0x110000 };   /* for a byte that is no UTF-8 */


/* The class of a code point; OTHER past the last. Letters of any case are
 * LETTER; or UPPER and LOWER, and LETTER where there is no case. */
enum engine_class engine_unicode_class(uint32_t code);
enum engine_class engine_unicode_cased(uint32_t code);


/* unicode_runs.c: the table. */
extern const uint32_t engine_unicode_runs[];
extern const size_t engine_unicode_count;


/* What the text begins with: 1..4, the bytes of a well-formed sequence; 0,
 * one that is cut off (or no text); -n, n bytes that can never be one. */
int engine_unicode_check(const char *text, size_t size);


/* The code point at the start of `size` > 0 bytes, and how many it takes. A
 * byte that begins no whole sequence is ENGINE_UNICODE_BAD and takes 1. */
size_t engine_unicode_decode(const char *text, size_t size, uint32_t *code);

#endif
