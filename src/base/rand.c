/* rand: see rand.h.
 *
 * SPDX-License-Identifier: MIT */
#include "rand.h"

#include <sys/random.h>
#include <unistd.h>

#include "../drover.h"
#include "clock.h"
#include "hash.h"


/* The increment is 2^64 over the golden ratio, odd: all states are visited
 * before one comes again. */
uint64_t rand_next(struct rand_state *s) {
  s->x += 0x9e3779b97f4a7c15u;
  return hash_mix(s->x);
}


/* The upper 53 bits, as many as a double's fraction holds; 1 is never
 * reached by rounding. */
double rand_unit(struct rand_state *s) {
  return (double)(rand_next(s) >> 11) * 0x1p-53;
}


/* GRND_NONBLOCK: early at boot the pool may not be ready, and a router must
 * not hang there. The fallback is good enough to tell two processes apart,
 * which is all that seeds and zone ids need. */
uint64_t rand_entropy(void) {
  uint64_t x;
  if (getrandom(&x, sizeof x, GRND_NONBLOCK) == (ssize_t)sizeof x)
    return x;
  return hash_mix((uint64_t)clock_now_ns() ^ (uint64_t)getpid() << 32);
}


uint64_t drover_entropy(void) {
  return rand_entropy();
}
