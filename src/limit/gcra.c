/* gcra: see gcra.h.
 *
 * SPDX-License-Identifier: MIT */
#include "gcra.h"

static const int64_t MINUTE = INT64_C(60000000000);
static const int64_t MOST = INT64_C(1) << 61;   /* 73 years */


/* A part of a rate is rounded down, so that all hosts' parts together are
 * never above the whole; in fine units as far as they fit 32 bits. */
struct limit_rate limit_gcra_rate(uint32_t per_min, uint32_t burst,
                                  uint32_t share) {
  struct limit_rate r = { per_min, 1, burst ? burst : per_min / 60 };
  if (share < LIMIT_WHOLE) {
    uint64_t part = (uint64_t)per_min * share;
    r.unit = part / (LIMIT_WHOLE / LIMIT_FINE) <= UINT32_MAX ? LIMIT_FINE : 1;
    r.rate = (uint32_t)(part / (LIMIT_WHOLE / r.unit));
    r.rate += r.rate == 0;
    r.burst = (uint32_t)((uint64_t)r.burst * share / LIMIT_WHOLE);
  }
  r.burst += r.burst == 0;
  return r;
}


enum { ONES = 1000 };               /* of a burst: their rounding is allowed */

__extension__ typedef unsigned __int128 wide;


__attribute__((noinline))
static int64_t cost_wide(uint64_t minute, uint32_t rate, uint64_t n) {
  wide ns = ((wide)n * minute + rate - 1) / rate;
  return ns < (wide)MOST ? (int64_t)ns : MOST;
}


/* Up to some 300 million units (300 thousand of a share) 64 bits are enough. */
int64_t limit_gcra_cost(const struct limit_rate *r, uint64_t n) {
  uint64_t minute = (uint64_t)MINUTE * r->unit;
  unsigned bits = r->unit == 1 ? 28 : 18;
  if (n >> bits)
    return cost_wide(minute, r->rate, n);
  uint64_t ns = (n * minute + r->rate - 1) / r->rate;
  return ns < (uint64_t)MOST ? (int64_t)ns : MOST;
}


int64_t limit_gcra_deep(const struct limit_rate *r) {
  uint32_t ones = r->burst - 1;
  return limit_gcra_cost(r, r->burst) + (ones < ONES ? ones : ONES);
}


int64_t limit_gcra_ns(double now) {
  if (!(now > 0))
    return 0;
  return now < 2e9 ? (int64_t)(now * 1e9) : MOST;
}


static inline int64_t later(int64_t a, int64_t b) {
  return a > b ? a : b;
}


/* The exact answer, for what is near its limit. */
__attribute__((noinline))
static int64_t wait_exactly(const struct limit_rate *r, int64_t ahead) {
  int64_t wait = ahead - limit_gcra_deep(r);
  return wait > 0 ? wait : 0;
}


/* What passes needs no division: a word in the past, as `cost` is not above
 * the bucket, and one that is not further ahead than the burst's cost would be
 * without its rounding up. */
static inline int64_t wait_at(int64_t at, const struct limit_rate *r,
                              int64_t cost, int64_t now) {
  if (at <= now)
    return 0;
  int64_t ahead = at + cost - now;
  uint64_t burst = (uint64_t)r->burst * r->unit;
  if (ahead <= MOST && (wide)ahead * r->rate <= (wide)burst * (uint64_t)MINUTE)
    return 0;
  return wait_exactly(r, ahead);
}


int64_t limit_gcra_wait(const int64_t *tat, const struct limit_rate *r,
                        int64_t cost, int64_t now) {
  return wait_at(__atomic_load_n(tat, __ATOMIC_RELAXED), r, cost, now);
}


int64_t limit_gcra_scale(int64_t tat, int64_t now, uint32_t from, uint32_t to) {
  if (tat <= now)
    return tat;
  wide ns = ((wide)(tat - now) * from + to - 1) / to;
  return ns < (wide)(MOST - now) ? now + (int64_t)ns : later(MOST, now);
}


/* The swap is sequentially consistent for keys.c: who moved a word and then
 * looks at its tag has one order with who moves the tag and then looks at the
 * word. */
int64_t limit_gcra_take(int64_t *tat, const struct limit_rate *r, int64_t cost,
                        int64_t now, int64_t *was) {
  *was = __atomic_load_n(tat, __ATOMIC_RELAXED);
  for (;;) {
    int64_t to = later(*was, now) + cost, wait = wait_at(*was, r, cost, now);
    if (wait > 0)
      return wait;
    if (__atomic_compare_exchange_n(tat, was, to, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_RELAXED))
      return 0;
  }
}


/* Debts end at some time in our lives: the sum stays far from overflow. */
int64_t limit_gcra_charge(int64_t *tat, int64_t cost, int64_t now,
                          int64_t *was) {
  *was = __atomic_load_n(tat, __ATOMIC_RELAXED);
  for (;;) {
    int64_t from = later(*was, now);
    int64_t to = later(cost < MOST - from ? from + cost : MOST, from);
    if (__atomic_compare_exchange_n(tat, was, to, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_RELAXED))
      return to;
  }
}
