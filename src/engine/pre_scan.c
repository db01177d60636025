/* pre_scan: classes and runs, the vocabulary of the rules. See pre.h.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "pre.h"
#include "unicode.h"

_Static_assert(ENGINE_PRE_LETTERS == (1 << ENGINE_CLASS_LETTER
                                      | 1 << ENGINE_CLASS_UPPER
                                      | 1 << ENGINE_CLASS_LOWER)
               && ENGINE_PRE_NUMBERS == 1 << ENGINE_CLASS_NUMBER
               && ENGINE_PRE_MARKS == 1 << ENGINE_CLASS_MARK
               && ENGINE_PRE_SPACES == 1 << ENGINE_CLASS_SPACE,
               "sets are of these classes");


int engine_pre_class(const struct engine_pre_walk *w, size_t at,
                     size_t *size) {
  uint32_t code;
  *size = 0;
  if (at >= w->piece)
    return ENGINE_PRE_END;
  *size = engine_unicode_decode(w->text + at, w->piece - at, &code);
  return (int)engine_unicode_cased(code);
}


int engine_pre_in(int class, unsigned set) {
  return class >= 0 && (set >> class & 1);
}


size_t engine_pre_run(const struct engine_pre_walk *w, size_t at, unsigned set,
                      int most) {
  size_t size;
  for (int n = 0; !most || n < most; n++) {
    if (!engine_pre_in(engine_pre_class(w, at, &size), set))
      break;
    at += size;
  }
  return at;
}


int engine_pre_newline(const struct engine_pre_walk *w, size_t at) {
  return at < w->piece && (w->text[at] == '\r' || w->text[at] == '\n');
}


size_t engine_pre_contraction(const struct engine_pre_walk *w, size_t at,
                              int any_case) {
  static const char *const tails[] = { "s", "t", "m", "d", "re", "ve", "ll" };
  if (at >= w->piece || w->text[at] != '\'')
    return at;
  for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
    size_t size = strlen(tails[i]), same = 0;
    if (size > w->piece - at - 1)
      continue;
    while (same < size
           && (w->text[at + 1 + same] | (any_case ? 0x20 : 0))
                == tails[i][same])
      same++;
    if (same == size)
      return at + 1 + size;
  }
  return at;
}


size_t engine_pre_space(const struct engine_pre_walk *w, size_t at,
                        int newlines) {
  size_t end = at, last = at, line = at, size;
  while (engine_pre_in(engine_pre_class(w, end, &size), ENGINE_PRE_SPACES)) {
    last = end;
    end += size;
    if (engine_pre_newline(w, last))
      line = end;
  }
  if (newlines && line > at)
    return line;
  return end < w->piece && last > at ? last : end;
}
