/* clock: see clock.h.
 *
 * SPDX-License-Identifier: MIT */
#include "clock.h"

#include <time.h>

#include "../drover.h"

#define NS_PER_S 1000000000


/* The vDSO serves this without a system call; steps of the wall clock (NTP,
 * an operator) do not move it. */
int64_t clock_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}


/* INT64_MAX nanoseconds are 9.22e9 s, some 292 years: past 9.0e9 the cast
 * would be undefined, so it saturates. A NaN counts as "no deadline", 0. */
int64_t clock_ns(double seconds) {
  if (!(seconds == seconds))
    return 0;
  if (seconds >= 9.0e9)
    return INT64_MAX;
  if (seconds <= -9.0e9)
    return -INT64_MAX;
  return (int64_t)(seconds * NS_PER_S);
}


double clock_seconds(int64_t ns) {
  return (double)ns / NS_PER_S;
}


double drover_clock(void) {
  return clock_seconds(clock_now_ns());
}


/* For time stamps in records only; no deadline or average hangs on it. */
double drover_clock_wall(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / NS_PER_S;
}
