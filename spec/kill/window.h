/* window: does a recorded run keep a rate in every one of its windows?
 *
 * A window runs from the moment of one booking to that of another. What is
 * given back counts in it when it may have had its effect between both: a
 * process may have been stopped between looking at the clock and booking, so
 * the window's end is later by the longest such stop.
 *
 * Over all windows, in one pass: with B(t) what was booked up to t, the most
 * of B(end) - B(before start) - rate * (end - start) is found with the least
 * of B(before start) - rate * start so far.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_SPEC_WINDOW_H
#define DROVER_SPEC_WINDOW_H

#include <stdlib.h>

#include "drover.h"

struct window_event {               /* one attempt */
  double   at, after;               /* the clock ahead of the claim, behind */
  double   settle_from, settle_till;
  uint32_t tenant, booked, real;    /* tokens */
};

struct window_sum {
  size_t count;
  double seconds;
  double requests_above, tokens_above;      /* above rate * t, at most */
  double real, real_max;            /* tokens used, and that may have been */
};

struct window_back { double at; double tokens; };


static inline int window_by_at(const void *a, const void *b) {
  const struct window_event *x = a, *y = b;
  return (x->at > y->at) - (x->at < y->at);
}


static inline int window_by_back(const void *a, const void *b) {
  const struct window_back *x = a, *y = b;
  return (x->at > y->at) - (x->at < y->at);
}


/* What was given back, by the time of `late` (settle_till) or not. */
static inline struct window_back *window_backs(const struct window_event *e,
                                               size_t n, int late) {
  struct window_back *out = calloc(n + 1, sizeof *out);
  for (size_t i = 0; i < n; i++) {
    double less = e[i].booked > e[i].real ? e[i].booked - e[i].real : 0;
    out[i] = (struct window_back){ late ? e[i].settle_till : e[i].settle_from,
                                   less };
  }
  qsort(out, n, sizeof *out, window_by_back);
  return out;
}


/* The most that any window has above its rate, in units; per: units a
 * second. */
static inline double window_most(const struct window_event *e, size_t n,
                                 double per, int tokens) {
  struct window_back *from = window_backs(e, n, 0), *till = window_backs(e, n,
                                                                         1);
  double stop = 0, sum = 0, ended = 0, begun = 0, least = 0, most = 0;
  size_t f = 0, t = 0;
  for (size_t i = 0; i < n; i++)
    if (e[i].after - e[i].at > stop)
      stop = e[i].after - e[i].at;
  for (size_t i = 0; i < n; i++) {
    double at = e[i].at - e[0].at;
    while (tokens && t < n && till[t].at < e[i].at)
      begun += till[t++].tokens;
    while (tokens && f < n && from[f].at <= e[i].at + stop)
      ended += from[f++].tokens;
    double start = sum - begun - per * at;
    if (i == 0 || start < least)
      least = start;
    sum += tokens ? e[i].booked : 1;
    double above = sum - ended - per * at - least;
    if (above > most)
      most = above;
  }
  free(from);
  free(till);
  return most;
}


/* Of one tenant's attempts, or (0) of all. Sorts nothing of the caller's. */
static inline struct window_sum window_check(const struct window_event *all,
                                             size_t n, uint32_t tenant,
                                             const drover_limit *l) {
  struct window_event *e = calloc(n + 1, sizeof *e);
  struct window_sum sum = { 0 };
  size_t k = 0;
  for (size_t i = 0; i < n; i++)
    if (!tenant || all[i].tenant == tenant)
      e[k++] = all[i];
  qsort(e, k, sizeof *e, window_by_at);
  sum.count = k;
  sum.seconds = k ? e[k - 1].at - e[0].at : 0;
  sum.requests_above = window_most(e, k, l->rpm / 60.0, 0);
  sum.tokens_above = window_most(e, k, l->tpm / 60.0, 1);
  sum.real_max = l->tpm / 60.0 * sum.seconds + l->burst_tokens;
  for (size_t i = 0; i < k; i++) {
    sum.real += e[i].real;
    if (e[i].settle_till >= e[k - 1].at)        /* in flight at the end */
      sum.real_max += e[i].real;
  }
  free(e);
  return sum;
}

#endif
