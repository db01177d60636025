/* hash: see hash.h.
 *
 * SPDX-License-Identifier: MIT */
#include "hash.h"

#include "../drover.h"


uint64_t hash_mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ x >> 31;
}


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
