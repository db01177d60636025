/* choose: a request's next token: what it does to the logits, then the draw
 * (sample.h), then what is told about it.
 *
 *   logits -> logit_bias -> grammar's mask -> penalties -> draw
 *
 * Without a filter (top-k, top-p, min-p) the draw comes first and the mask
 * only where the grammar refuses what was drawn: noise is a function of the
 * token, so the largest of those allowed is the same either way.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CHOOSE_H
#define DROVER_ENGINE_CHOOSE_H

#include "../base/buf.h"
#include "mask.h"
#include "sample.h"
#include "vocab.h"

enum {
  ENGINE_BIAS_MAX = 1024,           /* pairs of a request */
  ENGINE_STOP_IDS_MAX = 64,
  ENGINE_TOP_MAX = 20               /* top_logprobs */
};

struct engine_seen {                /* a token of prompt or reply */
  int32_t  id;                      /* -1: empty */
  uint32_t count;                   /* in the reply */
};

struct engine_choose {              /* one request's */
  struct engine_draw draw;
  float    repetition, presence, frequency;     /* 1, 0, 0: off */
  drover_bias *bias;                /* [biases] */
  uint32_t biases;
  int32_t *stop_id;                 /* [stop_ids]: they end the reply too */
  uint32_t stop_ids;
  int      logprobs;                /* wanted */
  uint32_t top;                     /* how many beside the drawn one */
  struct engine_seen *seen;         /* open addressing */
  uint32_t seen_room, seen_used;    /* room: a power of two, or 0 */
  uint32_t looked;                  /* ids of the request that are in `seen` */
  struct engine_mask *mask;         /* or NULL */
};

struct engine_row {                 /* what a token is chosen from */
  const float *logits;              /* [count] */
  uint32_t count;
  float   *work;                    /* [count] scratch */
  struct engine_candidate *scratch; /* [count] */
  const struct engine_ids *ids;     /* of the request: prompt, then reply */
  uint32_t prompt;                  /* how many of them are the prompt's */
};


/* Check and copy what a request says of its tokens; `trie` is needed where it
 * has a response format. DROVER_EINVAL and DROVER_EBADREQUEST name the field.
 * deinit takes what a failed init left. */
int engine_choose_init(struct engine_choose *c, const struct engine_vocab *v,
                       const struct engine_trie *trie,
                       const drover_generate *g, drover_err *err);
void engine_choose_deinit(struct engine_choose *c);


/* The next token. DROVER_EINTERNAL: see engine_sample(); or no token of the
 * vocabulary can follow. DROVER_ENOMEM. */
int engine_choose_next(struct engine_choose *c, const struct engine_row *row,
                       int32_t *id, drover_err *err);


/* 1 when this token, or what it completes, ends the reply. */
int engine_choose_ends(struct engine_choose *c, const struct engine_vocab *v,
                       int32_t id);


/* logprob.c: append what OpenAI's "logprobs" say of a chosen token, as JSON,
 * behind a comma where there is something. 0, DROVER_ENOMEM or
 * DROVER_ETOOLARGE. */
int engine_logprob_write(const struct engine_choose *c,
                         const struct engine_vocab *v,
                         const struct engine_row *row, int32_t id,
                         struct buf *out);

#endif
