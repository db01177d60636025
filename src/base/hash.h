/* hash: 64-bit hashes of bytes. Any thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_HASH_H
#define DROVER_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>


/* Mixed FNV-1a with a seed: a plain hash without a secret is seed 0. Not
 * cryptographic. Never 0. */
uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t size);


/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): bits well mixed. */
uint64_t hash_mix(uint64_t x);

#endif
