/* sched: who steps next. Decisions over numbers alone: no model, no clock.
 *
 * Each sequence has tokens it knows (prompt and reply) and tokens already
 * computed. Those with one token to go decode, all in every step; what room
 * is left in the step goes to prompts, in the order of arrival, in chunks.
 * Waiting sequences are admitted in the order of arrival, when a place and
 * all the blocks that they may ever need are free: so what runs never lacks
 * a block, a full pool delays and fails nobody, and nobody is overtaken.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SCHED_H
#define DROVER_ENGINE_SCHED_H

#include <stdint.h>

struct engine_sched_limits {
  uint32_t seqs;                    /* running at once */
  uint32_t rows;                    /* tokens of a step, >= seqs */
  uint32_t chunk;                   /* of a prompt a step while others decode */
  uint32_t free_blocks;
};

struct engine_sched_seq {           /* in the order of arrival */
  uint32_t known, computed;         /* tokens; computed < known */
  uint32_t blocks;                  /* it needs in all */
  int      running;                 /* in: 1 when admitted; out: may become 1 */
  uint32_t rows;                    /* out: tokens of it in this step */
};


/* Plan one step: fills `running` and `rows`. Returns the rows in all; 0 only
 * when there is no sequence, or the first needs more than there will be. */
uint32_t engine_sched_plan(const struct engine_sched_limits *limits,
                           struct engine_sched_seq *seqs, uint32_t count);

#endif
