/* request: what one request is and knows, checked and copied at submit.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_REQUEST_H
#define DROVER_ENGINE_REQUEST_H

#include <stdint.h>

#include "choose.h"
#include "draft.h"
#include "emit.h"
#include "kv.h"
#include "model.h"
#include "reply.h"

enum { ENGINE_CHOICES_MAX = 128 };

struct engine_group {               /* the choices of one call */
  uint32_t refs;                    /* requests that are not freed */
  uint32_t left;                    /* choices that have not ended well */
  uint32_t completion;              /* tokens of those that have */
  int      started;                 /* one of them has a token */
};

struct engine_request {
  struct engine_request *next;      /* in the order of arrival */
  uint64_t id;                      /* the engine's number, from 1; that of
                                     * all choices of a call */
  uint32_t choice;                  /* which of them this one is */
  struct engine_group *group;       /* shared by them; the stepping thread's,
                                     * once queued */
  uint32_t call;                    /* the caller's number, in each event */
  engine_emit_fn emit;              /* where its events go, with `ctx` */
  void    *ctx;                     /* the submitter's */
  int      cancelled;               /* under the engine's lock */

  /* What follows belongs to the thread that steps. */
  struct engine_ids ids;            /* the prompt, then the reply */
  uint32_t prompt;                  /* tokens of the prompt */
  uint32_t max_tokens;              /* of the reply */
  uint32_t computed;                /* ids that are in the KV pool */
  struct engine_seat seat;          /* its blocks, while it runs */
  int      running;                 /* holds blocks */
  int      priority;                /* enum drover_priority */
  int64_t  arrived_ns;
  int32_t  draft[ENGINE_DRAFT_MOST];    /* tokens guessed for this step */
  uint32_t drafts;
  float    gain;                    /* of guesses: see draft.h */
  enum drover_pool pool;            /* a vector is wanted, and no text */
  double  *vector;                  /* [width] sums of what was computed */
  struct engine_choose choose;      /* how its tokens are chosen */
  struct engine_reply reply;        /* text held back or on its way out */
  int64_t  first_by_ns, total_by_ns;        /* deadlines; 0: none */
};


/* Check `g` against the model and a context, and copy it: a list of one
 * request a choice, linked by `next`, which the caller frees one by one. The
 * codes are engine_submit's. */
int engine_request_new(struct engine_request **out,
                       const struct engine_model *m, uint32_t context,
                       const drover_generate *g, int64_t now_ns,
                       drover_err *err);
void engine_request_free(struct engine_request *r);   /* takes NULL */
void engine_request_free_all(struct engine_request *r);     /* a list */

#endif
