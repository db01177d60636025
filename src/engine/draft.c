/* draft: see draft.h. Prompt look-up (Saxena 2023): replies quote.
 *
 * SPDX-License-Identifier: MIT */
#include "draft.h"

#include <string.h>


static const float HOPE = 3;        /* what may be expected untried, a step */


/* The latest match, since what was said last is nearest to what is said
 * now. */
static uint32_t find(const int32_t *ids, size_t count, size_t last,
                     uint32_t most, int32_t *to) {
  const int32_t *end = ids + count - last;
  for (size_t at = count - last; at-- > 0;) {
    if (memcmp(ids + at, end, last * sizeof *ids))
      continue;
    size_t left = count - (at + last);
    uint32_t n = left < most ? (uint32_t)left : most;
    memcpy(to, ids + at + last, n * sizeof *to);
    return n;
  }
  return 0;
}


uint32_t engine_draft_find(const int32_t *ids, size_t count, uint32_t most,
                           int32_t *to) {
  for (size_t last = 3; last > 1 && most; last--) {
    uint32_t n = count > last ? find(ids, count, last, most, to) : 0;
    if (n)
      return n;
  }
  return 0;
}


uint32_t engine_draft_want(float gain) {
  return gain > 2.5f ? ENGINE_DRAFT_MOST : ENGINE_DRAFT_LEAST;
}


/* Down fast and up slowly: where guesses fail, about one step of forty is
 * spent on finding out whether they still do. */
float engine_draft_learn(float gain, uint32_t tried, uint32_t came) {
  if (tried)
    return 0.6f * gain + 0.4f * (float)came;
  return gain < HOPE ? gain + 0.01f : gain;
}
