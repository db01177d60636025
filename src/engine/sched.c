/* sched: see sched.h.
 *
 * SPDX-License-Identifier: MIT */
#include "sched.h"


/* Stops at the first that does not fit, even if a later one would: otherwise
 * a long prompt could wait for ever behind short ones. */
static void admit(const struct engine_sched_limits *limits,
                  struct engine_sched_seq *seqs, uint32_t count) {
  uint32_t running = 0, blocks = limits->free_blocks;
  for (uint32_t i = 0; i < count; i++)
    running += (uint32_t)seqs[i].running;
  for (uint32_t i = 0; i < count; i++) {
    if (seqs[i].running)
      continue;
    if (running >= limits->seqs || seqs[i].blocks > blocks)
      return;                       /* first come, first served */
    seqs[i].running = 1;
    blocks -= seqs[i].blocks;
    running++;
  }
}


static uint32_t least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}


/* Decodes first, a row each: they always fit, since rows >= seqs. Prompts
 * take chunks while somebody decodes, so that a reply's next token waits for
 * a chunk and not for a whole prompt; alone they take the whole step. */
uint32_t engine_sched_plan(const struct engine_sched_limits *limits,
                           struct engine_sched_seq *seqs, uint32_t count) {
  uint32_t rows = 0;
  admit(limits, seqs, count);
  for (uint32_t i = 0; i < count; i++) {
    struct engine_sched_seq *s = &seqs[i];
    s->rows = s->running && s->known - s->computed == 1
      ? least(1, limits->rows - rows) : 0;
    rows += s->rows;
  }
  uint32_t chunk = rows ? limits->chunk : limits->rows;
  for (uint32_t i = 0; i < count; i++) {
    struct engine_sched_seq *s = &seqs[i];
    if (!s->running || s->rows || s->known - s->computed <= 1)
      continue;
    s->rows = least(least(s->known - s->computed, chunk),
                    limits->rows - rows);
    rows += s->rows;
  }
  return rows;
}
