/* choose: see choose.h.
 *
 * SPDX-License-Identifier: MIT */
#include "choose.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "../base/err.h"
#include "../base/hash.h"
#include "../base/mem.h"


/* ---- what a request says ---- */

/* NaN fails every comparison. */
static int in_range(const char *name, float x, double low, double high,
                    drover_err *err) {
  return x >= low && x <= high ? DROVER_OK
    : drover_fail(err, DROVER_EINVAL, "%s: %g, %g to %g expected", name,
                  (double)x, low, high);
}


/* An infinite temperature would make all scores equal zeroes, or NaN. */
static int check_draw(const drover_generate *g, drover_err *err) {
  if (!(g->temperature >= 0 && g->temperature < INFINITY))
    return drover_fail(err, DROVER_EINVAL, "temperature: %g, 0 or more "
                       "expected", (double)g->temperature);
  if (!(g->top_p > 0 && g->top_p <= 1))
    return drover_fail(err, DROVER_EINVAL, "top_p: %g, above 0 and at most 1 "
                       "expected", (double)g->top_p);
  if (g->repetition != 0 && !(g->repetition >= 0.01f))
    return drover_fail(err, DROVER_EINVAL, "repetition_penalty: %g, 0.01 to "
                       "100 expected", (double)g->repetition);
  int rc = in_range("min_p", g->min_p, 0, 1, err);
  if (!rc)
    rc = in_range("repetition_penalty", g->repetition, 0, 100, err);
  if (!rc)
    rc = in_range("presence_penalty", g->presence, -2, 2, err);
  return rc ? rc : in_range("frequency_penalty", g->frequency, -2, 2, err);
}


static int check_id(const char *name, uint32_t at, int32_t id,
                    const struct engine_vocab *v, drover_err *err) {
  return id >= 0 && (uint32_t)id < v->size ? DROVER_OK
    : drover_fail(err, DROVER_EBADREQUEST, "%s[%" PRIu32 "]: token %" PRId32
                  ", the vocabulary has %" PRIu32, name, at, id, v->size);
}


static int too_many(const char *name, uint32_t count, uint32_t most,
                    const void *list, drover_err *err) {
  if (count > most)
    return drover_fail(err, DROVER_EINVAL, "%s: %" PRIu32 ", at most %" PRIu32,
                       name, count, most);
  return !count || list ? DROVER_OK
    : drover_fail(err, DROVER_EINVAL, "%s: missing for a count above 0", name);
}


static int check_tokens(const drover_generate *g, const struct engine_vocab *v,
                        drover_err *err) {
  int rc = too_many("logit_bias", g->bias_count, ENGINE_BIAS_MAX, g->bias,
                    err);
  if (!rc)
    rc = too_many("stop_token_ids", g->stop_id_count, ENGINE_STOP_IDS_MAX,
                  g->stop_id, err);
  for (uint32_t i = 0; i < g->bias_count && !rc; i++) {
    rc = check_id("logit_bias", i, g->bias[i].token, v, err);
    if (!rc)
      rc = in_range("logit_bias", g->bias[i].bias, -100, 100, err);
  }
  for (uint32_t i = 0; i < g->stop_id_count && !rc; i++)
    rc = check_id("stop_token_ids", i, g->stop_id[i], v, err);
  if (!rc && g->top_logprobs > ENGINE_TOP_MAX)
    rc = drover_fail(err, DROVER_EINVAL, "top_logprobs: %" PRIu32
                     ", at most %d", g->top_logprobs, ENGINE_TOP_MAX);
  if (!rc && g->logprobs > 1)
    rc = drover_fail(err, DROVER_EINVAL, "logprobs: %" PRIu32 ", 0 or 1 "
                     "expected", g->logprobs);
  if (!rc && g->top_logprobs && !g->logprobs)
    rc = drover_fail(err, DROVER_EINVAL, "top_logprobs: without logprobs");
  return rc;
}


/* A copy of a list; NULL for none and when there is no memory. */
static void *copy(const void *list, size_t size) {
  void *to = size ? mem_alloc(size) : NULL;
  if (to)
    memcpy(to, list, size);
  return to;
}


static int copy_lists(struct engine_choose *c, const drover_generate *g,
                      drover_err *err) {
  c->bias = copy(g->bias, g->bias_count * sizeof *g->bias);
  c->stop_id = copy(g->stop_id, g->stop_id_count * sizeof *g->stop_id);
  if ((g->bias_count && !c->bias) || (g->stop_id_count && !c->stop_id))
    return drover_fail(err, DROVER_ENOMEM, "no memory for a request");
  c->biases = g->bias_count;
  c->stop_ids = g->stop_id_count;
  return DROVER_OK;
}


/* The grammar comes last: it is the one thing that costs. */
static int init_mask(struct engine_choose *c, const struct engine_trie *trie,
                     const drover_generate *g, drover_err *err) {
  if (g->format == DROVER_FORMAT_TEXT)
    return DROVER_OK;
  if (g->format == DROVER_FORMAT_JSON)
    return engine_mask_new(&c->mask, trie, NULL, 0, err);
  if (g->format != DROVER_FORMAT_SCHEMA || !g->schema.data)
    return drover_fail(err, DROVER_EINVAL, "response_format: a schema is "
                       "missing, or the type is none");
  return engine_mask_new(&c->mask, trie, g->schema.data, g->schema.size, err);
}


int engine_choose_init(struct engine_choose *c, const struct engine_vocab *v,
                       const struct engine_trie *trie,
                       const drover_generate *g, drover_err *err) {
  memset(c, 0, sizeof *c);
  int rc = check_draw(g, err);
  if (!rc)
    rc = check_tokens(g, v, err);
  if (rc)
    return rc;
  c->draw = (struct engine_draw){
    .temperature = g->temperature, .top_k = g->top_k, .top_p = g->top_p,
    .seed = g->seed, .min_p = g->min_p
  };
  c->repetition = g->repetition != 0 ? g->repetition : 1;
  c->presence = g->presence;
  c->frequency = g->frequency;
  c->logprobs = g->logprobs != 0;
  c->top = g->top_logprobs;
  rc = copy_lists(c, g, err);
  return rc ? rc : init_mask(c, trie, g, err);
}


void engine_choose_deinit(struct engine_choose *c) {
  mem_free(c->bias);
  mem_free(c->stop_id);
  mem_free(c->seen);
  engine_mask_free(c->mask);
  memset(c, 0, sizeof *c);
}


/* ---- penalties ---- */

static struct engine_seen *seen_at(struct engine_seen *seen, uint32_t room,
                                   int32_t id) {
  uint32_t at = (uint32_t)hash_mix((uint64_t)id) & (room - 1);
  while (seen[at].id >= 0 && seen[at].id != id)
    at = (at + 1) & (room - 1);
  return &seen[at];
}


static int grow(struct engine_choose *c) {
  uint32_t room = c->seen_room ? c->seen_room * 2 : 64;
  struct engine_seen *seen = mem_alloc(room * sizeof *seen);
  if (!seen)
    return DROVER_ENOMEM;
  for (uint32_t i = 0; i < room; i++)
    seen[i] = (struct engine_seen){ -1, 0 };
  for (uint32_t i = 0; i < c->seen_room; i++)
    if (c->seen[i].id >= 0)
      *seen_at(seen, room, c->seen[i].id) = c->seen[i];
  mem_free(c->seen);
  c->seen = seen;
  c->seen_room = room;
  return DROVER_OK;
}


/* Count the ids that have come since the last token. */
static int look(struct engine_choose *c, const struct engine_row *row) {
  for (; c->looked < row->ids->count; c->looked++) {
    if (c->seen_used * 2 >= c->seen_room && grow(c))
      return DROVER_ENOMEM;
    int32_t id = row->ids->at[c->looked];
    struct engine_seen *s = seen_at(c->seen, c->seen_room, id);
    c->seen_used += s->id < 0;
    s->id = id;
    s->count += c->looked >= row->prompt;
  }
  return DROVER_OK;
}


static int is_penal(const struct engine_choose *c) {
  return c->repetition != 1 || c->presence != 0 || c->frequency != 0;
}


static int penalize(struct engine_choose *c, const struct engine_row *row) {
  if (look(c, row))
    return DROVER_ENOMEM;
  for (uint32_t i = 0; i < c->seen_room; i++) {
    const struct engine_seen *s = &c->seen[i];
    if (s->id < 0 || (uint32_t)s->id >= row->count)
      continue;
    float *l = &row->work[s->id];
    *l = *l > 0 ? *l / c->repetition : *l * c->repetition;
    *l -= c->presence * (float)(s->count > 0)
      + c->frequency * (float)s->count;
  }
  return DROVER_OK;
}


/* ---- the token ---- */

static int has_filter(const struct engine_draw *d) {
  return d->temperature > 0 && (d->top_k || d->top_p < 1 || d->min_p > 0);
}


/* Forbid what the grammar does not let follow. */
static int apply_mask(struct engine_choose *c, const struct engine_row *row,
                      drover_err *err) {
  const uint64_t *bits = engine_mask_bits(c->mask);
  uint64_t some = 0;
  if (!bits)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a mask");
  for (size_t i = 0; i < c->mask->trie->mask_words; i++)
    some |= bits[i];
  if (!some)
    return drover_fail(err, DROVER_EINTERNAL, "response_format: no token of "
                       "the vocabulary can follow");
  for (uint32_t id = 0; id < row->count; id++)
    if (id / 64 >= c->mask->trie->mask_words
        || !(bits[id / 64] >> id % 64 & 1))
      row->work[id] = -INFINITY;
  return DROVER_OK;
}


/* The work row is written where something changes it; else the model's own
 * is read. A logit that is no number is found before a mask could hide it:
 * the first draw, with a filter a greedy one for that alone, looks at all. */
int engine_choose_next(struct engine_choose *c, const struct engine_row *row,
                       int32_t *id, drover_err *err) {
  int changes = c->biases || is_penal(c) || c->mask;
  c->draw.position = row->ids->count - row->prompt;
  if (changes)
    memcpy(row->work, row->logits, row->count * sizeof *row->work);
  for (uint32_t i = 0; i < c->biases; i++)
    row->work[c->bias[i].token] += c->bias[i].bias;
  if (is_penal(c) && penalize(c, row))
    return drover_fail(err, DROVER_ENOMEM, "no memory for penalties");
  const float *logits = changes ? row->work : row->logits;
  const struct engine_draw first = has_filter(&c->draw) && c->mask
    ? (struct engine_draw){ 0 } : c->draw;
  int rc = engine_sample(logits, row->count, &first, row->scratch, id, err);
  if (rc || !c->mask)
    return rc;
  if (!has_filter(&c->draw) && engine_mask_allows(c->mask, *id))
    return DROVER_OK;
  rc = apply_mask(c, row, err);
  return rc ? rc : engine_sample(logits, row->count, &c->draw, row->scratch,
                                 id, err);
}


int engine_choose_ends(struct engine_choose *c, const struct engine_vocab *v,
                       int32_t id) {
  int ends = engine_vocab_ends(v, id);
  for (uint32_t i = 0; i < c->stop_ids; i++)
    ends |= c->stop_id[i] == id;
  return ends;
}
