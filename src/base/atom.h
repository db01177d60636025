/* atom: words of shared memory that several threads and processes read and
 * write. Plain types (drover.h is LuaJIT's too), so access goes through here.
 *
 * get and set are relaxed: the value is whole, nothing follows from its
 * order. Where order matters the caller says so with its own __atomic_* and
 * names the partner. `bump` is for words with one writer: no lock prefix.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_ATOM_H
#define DROVER_BASE_ATOM_H

#include <stdint.h>

#define ATOM_OF(name, type)                                                  \
  static inline type atom_get_##name(const type *p) {                        \
    type v;                                                                  \
    __atomic_load(p, &v, __ATOMIC_RELAXED);                                  \
    return v;                                                                \
  }                                                                          \
  static inline void atom_set_##name(type *p, type v) {                      \
    __atomic_store(p, &v, __ATOMIC_RELAXED);                                 \
  }                                                                          \
  static inline void atom_bump_##name(type *p, type by) {                    \
    atom_set_##name(p, atom_get_##name(p) + by);                             \
  }

ATOM_OF(u32, uint32_t)
ATOM_OF(u64, uint64_t)
ATOM_OF(i64, int64_t)
ATOM_OF(f32, float)
ATOM_OF(f64, double)

#undef ATOM_OF


/* Raise a word that only grows. Sequentially consistent: a claim reads it
 * behind its fence (limit/cells.c). */
static inline void atom_raise_u32(uint32_t *p, uint32_t to) {
  uint32_t at = atom_get_u32(p);
  while (at < to && !__atomic_compare_exchange_n(p, &at, to, 0,
                                                 __ATOMIC_SEQ_CST,
                                                 __ATOMIC_RELAXED))
    ;
}

#endif
