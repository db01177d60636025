/* spend: dollars under a limit, in any 24 hours and any 30 days. A ring of
 * hours and one of days, a slot's word holds the number of its period and
 * millionths of a dollar:
 *
 *   period (16 bits) | micro-dollars (48 bits)
 *
 * Summed are the present period, the 24 (30) before it, because any 24 hours
 * touch 25 hours of a clock, and the one behind it, because another process
 * may be there already: what is spent within the window never leaves it
 * early, and leaves it at most one period late. The clock is the callers',
 * its hours and days begin with it. A word of another period counts as 0.
 *
 * A booking is added first and summed behind it, as a claim on cells is: of
 * two that come at once at least one sees the other. So what is booked never
 * passes the limit; what settling adds is a debt. A settling takes the booking
 * out of its hour and adds the cost to its own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_SPEND_H
#define DROVER_LIMIT_SPEND_H

#include <stdint.h>

enum limit_ring { LIMIT_RING_DAY, LIMIT_RING_MONTH, LIMIT_RINGS };
enum { LIMIT_HOURS = 26, LIMIT_DAYS = 32 };

struct limit_spend {                /* of one name: eight cache lines */
  uint64_t hours[LIMIT_HOURS];
  uint64_t days[LIMIT_DAYS];
  uint64_t spare[6];
};

_Static_assert(sizeof(struct limit_spend) == 512, "whole cache lines");


/* More than any limit. */
#define LIMIT_UNPRICED (INT64_C(1) << 48)


/* Dollars in millionths, rounded up; NaN and what is below 0 are 0, the most
 * is 2^47. `down`: rounded down, for limits. */
int64_t limit_spend_micro(double dollars);
int64_t limit_spend_micro_down(double dollars);


/* The number of the hour, for limit_spend_give(). */
uint32_t limit_spend_hour(double now);


/* How long until `micro` more pass under `max`: 0 now, else seconds; what
 * could never pass waits for the whole window. Changes nothing. */
double limit_spend_wait(const struct limit_spend *s, enum limit_ring ring,
                        int64_t max, int64_t micro, double now);


/* Book under max[ring] (0: no limit in that ring): LIMIT_RINGS when booked,
 * else the ring that refused, and nothing is. Sequentially consistent. Any
 * thread. */
enum limit_ring limit_spend_take(struct limit_spend *s,
                                 const int64_t max[LIMIT_RINGS],
                                 int64_t micro, double now);


/* Take back what was booked in that hour, where it is still remembered, in
 * the `rings` that were booked: one bit each. */
void limit_spend_give(struct limit_spend *s, unsigned rings, uint32_t hour,
                      int64_t micro);


/* Add what was spent, whatever the limit says. */
void limit_spend_add(struct limit_spend *s, unsigned rings, uint32_t hour,
                     int64_t micro);


/* The rings that have a limit. */
static inline unsigned limit_spend_rings(const int64_t max[LIMIT_RINGS]) {
  return (unsigned)(max[LIMIT_RING_DAY] > 0) << LIMIT_RING_DAY |
         (unsigned)(max[LIMIT_RING_MONTH] > 0) << LIMIT_RING_MONTH;
}


/* 1 when nothing is remembered. */
int limit_spend_idle(const struct limit_spend *s, double now);

#endif
