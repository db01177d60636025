/* sample: see sample.h. The draw is Gumbel-max: the largest of logit / T +
 * g(seed, position, id), which needs no sum over the vocabulary and has the
 * softmax's distribution.
 *
 * SPDX-License-Identifier: MIT */
#include "sample.h"

#include <inttypes.h>
#include <math.h>

#include "../base/err.h"
#include "../base/hash.h"


/* A NaN compares false with everything and would win or lose at random: the
 * model or the file is broken, and the request says so. -infinity is a legal
 * way to forbid a token, as long as one is left. */
static int check(const float *logits, uint32_t count, drover_err *err) {
  int some = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (!(logits[i] < INFINITY))
      return drover_fail(err, DROVER_EINTERNAL, "nan_logits: the model's "
                         "logit of token %" PRIu32 " is not a finite number",
                         i);
    some |= logits[i] > -INFINITY;
  }
  return some ? DROVER_OK
    : drover_fail(err, DROVER_EINTERNAL, "nan_logits: no token has a finite "
                  "logit");
}


/* Of equals the lowest id, so that greedy replies are the same everywhere. */
static int32_t best(const float *logits, uint32_t count) {
  uint32_t at = 0;
  for (uint32_t i = 1; i < count; i++)
    if (logits[i] > logits[at])
      at = i;
  return (int32_t)at;
}


/* Standard Gumbel noise of one token. */
static double gumbel(const struct engine_draw *d, int32_t id) {
  uint64_t bits = hash_mix(hash_mix(hash_mix(d->seed) ^ d->position)
                           + (uint64_t)id);
  double u = ((double)(bits >> 11) + 0.5) * 0x1p-53;   /* in (0, 1) */
  return -log(-log(u));
}


/* ---- the largest first, as many as are asked for ---- */

static int above(struct engine_candidate a, struct engine_candidate b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}


/* A heap and no sort: top-k needs k of the vocabulary's 100,000 and more. */
static void sift(struct engine_candidate *heap, uint32_t count, uint32_t at) {
  struct engine_candidate c = heap[at];
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= count)
      break;
    if (child + 1 < count && above(heap[child + 1], heap[child]))
      child++;
    if (!above(heap[child], c))
      break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = c;
}


/* Move the next best to the end of the heap; a heap of one less remains. */
static struct engine_candidate pop(struct engine_candidate *heap,
                                   uint32_t count) {
  struct engine_candidate top = heap[0];
  heap[0] = heap[count - 1];
  heap[count - 1] = top;
  sift(heap, count - 1, 0);
  return top;
}


/* Below the best one, so that the coldest temperature has no infinities to
 * compare. */
static double scaled(const struct engine_draw *d, float logit, float most) {
  return ((double)logit - most) / d->temperature;
}


static double weight(const struct engine_draw *d, float logit, float most) {
  return exp(scaled(d, logit, most));
}


/* What the weights of the tokens that top-k keeps sum up to. */
static double total(const struct engine_candidate *kept, uint32_t count,
                    const struct engine_draw *d, float most) {
  double sum = 0;
  for (uint32_t i = 0; i < count; i++)
    sum += weight(d, kept[i].logit, most);
  return sum;
}


/* Draw among the best of a heap: top_k of them, and of those the fewest that
 * hold top_p of the probability. */
static int32_t draw_best(struct engine_candidate *heap, uint32_t count,
                         const struct engine_draw *d) {
  uint32_t keep = d->top_k && d->top_k < count ? d->top_k : count;
  uint32_t popped = 0;
  float most = heap[0].logit;
  if (keep < count)
    for (; popped < keep; popped++)
      pop(heap, count - popped);
  double sum = popped ? total(heap + count - keep, keep, d, most)
                      : total(heap, count, d, most);
  double enough = d->top_p < 1 ? d->top_p * sum : INFINITY;
  double held = 0, highest = -INFINITY;
  int32_t id = 0;
  for (uint32_t i = 0; i < keep && (i == 0 || held < enough); i++) {
    struct engine_candidate c = popped ? heap[count - 1 - i]
                                       : pop(heap, count - i);
    double x = scaled(d, c.logit, most) + gumbel(d, c.id);
    held += weight(d, c.logit, most);
    if (i == 0 || x > highest) {
      highest = x;
      id = c.id;
    }
  }
  return id;
}


/* Gumbel-max over the whole vocabulary: one pass, no memory, no sum. */
static int32_t draw_any(const float *logits, uint32_t count,
                        const struct engine_draw *d) {
  double highest = -INFINITY;
  int32_t id = best(logits, count);
  float most = logits[id];
  for (uint32_t i = 0; i < count; i++) {
    double x = scaled(d, logits[i], most) + gumbel(d, (int32_t)i);
    if (x > highest) {
      highest = x;
      id = (int32_t)i;
    }
  }
  return id;
}


/* Each draw is a function of (logits, seed, position): no state, so a
 * preempted or cancelled neighbour changes nothing. */
int engine_sample(const float *logits, uint32_t count,
                  const struct engine_draw *draw,
                  struct engine_candidate *scratch, int32_t *id,
                  drover_err *err) {
  int rc = check(logits, count, err);
  if (rc)
    return rc;
  if (draw->temperature == 0) {
    *id = best(logits, count);
    return DROVER_OK;
  }
  if (!draw->top_k && draw->top_p >= 1) {
    *id = draw_any(logits, count, draw);
    return DROVER_OK;
  }
  for (uint32_t i = 0; i < count; i++)
    scratch[i] = (struct engine_candidate){ logits[i], (int32_t)i };
  for (uint32_t i = count / 2; i-- > 0;)
    sift(scratch, count, i);
  *id = draw_best(scratch, count, draw);
  return DROVER_OK;
}


/* In double and below the largest logit: exp() cannot overflow, and the sum
 * over a large vocabulary keeps its digits. */
double engine_sample_logprob(const float *logits, uint32_t count, int32_t id) {
  float most = logits[best(logits, count)];
  double sum = 0;
  for (uint32_t i = 0; i < count; i++)
    sum += exp((double)logits[i] - most);
  return (double)logits[id] - most - log(sum);
}
