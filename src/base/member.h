/* member: who takes part in a zone, and who of them is dead. A member is one
 * handle of one thread; it holds a slot of the zone's table as long as it
 * lives. It does not know what hangs on a slot: the hall takes that back.
 *
 * A slot is one word, 0 when free: start time (40 bits, clock ticks since
 * boot) | pid (22 bits) | state (2 bits). A pid that is used again has another
 * start time, so a word never names two processes, and each step is one
 * compare-and-swap:
 *
 *     free --claim--> used by P --P is dead--> reaped by R --done--> free
 *                                               '--R is dead--> reaped by S
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_MEMBER_H
#define DROVER_BASE_MEMBER_H

#include <stdint.h>

enum { MEMBER_NONE = -1 };

struct member_table {               /* a view: the words lie in the zone */
  uint64_t *words;
  uint32_t  count;
  uint32_t *top;                    /* slots in use lie below; only grows */
};


/* The word of this process. Reads /proc/self/stat. Any thread. */
uint64_t member_self(void);


/* 1 unless the process of `word` is gone, a zombie, or another one by now.
 * `self` is the caller's own word. System calls, none of them waits. */
int member_alive(uint64_t word, uint64_t self);


/* Take the first free slot: its number, or DROVER_ERESOURCE. */
int member_claim(const struct member_table *t, uint64_t self);


/* Give a slot back, when nothing hangs on it any more. */
void member_leave(const struct member_table *t, int slot);


/* The next slot from `from` whose owner is dead, now the caller's to reap
 * (nobody else will get it while the caller lives); MEMBER_NONE: no more. */
int member_reap(const struct member_table *t, uint64_t self, uint32_t from);


/* How many slots are in use. */
uint32_t member_count(const struct member_table *t);


/* A lock that a dead process cannot keep, for rare writers: 0 is free, else
 * the holder's word. Yields the processor a few hundred times at most; takes
 * over from a dead holder. 1 when it is the caller's. */
int member_lock(uint64_t *word, uint64_t self);
void member_unlock(uint64_t *word);

#endif
