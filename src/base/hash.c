/* hash: see hash.h.
 *
 * SPDX-License-Identifier: MIT */
#include "hash.h"

#include "../drover.h"


/* Multipliers and shifts are those of David Stafford's "Mix13", which
 * SplitMix64 took over; the last xor-shift carries the high bits down,
 * because callers mask the low ones. */
uint64_t hash_mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}


/* The offset basis and the prime are FNV's for 64 bits (Fowler, Noll, Vo).
 * FNV alone is weak in its high bits, so its result is mixed once. 0 is
 * given to nobody: tables use it for "none". */
uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t size) {
  const unsigned char *at = bytes;
  uint64_t h = 0xcbf29ce484222325u ^ hash_mix(seed);
  for (size_t i = 0; i < size; i++)
    h = (h ^ at[i]) * 0x100000001b3u;
  h = hash_mix(h ^ size);
  return h ? h : 1;
}


uint64_t drover_hash(const char *text, size_t size) {
  return hash_bytes(0, text, size);
}
