/* rand: see rand.h.
 *
 * SPDX-License-Identifier: MIT */
#include "rand.h"

#include <sys/random.h>
#include <unistd.h>

#include "../drover.h"
#include "clock.h"
#include "hash.h"


uint64_t rand_next(struct rand_state *s) {
  s->x += 0x9e3779b97f4a7c15u;
  return hash_mix(s->x);
}


double rand_unit(struct rand_state *s) {
  return (double)(rand_next(s) >> 11) * 0x1p-53;
}


uint64_t rand_entropy(void) {
  uint64_t x;
  if (getrandom(&x, sizeof x, GRND_NONBLOCK) == (ssize_t)sizeof x)
    return x;
  return hash_mix((uint64_t)clock_now_ns() ^ (uint64_t)getpid() << 32);
}


uint64_t drover_entropy(void) {
  return rand_entropy();
}
