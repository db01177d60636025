/* average: see average.h.
 *
 * SPDX-License-Identifier: MIT */
#include "average.h"

#include <math.h>

/* A new node's latency of 50 ms gives it 0.75 of that term; a failure counts
 * as a second, five times what makes the term 0, so one of them shows. */
#define SCORE_LATENCY_MS 50.0f      /* health_score: start, failure, weights */
#define SCORE_FAILED_MS 1000.0f


/* exp(-dt / tau). A busy node is fed every few milliseconds: there three
 * terms of the series are exact to 1e-6 and spare the call. */
static float decay(double dt) {
  float x = (float)(dt * (1 / AVERAGE_TAU));
  if (!(x > 0))
    return 1;
  if (x < 0.02f)
    return 1 - x + x * x * 0.5f;
  return expf(-x);
}


/* Finagle's peak-EWMA: pessimistic at once, forgiving with time. A node that
 * begins to queue is avoided from its first slow answer on. */
static void feed_first(drover_node *row, struct node_row *own, float ms,
                       double now) {
  float old = atom_get_f32(&row->first_token_ms);
  if (ms < old) {                   /* false when the old one is unknown */
    float w = decay(now - atom_get_f64(&own->first_at));
    ms += (old - ms) * w;
  }
  atom_set_f64(&own->first_at, now);
  atom_set_f32(&row->first_token_ms, ms);
}


/* Sum and count decay alike, so their quotient is the mean of what came
 * lately, weighted by how lately; no first value has to be guessed. */
static void feed_token(drover_node *row, struct node_row *own, float ms,
                       float w) {
  float n = atom_get_f32(&own->token_n) * w + 1;
  float sum = atom_get_f32(&own->token_sum) * w + ms;
  atom_set_f32(&own->token_n, n);
  atom_set_f32(&own->token_sum, sum);
  atom_set_f32(&row->token_ms, sum / n);
}


/* Below 1e-6 the rate is shown as 0: without that it would only ever fall,
 * and into subnormal floats, which are slow to compute with. */
static void feed_errors(drover_node *row, struct node_row *own, int failed,
                        float w) {
  float tries = atom_get_f32(&own->tries) * w + 1;
  float errors = atom_get_f32(&own->errors) * w + (failed ? 1.0f : 0.0f);
  atom_set_f32(&own->tries, tries);
  if (errors < 1e-6f) {
    errors = 0;
    atom_set_f32(&row->error_rate, 0);
  } else {
    atom_set_f32(&row->error_rate, errors / tries);
  }
  atom_set_f32(&own->errors, errors);
}


/* The health score's own terms, plain and slow on purpose (docs/LUA-API.md
 * has the formula): load moves by -5 a reply and +10 a failure within
 * 0..100, latency by 0.3 towards each sample. */
static void feed_score(struct node_row *own, int failed, float ms) {
  float load = atom_get_f32(&own->score_load) + (failed ? 10.0f : -5.0f);
  atom_set_f32(&own->score_load, !(load > 0) ? 0 : load < 100 ? load : 100);
  float sample = failed ? SCORE_FAILED_MS : ms;
  if (!(sample >= 0))
    return;
  float old = atom_get_f32(&own->score_latency_ms);
  atom_set_f32(&own->score_latency_ms, 0.7f * old + 0.3f * sample);
}


/* Plain loads and stores: of two processes that settle at once one sample
 * may be lost, which an average does not show. One decay serves both sums,
 * since both are as old as `outcome_at`. */
void node_average_feed(drover_node *row, struct node_row *own,
                       const struct node_sample *s, double now) {
  float w = decay(now - atom_get_f64(&own->outcome_at));
  atom_set_f64(&own->outcome_at, now);
  feed_errors(row, own, s->failed, w);
  if (s->token_ms >= 0) {
    feed_token(row, own, s->token_ms, w);
  } else {                          /* keeps pace with outcome_at */
    atom_set_f32(&own->token_n, atom_get_f32(&own->token_n) * w);
    atom_set_f32(&own->token_sum, atom_get_f32(&own->token_sum) * w);
  }
  if (s->first_token_ms >= 0)
    feed_first(row, own, s->first_token_ms, now);
  if (s->replied)
    atom_set_f64(&own->seen_at, now);
  if (s->failed || s->replied)
    feed_score(own, s->failed, s->first_token_ms);
}


/* NaN fails the comparison, and so does a negative figure that some exporter
 * sends for "unknown". */
static void set_known(float *field, float value) {
  if (value >= 0)
    atom_set_f32(field, value);
}


/* A report counts as a sign of life like a reply: health_score asks for one
 * of them within 30 s. Load past 100 % is shown as reported but scored as
 * 100. */
void node_average_report(drover_node *row, struct node_row *own,
                         const drover_report *report, double now) {
  set_known(&row->memory_gb, report->memory_gb);
  set_known(&row->waiting, report->waiting);
  set_known(&row->kv_used, report->kv_used);
  set_known(&row->load, report->load);
  set_known(&own->score_load, report->load < 100 ? report->load
                              : report->load >= 100 ? 100 : NAN);
  atom_set_f64(&own->seen_at, now);
}


/* `first_token_ms` begins at the pool's mean: at 0 a new node would draw
 * every request, at NaN none would be compared by time. */
void node_average_reset(drover_node *row, struct node_row *own,
                        float first_token_ms, double now) {
  atom_set_f32(&row->first_token_ms, first_token_ms);
  atom_set_f32(&row->token_ms, NAN);
  atom_set_f32(&row->error_rate, NAN);
  atom_set_f32(&row->waiting, NAN);
  atom_set_f32(&row->kv_used, NAN);
  atom_set_f32(&row->load, NAN);
  atom_set_f64(&own->outcome_at, now);
  atom_set_f64(&own->first_at, now);
  atom_set_f32(&own->tries, 0);
  atom_set_f32(&own->errors, 0);
  atom_set_f32(&own->token_n, 0);
  atom_set_f32(&own->token_sum, 0);
  atom_set_f32(&own->score_latency_ms, SCORE_LATENCY_MS);
  atom_set_f32(&own->score_load, 0);
  atom_set_f64(&own->seen_at, NAN);
  atom_set_f64(&own->added_at, now);
  __atomic_store_n(&own->last_code, 0, __ATOMIC_RELAXED);
}


static int in_use(const struct node_table *t, uint32_t row) {
  return atom_get_u32(&t->rows[row].state) != DROVER_REMOVED;
}


/* Not weighted by use: it stands for "a node of this pool", the busy ones
 * are no more typical than the others. */
float node_average_mean(const struct node_table *t) {
  uint32_t count = atom_get_u32(t->count), known = 0;
  float sum = 0;
  for (uint32_t i = 1; i <= count; i++) {
    float ms = atom_get_f32(&t->rows[i].first_token_ms);
    if (!in_use(t, i) || isnan(ms))
      continue;
    sum += ms;
    known++;
  }
  return known ? sum / (float)known : NAN;
}


/* Only what is worse than the mean drifts, and only rows that had no sample
 * for a time constant: a slow node gets another try, a fast one keeps its
 * name. By the tick, in one process for each stretch of time. */
void node_average_age(const struct node_table *t, double dt, double now) {
  uint32_t count = atom_get_u32(t->count);
  float mean = node_average_mean(t);
  float w = decay(dt);
  for (uint32_t i = 1; i <= count; i++) {
    drover_node *row = &t->rows[i];
    float ms = atom_get_f32(&row->first_token_ms);
    double idle = now - atom_get_f64(&t->own[i].first_at);
    if (ms > mean && idle > AVERAGE_TAU && in_use(t, i))
      atom_set_f32(&row->first_token_ms, mean + (ms - mean) * w);
  }
}
