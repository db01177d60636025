/* inside: struct engine, for engine.c (its door) and turn.c (its loop).
 *
 * Requests are a list in the order of arrival. Others append to it and mark
 * requests as cancelled, under the lock; only the thread that steps unlinks
 * and frees, so it may walk what it has seen without the lock.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_INSIDE_H
#define DROVER_ENGINE_INSIDE_H

#include <pthread.h>

#include "kv.h"
#include "request.h"
#include "sched.h"
#include "step.h"

enum {
  ENGINE_BATCH_DEFAULT = 16, ENGINE_BATCH_MAX = 256,
  ENGINE_QUEUE_DEFAULT = 256, ENGINE_QUEUE_MAX = 65536,
  ENGINE_ROWS = 128,                /* tokens a step, or the batch */
  ENGINE_CHUNK = 32                 /* of one prompt while others decode */
};

/* One step, made anew each turn by the stepping thread alone. The arrays are
 * made once, for the largest step; `rows` points into them. */
struct engine_plan {
  struct engine_request **request;  /* [batch + queue] alive, by arrival */
  struct engine_sched_seq *seq;     /* [batch + queue] the same, as numbers */
  uint32_t count;                   /* of both */
  struct engine_request **owner;    /* [batch] of the step's sequences */
  int32_t *token, *pos;             /* [rows] ids; places in their sequence */
  int32_t *seq_start;               /* [batch + 1] first rows, and the end */
  int32_t *block;                   /* [batch][block_ld] */
  int32_t *out_row, *out_seq;       /* [batch] wanted rows; whose they are */
  struct engine_rows rows;          /* what the step is given */
};

/* Above the lock: set when the engine is opened, or the stepping thread's own.
 * From it on, and `kv`: read and written under it, but for `pid`. */
struct engine {
  struct engine_model *model;       /* owned; read-only */
  struct engine_step step;
  struct engine_kv kv;              /* under the lock */
  uint32_t context;                 /* tokens a sequence */
  uint32_t batch, queue;            /* requests that run; that wait */
  uint32_t rows;                    /* tokens a step */
  uint32_t threads, kv_type;        /* as struct engine_limits has them */
  uint64_t memory_bytes;            /* weights, cache and scratch */
  struct engine_plan plan;
  struct engine_candidate *scratch; /* [vocab] */
  char    *piece;                   /* [longest token] */

  pthread_mutex_t lock;             /* of all that follows */
  pthread_cond_t  wake;             /* the thread: there is work, or the end */
  pthread_cond_t  emitted;          /* engine_cancel: an emission is over */
  struct engine_request *first;     /* by arrival */
  struct engine_request **last;     /* where the next is linked in */
  uint32_t alive;                   /* requests that are not cancelled */
  uint32_t running;                 /* that hold blocks */
  uint64_t next_id;                 /* the last number given out */
  uint64_t emitting;                /* whose event is going out; 0: none */
  int      closing;                 /* the thread is asked to end */
  int      started;                 /* it was, and is not joined yet */
  int      ready;                   /* lock and conditions exist */
  int      pid;                     /* of the thread's process, or 0; atomic */
  pthread_t thread;
  double   steps, tokens;           /* since it was opened */
};


/* turn.c: call a request's emit, unless it is cancelled. No lock is held. */
void engine_emit(struct engine *e, struct engine_request *r,
                 drover_event *ev);


/* turn.c: end a request with a failure and let it go. */
void engine_fail(struct engine *e, struct engine_request *r, int phase,
                 const drover_err *why);

#endif
