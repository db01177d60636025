/* spend: see spend.h. Periods wrap at 2^16: 7 years of hours, so that a slot
 * which is not touched for that long may seem to be of this year once.
 *
 * SPDX-License-Identifier: MIT */
#include "spend.h"

#include <math.h>

#include "../base/atom.h"

enum { PERIOD_SHIFT = 48, HOUR = 3600, DAY = 86400, TRIES = 4 };
#define AMOUNT  ((UINT64_C(1) << PERIOD_SHIFT) - 1)
#define MOST    ((INT64_C(1) << 47))

struct ring {                       /* one of a name's rings, at a time */
  uint64_t *at;
  uint32_t  count;
  uint32_t  now;                    /* number of the period */
  double    length;                 /* seconds of a period */
};


int64_t limit_spend_micro(double dollars) {
  double micro = ceil(dollars * 1e6);
  if (!(micro > 0))
    return 0;
  return micro < (double)MOST ? (int64_t)micro : MOST;
}


int64_t limit_spend_micro_down(double dollars) {
  double micro = floor(dollars * 1e6);
  if (!(micro > 0))
    return 0;
  return micro < (double)MOST ? (int64_t)micro : MOST;
}


static uint32_t period(double now, double length) {
  return now > 0 && now < 1e12 ? (uint32_t)(now / length) : 0;
}


uint32_t limit_spend_hour(double now) {
  return period(now, HOUR);
}


/* Of shared memory, so `at` is not const though looking changes nothing. */
static struct ring ring_of(const struct limit_spend *s, enum limit_ring ring,
                           uint32_t hour) {
  struct limit_spend *at = (struct limit_spend *)(uintptr_t)s;
  if (ring == LIMIT_RING_DAY)
    return (struct ring){ at->hours, LIMIT_HOURS, hour, HOUR };
  return (struct ring){ at->days, LIMIT_DAYS, hour / 24, DAY };
}


/* What the slot of a period holds. */
static int64_t amount(const struct ring *r, uint32_t of) {
  uint64_t word = __atomic_load_n(&r->at[of % r->count], __ATOMIC_SEQ_CST);
  return word >> PERIOD_SHIFT == (of & 0xffff) ? (int64_t)(word & AMOUNT) : 0;
}


static uint32_t oldest(const struct ring *r) {
  return r->now + 2 > r->count ? r->now + 2 - r->count : 0;
}


static int64_t sum_of(const struct ring *r) {
  int64_t sum = 0;
  for (uint32_t i = oldest(r); i <= r->now + 1; i++)
    sum += amount(r, i);
  return sum;
}


/* Add to the present slot. One that is of another period is begun anew when
 * `begin` says so, and left alone when not. */
static void add(const struct ring *r, int64_t micro, int begin) {
  uint64_t *at = &r->at[r->now % r->count], word = atom_get_u64(at), next;
  uint64_t to = r->now & 0xffff;
  do {
    int same = word >> PERIOD_SHIFT == to;
    if (!same && !begin)
      return;
    int64_t is = (same ? (int64_t)(word & AMOUNT) : 0) + micro;
    is = is < 0 ? 0 : is > (int64_t)AMOUNT ? (int64_t)AMOUNT : is;
    next = to << PERIOD_SHIFT | (uint64_t)is;
  } while (!__atomic_compare_exchange_n(at, &word, next, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED));
}


/* A period leaves the sum when count - 1 of them have begun behind it. */
double limit_spend_wait(const struct limit_spend *s, enum limit_ring ring,
                        int64_t max, int64_t micro, double now) {
  struct ring r = ring_of(s, ring, limit_spend_hour(now));
  int64_t sum = sum_of(&r);
  if (sum + micro <= max)
    return 0;
  for (uint32_t i = oldest(&r); i <= r.now + 1; i++) {
    sum -= amount(&r, i);
    if (sum + micro <= max)
      return (i + r.count - 1) * r.length - now;
  }
  return (r.count - 1) * r.length;
}


/* Both rings are added to before one is summed; the adding swaps and the
 * loads of the sum are sequentially consistent, so of two that pass each
 * other one sees the other. A refusal is looked at again, since the sum may
 * have held another booking that was about to be undone. */
enum limit_ring limit_spend_take(struct limit_spend *s,
                                 const int64_t max[LIMIT_RINGS],
                                 int64_t micro, double now) {
  uint32_t hour = limit_spend_hour(now);
  unsigned rings = limit_spend_rings(max);
  for (int i = 1;; i++) {
    int full = 0;
    limit_spend_add(s, rings, hour, micro);
    for (; full < LIMIT_RINGS; full++) {
      struct ring r = ring_of(s, (enum limit_ring)full, hour);
      if (max[full] && sum_of(&r) > max[full])
        break;
    }
    enum limit_ring ring = (enum limit_ring)full;
    if (ring == LIMIT_RINGS)
      return ring;
    limit_spend_give(s, rings, hour, micro);
    if (i == TRIES || limit_spend_wait(s, ring, max[ring], micro, now) > 0)
      return ring;
  }
}


void limit_spend_give(struct limit_spend *s, unsigned rings, uint32_t hour,
                      int64_t micro) {
  for (int i = 0; i < LIMIT_RINGS; i++) {
    struct ring r = ring_of(s, (enum limit_ring)i, hour);
    if (rings >> i & 1)
      add(&r, -micro, 0);
  }
}


void limit_spend_add(struct limit_spend *s, unsigned rings, uint32_t hour,
                     int64_t micro) {
  for (int i = 0; i < LIMIT_RINGS; i++) {
    struct ring r = ring_of(s, (enum limit_ring)i, hour);
    if (rings >> i & 1)
      add(&r, micro, 1);
  }
}


int limit_spend_idle(const struct limit_spend *s, double now) {
  uint32_t hour = limit_spend_hour(now);
  for (int i = 0; i < LIMIT_RINGS; i++) {
    struct ring r = ring_of(s, (enum limit_ring)i, hour);
    if (sum_of(&r) > 0)
      return 0;
  }
  return 1;
}
