/* clock: see clock.h.
 *
 * SPDX-License-Identifier: MIT */
#include "clock.h"

#include <time.h>

#include "../drover.h"

#define NS_PER_S 1000000000


int64_t clock_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}


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


double drover_clock_wall(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / NS_PER_S;
}
