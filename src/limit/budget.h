/* budget: how many sends may be retries, over all members of a zone. In any
 * ten seconds, a ring of ten one-second words each: at most `reserve` plus
 * `milli` for each thousand first sends.
 *
 * First sends are many, so each member counts its own, without a locked
 * instruction; retries are few and share one ring. A word is second (32 bits)
 * | count (32 bits); one of another second counts as 0. The second at hand
 * counts with the nine before it, and one behind it, where another process
 * may be already. Sixteen words are more than these eleven and one that is not
 * summed, where that process's next second may be written: a power of two
 * finds its word without a division.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_BUDGET_H
#define DROVER_LIMIT_BUDGET_H

#include <stddef.h>
#include <stdint.h>

enum { BUDGET_SECONDS = 10, BUDGET_WORDS = 16 };

struct limit_budget {               /* a view: the words lie in the zone */
  uint64_t *words;                  /* [member][BUDGET_WORDS]; the last set is
                                     * that of retries */
  uint32_t  members;
  const uint32_t *top;              /* members ever in use lie below */
};


/* Bytes of the span. */
size_t limit_budget_size(uint32_t members);


/* A first send, at `now`. The member's owner only. */
void limit_budget_sent(const struct limit_budget *b, uint32_t member,
                       double now);


/* 1 when a retry may go: it is counted. Any thread. */
int limit_budget_take(const struct limit_budget *b, uint32_t milli,
                      uint32_t reserve, double now);

#endif
