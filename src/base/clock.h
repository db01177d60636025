/* clock: the one file that reads a clock. Decisions take `now` as an
 * argument; only the hall and the threads' loops call these. Any thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_CLOCK_H
#define DROVER_BASE_CLOCK_H

#include <stdint.h>


/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t clock_now_ns(void);


/* Seconds to nanoseconds and back; a NaN is 0, what is too large saturates. */
int64_t clock_ns(double seconds);
double clock_seconds(int64_t ns);

#endif
