/* sched: who runs and who steps next. Decisions over numbers alone: no model,
 * no clock.
 *
 * A sequence has tokens it knows (prompt and reply) and tokens already
 * computed. Those with one token to go decode, all in every step. What the
 * step's time allows beside them goes to prompts, the shortest first, in
 * chunks of whole blocks; a prompt always moves by a block.
 *
 * A waiting sequence is admitted when the free blocks hold its prompt and a
 * share of what all may still write. The share falls while that goes well:
 * when it went too far, the one that is due last gives its blocks back and
 * is computed again later. So a full pool delays and fails nobody.
 *
 * Who is due first: by arrival, but a lower priority counts as some seconds
 * later. Who waits for long is not overtaken any more.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SCHED_H
#define DROVER_ENGINE_SCHED_H

#include <stdint.h>

#include "cost.h"

struct engine_sched_limits {
  uint32_t seqs;                    /* running at once */
  uint32_t rows;                    /* tokens of a step, >= seqs */
  uint32_t free_blocks;
  uint32_t knee;                    /* rows up to which one more is cheap */
  uint32_t drafts;                  /* unsure tokens of a step */
  int      draft;                   /* enum drover_draft */
  double   share;                   /* of what may be written: kept free */
  double   step_seconds;            /* that a step should take at most */
  int64_t  now_ns;
};

struct engine_sched_seq {           /* in the order of arrival */
  uint32_t known, computed;         /* tokens; computed < known */
  uint32_t rest;                    /* tokens that it may still write */
  uint32_t held;                    /* blocks it has */
  uint32_t take;                    /* waiting: of the free, to begin with */
  int      priority;                /* enum drover_priority */
  int      running;
  int      passed;                  /* waiting: does not fit now */
  int64_t  arrived_ns;
  uint64_t twin;                    /* equal where the next blocks are; or 0 */
  uint32_t offered;                 /* tokens guessed for it */
  float    gain;                    /* guessed tokens that came true, a step */
  uint32_t rows;                    /* out: tokens of it in this step, … */
  uint32_t draft;                   /* out: … and guessed ones behind them */
};


/* Who must give its blocks back so that all others can step; or -1. Never the
 * only one. */
int engine_sched_victim(const struct engine_sched_limits *limits,
                        const struct engine_sched_seq *seqs, uint32_t count);


/* Who of those that wait is next to be looked at; or -1: none may be. */
int engine_sched_next(const struct engine_sched_limits *limits,
                      const struct engine_sched_seq *seqs, uint32_t count);


/* 1: the blocks allow to admit sequence `at`, whose `take` is set. */
int engine_sched_fits(const struct engine_sched_limits *limits,
                      const struct engine_sched_seq *seqs, uint32_t count,
                      uint32_t at);


/* 1: it has waited so long that nobody may be admitted before it. */
int engine_sched_aged(const struct engine_sched_limits *limits,
                      const struct engine_sched_seq *seq);


/* The share for the next step. */
double engine_sched_share(double share, int preempted);


/* Fill `rows` and `draft` of those that run. Returns the rows in all; 0 only
 * when none runs. */
uint32_t engine_sched_rows(const struct engine_sched_limits *limits,
                           const struct engine_cost *cost,
                           struct engine_sched_seq *seqs, uint32_t count);

#endif
