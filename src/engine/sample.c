/* sample: see sample.h. The draw is Gumbel-max: the largest of logit / T +
 * g(seed, position, id), which needs no sum over the vocabulary and has the
 * softmax's distribution.
 *
 * Filters need the best few in order. The vocabulary is not sorted for them:
 * tokens are counted in buckets by their distance from the best, and only
 * those in the buckets that a filter can reach are sorted.
 *
 * SPDX-License-Identifier: MIT */
#include "sample.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "../base/err.h"
#include "../base/hash.h"

enum { BUCKETS = 2048, BUCKETS_A_NAT = 64, LANES = 16 };

struct buckets {                    /* by distance; the last has the rest */
  uint32_t count[BUCKETS];
  double weight[BUCKETS];
};

struct draw {                       /* one call's */
  const struct engine_draw *how;
  uint64_t key;                     /* of seed and position */
  float most;                       /* the largest logit */
  double colder;                    /* 1 / temperature */
};


/* ---- the largest ---- */

/* The largest of what is below +infinity, and how many are not (NaN too): in
 * lanes, which compilers make vectors of. */
static float largest(const float *logits, uint32_t count, uint32_t *bad) {
  float lane[LANES], most = -INFINITY;
  uint32_t wrong[LANES] = { 0 }, i = 0;
  for (int k = 0; k < LANES; k++)
    lane[k] = -INFINITY;
  for (; i + LANES <= count; i += LANES)
    for (int k = 0; k < LANES; k++) {
      float x = logits[i + (uint32_t)k];
      lane[k] = x > lane[k] ? x : lane[k];
      wrong[k] += !(x < INFINITY);
    }
  for (*bad = 0; i < count; i++) {
    most = logits[i] > most ? logits[i] : most;
    *bad += !(logits[i] < INFINITY);
  }
  for (int k = 0; k < LANES; k++) {
    most = lane[k] > most ? lane[k] : most;
    *bad += wrong[k];
  }
  return most;
}


/* The best token: of equals the lowest id, so that greedy replies are the same
 * everywhere. A NaN compares false with everything and would win or lose at
 * random: the model or the file is broken, and the request says so. -infinity
 * is a legal way to forbid a token, as long as one is left. */
static int find_best(const float *logits, uint32_t count, int32_t *id,
                     drover_err *err) {
  uint32_t bad, at = 0;
  float most = largest(logits, count, &bad);
  while (bad && logits[at] < INFINITY)
    at++;
  if (bad)
    return drover_fail(err, DROVER_EINTERNAL, "nan_logits: the model's "
                       "logit of token %" PRIu32 " is not a finite number",
                       at);
  if (most == -INFINITY)
    return drover_fail(err, DROVER_EINTERNAL, "nan_logits: no token has a "
                       "finite logit");
  while (logits[at] != most)
    at++;
  *id = (int32_t)at;
  return DROVER_OK;
}


/* ---- chance ---- */

static uint64_t noise(const struct draw *d, int32_t id) {
  return hash_mix(d->key + (uint64_t)id) >> 11;
}


/* Standard Gumbel noise of one token, of its 53 random bits. */
static double gumbel(uint64_t bits) {
  double u = ((double)bits + 0.5) * 0x1p-53;    /* in (0, 1) */
  return -log(-log(u));
}


/* Below the best one, so that the coldest temperature has no infinities to
 * compare. */
static double scaled(const struct draw *d, float logit) {
  return ((double)logit - d->most) * d->colder;
}


/* 0 when the noise is surely below `need`: then 1 - u > exp(-need), and -
 * log(-log(u)) < need. The exponent of 1 - u is enough to see that, which
 * spares nearly all tokens both logarithms. */
static int may_reach(uint64_t bits, double need) {
  uint64_t left = (1ull << 53) - 1 - bits;      /* 1 - u, and less, in 2^-53 */
  if (need <= 0 || left == 0)
    return 1;
  int exponent = 63 - __builtin_clzll(left) - 53;
  return exponent <= 1e-6 - need * 1.4426950408889634;
}


/* Gumbel-max over the whole vocabulary, but for what min-p takes away: one
 * pass, no memory, no sum. */
static int32_t draw_any(const float *logits, uint32_t count,
                        const struct draw *d, int32_t id) {
  double highest = gumbel(noise(d, id));
  double floor = d->how->min_p > 0 ? log((double)d->how->min_p) : -INFINITY;
  for (uint32_t i = 0; i < count; i++) {
    double x = scaled(d, logits[i]);
    if (!(x >= floor) || x == -INFINITY)
      continue;
    uint64_t bits = noise(d, (int32_t)i);
    if (!may_reach(bits, highest - x))
      continue;
    x += gumbel(bits);
    if (x > highest) {
      highest = x;
      id = (int32_t)i;
    }
  }
  return id;
}


/* ---- the best few ---- */

static uint32_t bucket_of(const struct draw *d, float logit) {
  double far = -scaled(d, logit) * BUCKETS_A_NAT;
  return far < BUCKETS - 1 ? (uint32_t)far : BUCKETS - 1;
}


/* How many buckets from the best hold all that the filter can keep; without
 * top-k also what all weigh together. The last bucket's tokens are less than
 * exp(-31) each beside the best one, and count for nothing. */
static uint32_t reach(const float *logits, uint32_t count,
                      const struct draw *d, double *all) {
  struct buckets b = { { 0 }, { 0 } };
  double sum = 0, held = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (logits[i] == -INFINITY)
      continue;
    uint32_t at = bucket_of(d, logits[i]);
    b.count[at]++;
    if (!d->how->top_k && at < BUCKETS - 1)
      b.weight[at] += exp(scaled(d, logits[i]));
  }
  for (uint32_t i = 0; i < BUCKETS; i++)
    sum += b.weight[i];
  *all = sum;
  double want = d->how->top_k ? d->how->top_k : sum * d->how->top_p;
  for (uint32_t i = 0; i < BUCKETS - 1; i++) {
    held += d->how->top_k ? b.count[i] : b.weight[i];
    if (held >= want)
      return i + 1;
  }
  return BUCKETS;
}


static int by_logit(const void *a, const void *b) {
  const struct engine_candidate *x = a, *y = b;
  if (x->logit != y->logit)
    return x->logit > y->logit ? -1 : 1;
  return x->id < y->id ? -1 : 1;
}


/* How many of the sorted candidates top-k, top-p and min-p keep. */
static uint32_t cut(const struct engine_candidate *kept, uint32_t count,
                    double sum, const struct draw *d) {
  const struct engine_draw *how = d->how;
  double held = 0;
  uint32_t keep = 0;
  if (how->top_k && how->top_k < count)
    count = how->top_k;
  if (how->top_k)
    for (uint32_t i = sum = 0; i < count; i++)
      sum += exp(scaled(d, kept[i].logit));
  double enough = how->top_p < 1 ? how->top_p * sum : INFINITY;
  while (keep < count && (keep == 0 || held < enough)) {
    double weight = exp(scaled(d, kept[keep].logit));
    if (keep && weight < how->min_p)
      break;
    held += weight;
    keep++;
  }
  return keep;
}


/* Draw among the best. */
static int32_t draw_best(const float *logits, uint32_t count,
                         const struct draw *d,
                         struct engine_candidate *kept) {
  double sum, highest = -INFINITY;
  uint32_t buckets = reach(logits, count, d, &sum), found = 0;
  int32_t id = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (logits[i] == -INFINITY)
      continue;
    if (bucket_of(d, logits[i]) < buckets)
      kept[found++] = (struct engine_candidate){ logits[i], (int32_t)i };
  }
  qsort(kept, found, sizeof *kept, by_logit);
  found = cut(kept, found, sum, d);
  for (uint32_t i = 0; i < found; i++) {
    double x = scaled(d, kept[i].logit) + gumbel(noise(d, kept[i].id));
    if (i == 0 || x > highest) {
      highest = x;
      id = kept[i].id;
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
  int rc = find_best(logits, count, id, err);
  if (rc || draw->temperature == 0)
    return rc;
  struct draw d = { draw, hash_mix(hash_mix(draw->seed) ^ draw->position),
                    logits[*id], 1.0 / (double)draw->temperature };
  *id = draw->top_k || draw->top_p < 1 ? draw_best(logits, count, &d, scratch)
                                       : draw_any(logits, count, &d, *id);
  return DROVER_OK;
}


/* ---- log-probabilities ---- */

/* In double and below the largest logit: exp() cannot overflow, and the sum
 * over a large vocabulary keeps its digits. */
static double log_of_sum(const float *logits, uint32_t count) {
  uint32_t bad;
  float most = largest(logits, count, &bad);
  double sum = 0;
  for (uint32_t i = 0; i < count; i++)
    sum += exp((double)logits[i] - most);
  return most + log(sum);
}


double engine_sample_logprob(const float *logits, uint32_t count, int32_t id) {
  return (double)logits[id] - log_of_sum(logits, count);
}


/* A few best of many: each goes where it belongs among those found so far,
 * and most stop at the first comparison. */
uint32_t engine_sample_logprobs(const float *logits, uint32_t count,
                                int32_t id, uint32_t top,
                                struct engine_logprob *out) {
  double all = log_of_sum(logits, count);
  uint32_t found = 0;
  for (uint32_t i = 0; i < count && top; i++) {
    if (found == top && !(logits[i] > out[found - 1].logprob))
      continue;
    found += found < top;
    uint32_t at = found - 1;
    for (; at && logits[i] > out[at - 1].logprob; at--)
      out[at] = out[at - 1];
    out[at] = (struct engine_logprob){ (int32_t)i, logits[i] };
  }
  out[found] = (struct engine_logprob){ id, logits[id] };
  for (uint32_t i = 0; i <= found; i++)
    out[i].logprob = (float)(out[i].logprob - all);
  return found + 1;
}
