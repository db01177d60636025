/* rand: SplitMix64 with the state passed in (Steele, Lea, Flood 2014), and
 * the system's entropy to seed it. Not for secrets but rand_entropy().
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_RAND_H
#define DROVER_BASE_RAND_H

#include <stdint.h>

struct rand_state { uint64_t x; };


uint64_t rand_next(struct rand_state *s);


/* Uniform in [0, 1), 53 bits. */
double rand_unit(struct rand_state *s);


/* From getrandom(2); falls back to clock and pid. Any thread. */
uint64_t rand_entropy(void);

#endif
