/* request: see request.h.
 *
 * SPDX-License-Identifier: MIT */
#include "request.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/hash.h"
#include "../base/mem.h"
#include "marked.h"


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


/* A vector is of the prompt alone: what is said of a reply asks for
 * something else. */
static int check_pool(const drover_generate *g, drover_err *err) {
  if (g->priority > DROVER_BATCH || g->pool > DROVER_POOL_CLS)
    return drover_fail(err, DROVER_EINVAL, "%s: %" PRIu32 " is unknown",
                       g->pool > DROVER_POOL_CLS ? "pool" : "priority",
                       g->pool > DROVER_POOL_CLS ? g->pool : g->priority);
  if (g->pool && (g->n > 1 || g->echo || g->logprobs || g->format))
    return drover_fail(err, DROVER_EINVAL, "pool: not with n, echo, logprobs "
                       "or a response_format");
  return DROVER_OK;
}


/* What the tokens' side does not look at (engine_choose_init()). */
static int check(const drover_generate *g, drover_err *err) {
  int rc = check_pool(g, err);
  if (!rc)
    rc = check_deadline("first_token", g->first_token, err);
  if (!rc)
    rc = check_deadline("total", g->total, err);
  if (!rc && g->n > ENGINE_CHOICES_MAX)
    rc = drover_fail(err, DROVER_EINVAL, "n: %" PRIu32 ", at most %d", g->n,
                     ENGINE_CHOICES_MAX);
  if (!rc && g->echo && (g->messages_count || g->logprobs))
    rc = drover_fail(err, DROVER_EINVAL, "echo: only of a prompt, and not "
                     "with logprobs");
  return rc ? rc : check_texts(g, err);
}


/* A text so long that no split into tokens fits is refused unread. */
static int check_size(const struct engine_model *m, size_t size,
                      uint32_t context, drover_err *err) {
  size_t least = size / (m->vocab->longest ? m->vocab->longest : 1);
  return least <= context ? DROVER_OK
    : drover_fail(err, DROVER_ECONTEXT, "the maximum context length is %"
                  PRIu32 " tokens, the prompt has at least %zu", context,
                  least);
}


static int encode(struct engine_request *r, const struct engine_model *m,
                  uint32_t context, const struct engine_prompt *p,
                  drover_err *err) {
  int rc = check_size(m, p->size, context, err);
  return rc ? rc : engine_vocab_encode(m->vocab, p, 1, &r->ids, err);
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


/* A template may write the BOS that the vocabulary puts in front as well. */
static void drop_second_bos(struct engine_ids *ids, int32_t bos) {
  if (bos < 0 || ids->count < 2 || ids->at[0] != bos || ids->at[1] != bos)
    return;
  ids->count--;
  memmove(ids->at, ids->at + 1, ids->count * sizeof *ids->at);
}


/* A raw prompt stands for a rendered template: special tokens are parsed, but
 * across no mark (marked.h). */
static int encode_raw(struct engine_request *r, const struct engine_model *m,
                      uint32_t context, const drover_generate *g,
                      drover_err *err) {
  int rc = check_size(m, g->prompt.size, context, err);
  if (!rc)
    rc = engine_marked_encode(m->vocab, g->prompt.data, g->prompt.size, 1,
                              &r->ids, err);
  drop_second_bos(&r->ids, m->vocab->bos);
  return rc;
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
 * no tokenizing. `from`: the first choice, whose tokens are these too. */
static int fill(struct engine_request *r, const struct engine_model *m,
                uint32_t context, const drover_generate *g,
                const struct engine_request *from, drover_err *err) {
  int rc = engine_choose_init(&r->choose, m->vocab, m->trie, g, err);
  if (!rc)
    rc = engine_reply_init(&r->reply, g->stop, g->stop_count, err);
  for (size_t i = 0; from && i < from->prompt && !rc; i++)
    if (engine_ids_add(&r->ids, from->ids.at[i]))
      rc = drover_fail(err, DROVER_ENOMEM, "no memory for a request");
  if (!rc && !from)
    rc = g->messages_count ? encode_messages(r, m, context, g, err)
                           : encode_raw(r, m, context, g, err);
  if (!rc && g->echo && (rc = engine_reply_echo(&r->reply, g->prompt)))
    drover_fail(err, rc, "echo: no room for the prompt");
  return rc ? rc : measure(r, m, context, g->max_tokens, err);
}


/* Choices differ in their seeds alone: the first has the one that was
 * given. */
static uint64_t seed_of(uint64_t seed, uint32_t choice) {
  return choice ? hash_mix(seed + choice * UINT64_C(0x9e3779b97f4a7c15))
                : seed;
}


static int make(struct engine_request **out, struct engine_request *first,
                const struct engine_model *m, uint32_t context,
                const drover_generate *g, drover_err *err) {
  struct engine_request *r = mem_calloc(1, sizeof *r);
  *out = r;
  if (r)
    r->group = first ? first->group : mem_calloc(1, sizeof *r->group);
  if (!r || !r->group)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a request");
  r->choice = r->group->refs++;
  r->group->left++;
  r->call = g->call;
  r->seat.salt = g->salt;
  r->priority = (int)g->priority;
  r->pool = (enum drover_pool)g->pool;
  r->gain = 2;                      /* the first guess is worth a try */
  int rc = fill(r, m, context, g, first, err);
  r->choose.draw.seed = seed_of(g->seed, r->choice);
  return rc;
}


int engine_request_new(struct engine_request **out,
                       const struct engine_model *m, uint32_t context,
                       const drover_generate *g, int64_t now_ns,
                       drover_err *err) {
  struct engine_request *first = NULL, **last = &first;
  int rc = check(g, err);
  *out = NULL;
  for (uint32_t i = 0; i < (g->n ? g->n : 1) && !rc; i++) {
    rc = make(last, first, m, context, g, err);
    if (!*last)
      break;
    (*last)->arrived_ns = now_ns;
    (*last)->first_by_ns = deadline(g->first_token, now_ns);
    (*last)->total_by_ns = deadline(g->total, now_ns);
    last = &(*last)->next;
  }
  if (rc)
    engine_request_free_all(first);
  else
    *out = first;
  return rc;
}


void engine_request_free_all(struct engine_request *r) {
  while (r) {
    struct engine_request *next = r->next;
    engine_request_free(r);
    r = next;
  }
}


/* Blocks of the pool go back elsewhere (turn.c, under the lock); here goes
 * the list of their numbers. */
void engine_request_free(struct engine_request *r) {
  if (!r)
    return;
  engine_choose_deinit(&r->choose);
  engine_reply_deinit(&r->reply);
  engine_ids_deinit(&r->ids);
  mem_free(r->seat.block);
  mem_free(r->vector);
  if (r->group && --r->group->refs == 0)
    mem_free(r->group);
  mem_free(r);
}
