/* budget: see budget.h.
 *
 * SPDX-License-Identifier: MIT */
#include "budget.h"

#include "../base/atom.h"

enum { WORDS = BUDGET_WORDS, TRIES = 4 };


size_t limit_budget_size(uint32_t members) {
  return ((size_t)members + 1) * BUDGET_WORDS * sizeof(uint64_t);
}


static uint64_t *set_of(const struct limit_budget *b, uint32_t member) {
  return b->words + (size_t)member * BUDGET_WORDS;
}


static uint32_t second(double now) {
  return now > 0 && now < 4e9 ? (uint32_t)now : 0;
}


static uint32_t count_of(uint64_t word, uint32_t at) {
  return word >> 32 == at ? (uint32_t)word : 0;
}


static uint64_t sum(const uint64_t *set, uint32_t now) {
  uint32_t from = now >= BUDGET_SECONDS ? now - BUDGET_SECONDS + 1 : 0;
  uint64_t total = 0;
  for (uint32_t at = from; at <= now + 1; at++)
    total += count_of(__atomic_load_n(&set[at % WORDS], __ATOMIC_SEQ_CST), at);
  return total;
}


void limit_budget_sent(const struct limit_budget *b, uint32_t member,
                       double now) {
  uint32_t at = second(now);
  uint64_t *word = &set_of(b, member)[at % WORDS];
  uint32_t count = count_of(atom_get_u64(word), at);
  atom_set_u64(word, (uint64_t)at << 32 | (count + 1));
}


/* Add `by` to a second of the retries. */
static void count(const struct limit_budget *b, uint32_t at, int by) {
  uint64_t *word = &set_of(b, b->members)[at % WORDS];
  uint64_t was = atom_get_u64(word), to;
  do {
    int64_t sum_of_both = (int64_t)count_of(was, at) + by;
    if (was >> 32 != at && by < 0)
      return;
    to = (uint64_t)at << 32 | (uint32_t)sum_of_both;
  } while (!__atomic_compare_exchange_n(word, &was, to, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED));
}


/* Counted first and summed behind it: of two that come for the last one at
 * once, at least one sees the other. Looked at again, since the sum may have
 * held one that was about to go back. */
int limit_budget_take(const struct limit_budget *b, uint32_t milli,
                      uint32_t reserve, double now) {
  uint32_t at = second(now), top = atom_get_u32(b->top);
  uint64_t sends = 0;
  for (uint32_t m = 0; m < top; m++)
    sends += sum(set_of(b, m), at);
  uint64_t allowed = sends * milli / 1000 + reserve;
  for (int i = 1; i <= TRIES; i++) {
    count(b, at, 1);
    if (sum(set_of(b, b->members), at) <= allowed)
      return 1;
    count(b, at, -1);
    if (sum(set_of(b, b->members), at) >= allowed)
      return 0;
  }
  return 0;
}
