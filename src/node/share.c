/* share: see share.h.
 *
 * SPDX-License-Identifier: MIT */
#include "share.h"

#include <math.h>

enum { OK_SHIFT = 18, PERIOD_SHIFT = 36 };
#define COUNT UINT64_C(0x3ffff)
/* Adders that saw a word not full may all add: this leaves room for them. */
#define FULL (COUNT - 4096)
#define PERIOD_MAX ((UINT64_C(1) << 28) - 1)


/* NaN and what is before the clock's start are period 0. */
static uint64_t period_of(double now) {
  double p = now * (1 / SHARE_PERIOD);
  if (!(p > 0))
    return 0;
  return p < (double)PERIOD_MAX ? (uint64_t)p : PERIOD_MAX;
}


/* The usual way is one addition that cannot fail. It may land in the word's
 * next period, when another takes the word over in between: counted then. */
void node_share_add(struct node_row *own, int ok, double now) {
  uint64_t period = period_of(now);
  uint64_t one = (uint64_t)(ok != 0) << OK_SHIFT | 1;
  uint64_t *word = &own->share[period % NODE_PERIODS];
  uint64_t was = atom_get_u64(word);
  while (was >> PERIOD_SHIFT != period) {
    if (was >> PERIOD_SHIFT > period)
      return;
    if (__atomic_compare_exchange_n(word, &was, period << PERIOD_SHIFT | one,
                                    0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return;
  }
  if ((was & COUNT) < FULL)
    __atomic_fetch_add(word, one, __ATOMIC_RELAXED);
}


/* Words ahead of `now` are of processes that read the clock a little later. */
struct node_share node_share_sum(const struct node_row *own, double now) {
  struct node_share sum = { 0, 0 };
  uint64_t period = period_of(now);
  for (int i = 0; i < NODE_PERIODS; i++) {
    uint64_t word = atom_get_u64(&own->share[i]);
    if ((word >> PERIOD_SHIFT) + NODE_PERIODS <= period)
      continue;
    sum.ok += (uint32_t)(word >> OK_SHIFT & COUNT);
    sum.all += (uint32_t)(word & COUNT);
  }
  return sum;
}


float node_share_rate(const struct node_row *own, double now) {
  struct node_share s = node_share_sum(own, now);
  return s.all ? (float)s.ok / (float)s.all : NAN;
}


void node_share_clear(struct node_row *own) {
  for (int i = 0; i < NODE_PERIODS; i++)
    atom_set_u64(&own->share[i], 0);
}
