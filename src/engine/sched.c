/* sched: see sched.h.
 *
 * SPDX-License-Identifier: MIT */
#include "sched.h"

#include <math.h>

#include "../drover.h"
#include "kv.h"

enum {
  TOKENS = ENGINE_BLOCK_TOKENS,
  REST_MOST = 1024                  /* of an open end, what is counted on */
};

static const int64_t SECOND = 1000000000, AGED_NS = 2000000000;

/* Much at first, since replies that were just begun are all still to come;
 * the least after some hundred steps without a preemption. */
static const double SHARE_MOST = 0.7, SHARE_LEAST = 0.1, SHARE_STEP = 0.001;

static const float GAIN_LEAST = 0.3f;   /* tokens a step, or no drafts */

/* Seconds that a priority costs: by enum drover_priority. */
static const int64_t later[] = { 0, 5, 60 };


static uint32_t least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}


static int64_t due(const struct engine_sched_seq *s) {
  return s->arrived_ns + later[s->priority] * SECOND;
}


/* ---- blocks ---- */

/* Blocks that its next step takes. A prompt has had all its own since it was
 * admitted. */
static uint32_t wanted(const struct engine_sched_seq *s) {
  uint32_t need = engine_kv_need(s->known);
  return s->running && need > s->held ? need - s->held : 0;
}


/* Of equally due ones the last that arrived. The only one is let be: all
 * blocks but its own are free then, and submit saw to it that they do. */
int engine_sched_victim(const struct engine_sched_limits *limits,
                        const struct engine_sched_seq *seqs, uint32_t count) {
  uint32_t need = 0, running = 0;
  int last = -1;
  for (uint32_t i = 0; i < count; i++) {
    if (!seqs[i].running)
      continue;
    need += wanted(&seqs[i]);
    running++;
    if (last < 0 || due(&seqs[i]) >= due(&seqs[last]))
      last = (int)i;
  }
  return need > limits->free_blocks && running > 1 ? last : -1;
}


int engine_sched_next(const struct engine_sched_limits *limits,
                      const struct engine_sched_seq *seqs, uint32_t count) {
  uint32_t running = 0;
  int first = -1;
  for (uint32_t i = 0; i < count; i++) {
    running += (uint32_t)seqs[i].running;
    if (!seqs[i].running && !seqs[i].passed
        && (first < 0 || due(&seqs[i]) < due(&seqs[first])))
      first = (int)i;
  }
  return running < limits->seqs ? first : -1;
}


/* Blocks that may be written to behind those it has or takes next. */
static double unwritten(const struct engine_sched_seq *s) {
  uint32_t rest = least(s->rest, REST_MOST);
  uint32_t all = engine_kv_need(s->known + rest);
  uint32_t has = s->running ? s->held + wanted(s) : engine_kv_need(s->known);
  return all > has ? all - has : 0;
}


int engine_sched_fits(const struct engine_sched_limits *limits,
                      const struct engine_sched_seq *seqs, uint32_t count,
                      uint32_t at) {
  double rest = unwritten(&seqs[at]), need = seqs[at].take;
  uint32_t running = 0;
  for (uint32_t i = 0; i < count; i++) {
    running += (uint32_t)seqs[i].running;
    need += wanted(&seqs[i]);
    rest += seqs[i].running ? unwritten(&seqs[i]) : 0;
  }
  need += ceil(rest * limits->share);
  return !running || need <= limits->free_blocks;
}


int engine_sched_aged(const struct engine_sched_limits *limits,
                      const struct engine_sched_seq *seq) {
  return limits->now_ns - due(seq) >= AGED_NS;
}


double engine_sched_share(double share, int preempted) {
  if (preempted || share > SHARE_MOST)
    return SHARE_MOST;
  return share - SHARE_STEP > SHARE_LEAST ? share - SHARE_STEP : SHARE_LEAST;
}


/* ---- rows ---- */

/* Its `rows` next rows see one key more each. */
static struct engine_load with(struct engine_load load,
                               const struct engine_sched_seq *s,
                               uint32_t rows) {
  uint64_t n = rows;
  load.rows += rows;
  load.keys += n * (s->computed + s->rows) + n * (n + 1) / 2;
  return load;
}


static uint32_t left(const struct engine_sched_seq *s) {
  return s->known - s->computed;
}


/* The aged first, by turn; then the urgent, and of those the shortest: each
 * that is through early is one more that decodes. */
static int before(const struct engine_sched_limits *limits,
                  const struct engine_sched_seq *a,
                  const struct engine_sched_seq *b) {
  int old_a = engine_sched_aged(limits, a);
  int old_b = engine_sched_aged(limits, b);
  if (old_a != old_b)
    return old_a;
  if (!old_a && later[a->priority] != later[b->priority])
    return later[a->priority] < later[b->priority];
  if (!old_a && left(a) != left(b))
    return left(a) < left(b);
  return due(a) < due(b);
}


/* The prompt that takes rows next; or NULL. One whose next block is being
 * computed by another in this very step waits: it will find it. */
static struct engine_sched_seq *choose(
    const struct engine_sched_limits *limits, struct engine_sched_seq *seqs,
    uint32_t count) {
  struct engine_sched_seq *best = NULL;
  for (uint32_t i = 0; i < count; i++) {
    struct engine_sched_seq *s = &seqs[i];
    int waits = !s->running || s->rows;
    for (uint32_t j = 0; j < count && !waits && s->twin; j++)
      waits = seqs[j].rows && seqs[j].twin == s->twin;
    if (!waits && (!best || before(limits, s, best)))
      best = s;
  }
  return best;
}


/* Rows of one prompt beside `load`: as many as the step's time allows, and
 * where that is not all of them, up to the end of a block. The first prompt
 * gets a block whatever it costs. */
static uint32_t chunk(const struct engine_sched_limits *limits,
                      const struct engine_cost *cost, struct engine_load load,
                      const struct engine_sched_seq *s, int first) {
  uint32_t n = least(left(s), limits->rows - load.rows);
  while (n && engine_cost_guess(cost, limits->knee, with(load, s, n))
         > limits->step_seconds) {
    if (n <= TOKENS)
      return first ? n : 0;
    n = n % TOKENS ? n - n % TOKENS : n - TOKENS;
  }
  uint32_t over = (s->computed + n) % TOKENS;
  if (n == left(s) || !over)
    return n;
  return n > over ? n - over : first ? n : 0;
}


/* One prompt at most is left partial: two halves would help nobody. */
static struct engine_load add_prompts(const struct engine_sched_limits *limits,
                                      const struct engine_cost *cost,
                                      struct engine_load load,
                                      struct engine_sched_seq *seqs,
                                      uint32_t count) {
  for (int first = 1; load.rows < limits->rows; first = 0) {
    struct engine_sched_seq *s = choose(limits, seqs, count);
    uint32_t n = s ? chunk(limits, cost, load, s, first) : 0;
    if (!n)
      break;
    load = with(load, s, n);
    s->rows = n;
    if (n < left(s))
      break;
  }
  return load;
}


/* Guessed tokens pay when what they add to the step's time is less than what
 * they add to its tokens. */
static int pays(const struct engine_sched_limits *limits,
                const struct engine_cost *cost, struct engine_load load,
                const struct engine_sched_seq *s, uint32_t draft) {
  struct engine_load more = with(load, s, draft);
  if (limits->draft == DROVER_DRAFT_ALWAYS)
    return 1;
  if (s->gain < GAIN_LEAST || more.rows > limits->knee)
    return 0;
  double now = engine_cost_guess(cost, limits->knee, load);
  double then = engine_cost_guess(cost, limits->knee, more);
  return now == 0 || (then - now) * load.rows < now * (double)s->gain;
}


/* Only where nobody reads a prompt: there the rows are worth more. */
static struct engine_load add_drafts(const struct engine_sched_limits *limits,
                                     const struct engine_cost *cost,
                                     struct engine_load load,
                                     struct engine_sched_seq *seqs,
                                     uint32_t count) {
  uint32_t drafts = limits->draft == DROVER_DRAFT_NEVER ? 0 : limits->drafts;
  uint32_t blocks = limits->free_blocks;
  for (uint32_t i = 0; i < count; i++)
    blocks -= least(blocks, wanted(&seqs[i]));
  for (uint32_t i = 0; i < count && drafts; i++) {
    struct engine_sched_seq *s = &seqs[i];
    uint32_t n = least(least(s->offered, drafts), limits->rows - load.rows);
    uint32_t has = s->held + wanted(s);
    uint32_t need = engine_kv_need(s->known + n);
    uint32_t more = need > has ? need - has : 0;
    if (!s->rows || !n || more > blocks || !pays(limits, cost, load, s, n))
      continue;
    load = with(load, s, n);
    s->draft = n;
    drafts -= n;
    blocks -= more;
  }
  return load;
}


/* Those that decode always fit, since rows >= seqs. */
uint32_t engine_sched_rows(const struct engine_sched_limits *limits,
                           const struct engine_cost *cost,
                           struct engine_sched_seq *seqs, uint32_t count) {
  struct engine_load load = { 0, 0 };
  for (uint32_t i = 0; i < count; i++) {
    struct engine_sched_seq *s = &seqs[i];
    s->rows = s->draft = 0;
    if (!s->running || left(s) != 1)
      continue;
    load = with(load, s, 1);
    s->rows = 1;
  }
  uint32_t decoding = load.rows;
  load = add_prompts(limits, cost, load, seqs, count);
  if (load.rows == decoding)
    load = add_drafts(limits, cost, load, seqs, count);
  return load.rows;
}
