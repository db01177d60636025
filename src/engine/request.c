/* request: see request.h.
 *
 * SPDX-License-Identifier: MIT */
#include "request.h"

#include <inttypes.h>
#include <math.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"


/* NaN fails both comparisons. */
static int check_deadline(const char *name, double seconds, drover_err *err) {
  return seconds >= 0 && seconds < INFINITY ? DROVER_OK
    : drover_fail(err, DROVER_EINVAL, "%s: %g seconds, 0 or more expected",
                  name, seconds);
}


/* A size without bytes would be read from NULL. */
static int check_text(const char *name, drover_text text, drover_err *err) {
  return text.data || !text.size ? DROVER_OK
    : drover_fail(err, DROVER_EINVAL, "%s: no bytes for a size of %zu", name,
                  text.size);
}


/* One stop string past the limit is looked at too and no more:
 * engine_reply_init() refuses the count without reading them all. */
static int check_texts(const drover_generate *g, drover_err *err) {
  int rc = check_text("prompt", g->prompt, err);
  if ((g->messages_count && !g->messages) || (g->stop_count && !g->stop))
    return drover_fail(err, DROVER_EINVAL, "%s: missing for a count above 0",
                       g->messages_count && !g->messages ? "messages"
                                                         : "stop");
  for (uint32_t i = 0; i < g->messages_count && !rc; i++) {
    rc = check_text("messages.role", g->messages[i].role, err);
    if (!rc)
      rc = check_text("messages.content", g->messages[i].content, err);
  }
  for (uint32_t i = 0; i < g->stop_count && i <= ENGINE_STOPS_MAX && !rc; i++)
    rc = check_text("stop", g->stop[i], err);
  return rc;
}


/* NaN fails each of these; an infinite temperature would make all scores
 * equal zeroes, or NaN. */
static int check(const drover_generate *g, drover_err *err) {
  if (!(g->temperature >= 0 && g->temperature < INFINITY))
    return drover_fail(err, DROVER_EINVAL, "temperature: %g, 0 or more "
                       "expected", (double)g->temperature);
  if (!(g->top_p > 0 && g->top_p <= 1))
    return drover_fail(err, DROVER_EINVAL, "top_p: %g, above 0 and at most 1 "
                       "expected", (double)g->top_p);
  if (g->priority > DROVER_BATCH || g->pool > DROVER_POOL_CLS)
    return drover_fail(err, DROVER_EINVAL, "%s: %" PRIu32 " is unknown",
                       g->pool > DROVER_POOL_CLS ? "pool" : "priority",
                       g->pool > DROVER_POOL_CLS ? g->pool : g->priority);
  int rc = check_deadline("first_token", g->first_token, err);
  if (!rc)
    rc = check_deadline("total", g->total, err);
  return rc ? rc : check_texts(g, err);
}


/* A text so long that no split into tokens fits is refused unread. */
static int encode(struct engine_request *r, const struct engine_model *m,
                  uint32_t context, const struct engine_prompt *p,
                  drover_err *err) {
  size_t least = p->size / (m->vocab->longest ? m->vocab->longest : 1);
  if (least > context)
    return drover_fail(err, DROVER_ECONTEXT, "the maximum context length is %"
                       PRIu32 " tokens, the prompt has at least %zu", context,
                       least);
  return engine_vocab_encode(m->vocab, p, 1, &r->ids, err);
}


/* The rendered prompt lives only as long as its encoding. */
static int encode_messages(struct engine_request *r,
                           const struct engine_model *m, uint32_t context,
                           const drover_generate *g, drover_err *err) {
  struct engine_chat_text t = { 0 };
  int rc = engine_chat_render(m->chat, g->messages, g->messages_count, &t,
                              err);
  if (!rc) {
    struct engine_prompt p = { t.text.at, t.text.size, t.span, t.spans };
    rc = encode(r, m, context, &p, err);
  }
  engine_chat_deinit(&t);
  return rc;
}


/* A raw prompt stands for a rendered template: special tokens are parsed. */
static int encode_raw(struct engine_request *r, const struct engine_model *m,
                      uint32_t context, const drover_generate *g,
                      drover_err *err) {
  struct engine_span all = { g->prompt.size, 1 };
  struct engine_prompt p = { g->prompt.data, g->prompt.size, &all, 1 };
  return encode(r, m, context, &p, err);
}


static int seat(struct engine_request *r, uint32_t tokens, drover_err *err) {
  r->seat.most = engine_kv_need(tokens);
  r->seat.block = mem_alloc(r->seat.most * sizeof *r->seat.block);
  return r->seat.block ? DROVER_OK
    : drover_fail(err, DROVER_ENOMEM, "no memory for a request");
}


/* A prompt whose vector is wanted may fill the context; its `max_tokens` are
 * 0. */
static int measure_pool(struct engine_request *r, const struct engine_model *m,
                        uint32_t context, drover_err *err) {
  if (r->ids.count > context)
    return drover_fail(err, DROVER_ECONTEXT, "the maximum context length is %"
                       PRIu32 " tokens, the prompt has %zu", context,
                       r->ids.count);
  r->prompt = (uint32_t)r->ids.count;
  r->vector = mem_calloc(m->shape.width, sizeof *r->vector);
  return r->vector ? seat(r, r->prompt, err)
    : drover_fail(err, DROVER_ENOMEM, "no memory for a request");
}


/* The reply's last token is never fed back, so it needs no place. */
static int measure(struct engine_request *r, const struct engine_model *m,
                   uint32_t context, uint32_t max_tokens, drover_err *err) {
  if (r->ids.count == 0)
    return drover_fail(err, DROVER_EBADREQUEST, "the prompt is empty and the "
                       "model puts no token in front");
  if (r->pool)
    return measure_pool(r, m, context, err);
  if (r->ids.count >= context || max_tokens > context - r->ids.count)
    return drover_fail(err, DROVER_ECONTEXT, "the maximum context length is %"
                       PRIu32 " tokens, the prompt has %zu and max_tokens is %"
                       PRIu32, context, r->ids.count,
                       max_tokens ? max_tokens : 1);
  r->prompt = (uint32_t)r->ids.count;
  r->max_tokens = max_tokens ? max_tokens : context - r->prompt;
  return seat(r, r->prompt + r->max_tokens - 1, err);
}


/* A deadline past the clock's range is none. */
static int64_t deadline(double seconds, int64_t now_ns) {
  int64_t by;
  if (seconds == 0 || __builtin_add_overflow(now_ns, clock_ns(seconds), &by))
    return 0;
  return by;
}


/* What is cheap to refuse comes first, the encoding late: a bad field costs
 * no tokenizing. */
int engine_request_new(struct engine_request **out,
                       const struct engine_model *m, uint32_t context,
                       const drover_generate *g, int64_t now_ns,
                       drover_err *err) {
  struct engine_request *r = NULL;
  *out = NULL;
  int rc = check(g, err);
  if (rc)
    return rc;
  r = mem_calloc(1, sizeof *r);
  if (!r)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a request");
  r->call = g->call;
  r->draw = (struct engine_draw){ g->temperature, g->top_k, g->top_p,
                                  g->seed, 0 };
  r->seat.salt = g->salt;
  r->priority = (int)g->priority;
  r->pool = (enum drover_pool)g->pool;
  r->gain = 2;                      /* the first guess is worth a try */
  r->arrived_ns = now_ns;
  r->first_by_ns = deadline(g->first_token, now_ns);
  r->total_by_ns = deadline(g->total, now_ns);
  rc = engine_reply_init(&r->reply, g->stop, g->stop_count, err);
  if (!rc)
    rc = g->messages_count ? encode_messages(r, m, context, g, err)
                           : encode_raw(r, m, context, g, err);
  if (!rc)
    rc = measure(r, m, context, g->max_tokens, err);
  if (rc)
    engine_request_free(r);
  else
    *out = r;
  return rc;
}


/* Blocks of the pool go back elsewhere (turn.c, under the lock); here goes
 * the list of their numbers. */
void engine_request_free(struct engine_request *r) {
  if (!r)
    return;
  engine_reply_deinit(&r->reply);
  engine_ids_deinit(&r->ids);
  mem_free(r->seat.block);
  mem_free(r->vector);
  mem_free(r);
}
