/* gcra: a rate, as the generic cell rate algorithm: one 64-bit word for a name
 * and kind, the theoretical arrival time `tat`: when, on the callers' clock in
 * nanoseconds, all that was booked will have been paid for. Integers only, no
 * window, no calendar, no clock of its own. 0 is a fresh word, and so is
 * every word that lies in the past: nothing is lost with it.
 *
 *   cost(n)   ceil(n * 60e9 * unit / rate) ns
 *   deep      cost(burst) + min(burst - 1, 1000) ns: a burst of ones, each of
 *             them rounded up, passes as well
 *   take n    to = max(tat, now) + cost(n); passes when to - now <= deep
 *   charge    tat = max(tat, now) + ns, whatever the burst says: a debt
 *   give      tat = tat - ns (keys.h)
 *   settle    what was booked as n and came to m: cost(m) - cost(n) is charged
 *             when it is above 0, given back when below
 *
 * Law. What is booked in any t seconds, by whatever processes, less what is
 * given back in them, is at most rate * (t + 1001 ns) + burst. For the first of
 * these bookings left tat >= its now + its cost, each further one added its
 * cost, and nothing but giving back took any away; and when the last one
 * passed, tat was at most its now + deep. Clocks that disagree only
 * make it stricter: whoever's `now` is behind is refused earlier. (What is
 * given back counts in the order of the swaps, to which no clock is exact.)
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_GCRA_H
#define DROVER_LIMIT_GCRA_H

#include <stdint.h>

enum { LIMIT_WHOLE = 65536,         /* parts of a rate, for shares of it */
       LIMIT_FINE = 1024 };         /* parts of a unit, then */

struct limit_rate {
  uint32_t rate;                    /* 1/unit a minute; not 0 */
  uint32_t unit;                    /* 1 or LIMIT_FINE */
  uint32_t burst;                   /* whole units; not 0 */
};


/* The rate of a limit: `per_min` units a minute (not 0), `burst` or, when
 * that is 0, max(1, per_min / 60); of both `share` parts in 65536 (at least
 * 1, at most 65536: all of it), a burst never below 1. */
struct limit_rate limit_gcra_rate(uint32_t per_min, uint32_t burst,
                                  uint32_t share);


/* What n units cost in nanoseconds, rounded up; at most 2^61. */
int64_t limit_gcra_cost(const struct limit_rate *r, uint64_t n);


/* How deep a rate's bucket is, in nanoseconds. */
int64_t limit_gcra_deep(const struct limit_rate *r);


/* A time of drover_clock() in whole nanoseconds: 0 .. 2^61. */
int64_t limit_gcra_ns(double now);


/* How long until `cost`, which is not above the burst's, passes: 0 now, else
 * nanoseconds. Changes nothing. */
int64_t limit_gcra_wait(const int64_t *tat, const struct limit_rate *r,
                        int64_t cost, int64_t now);


/* A debt at `now` of one rate as it is at another: times from / to, parts. */
int64_t limit_gcra_scale(int64_t tat, int64_t now, uint32_t from, uint32_t to);


/* Book `cost`: 0, and *was is the word before; or how long until it passes,
 * and nothing is booked. Sequentially consistent. Any thread. */
int64_t limit_gcra_take(int64_t *tat, const struct limit_rate *r, int64_t cost,
                        int64_t now, int64_t *was);


/* Debt of `cost`: *was is the word before, what it is now is returned.
 * Sequentially consistent. Any thread. */
int64_t limit_gcra_charge(int64_t *tat, int64_t cost, int64_t now,
                          int64_t *was);

#endif
