/* hold: see hold.h.
 *
 * SPDX-License-Identifier: MIT */
#include "hold.h"

#include <math.h>

enum { RINGS_SHIFT = 3 };           /* of HOLD_DOLLARS */


/* ---- looking ---- */

/* A hint for evictors, set once: the line is not written for it again. */
static void hint(uint32_t *has) {
  if (!atom_get_u32(has))
    atom_set_u32(has, 1);
}



/* `l` refuses for its `kind`: the last to pass is told. */
__attribute__((cold, noinline))
static void refuse(struct limit_refusal *out, uint64_t tag, uint32_t kind,
                   const drover_limit *l, double wait) {
  const double max[] = { 0, l->concurrent, l->rpm, l->tpm, l->dollars_per_day,
                         l->dollars_per_month, 0, 0 };
  if (out->kind && wait <= out->wait)
    return;
  *out = (struct limit_refusal){ limit_keys_scope(tag), kind, max[kind], wait };
}


/* A rate of a name: what it costs, and whether it passes. */
__attribute__((always_inline))
static inline void look_rate(struct limit_claim *c, uint32_t i, enum limit_word word,
                      struct limit_refusal *out) {
  struct limit_want *w = &c->want[i];
  struct limit_hold *h = &c->holds->of[i];
  int requests = word == LIMIT_WORD_REQUESTS;
  struct limit_rate *rate = &w->rate[word];
  *rate = limit_gcra_rate(
    requests ? h->rpm : h->tpm,
    requests ? w->limit->burst_requests : w->limit->burst_tokens,
    limit_keys_under(c->keys, h->place));
  uint32_t n = requests ? 1 : c->tokens < rate->burst ? c->tokens : rate->burst;
  if (!requests)
    h->tokens = n;
  w->cost[word] = limit_gcra_cost(rate, n);
  int64_t wait = limit_gcra_wait(&c->keys->names[h->place].tat[word], rate,
                                 w->cost[word], c->now_ns);
  if (wait)
    refuse(out, h->tag, requests ? DROVER_LIMIT_REQUESTS : DROVER_LIMIT_TOKENS,
           w->limit, (double)wait * 1e-9);
}


__attribute__((noinline))
static void look_dollars(struct limit_claim *c, uint32_t i,
                         struct limit_refusal *out) {
  struct limit_want *w = &c->want[i];
  const struct limit_hold *h = &c->holds->of[i];
  const double dollars[LIMIT_RINGS] = { w->limit->dollars_per_day,
                                        w->limit->dollars_per_month };
  for (int ring = 0; ring < LIMIT_RINGS; ring++) {
    w->max[ring] = limit_spend_micro_down(dollars[ring]);
    if (!(dollars[ring] > 0))
      continue;
    w->max[ring] += w->max[ring] == 0;          /* less than a millionth */
    double wait = limit_spend_wait(&c->keys->spend[h->place],
                                   (enum limit_ring)ring, w->max[ring],
                                   c->holds->micro, c->now);
    if (wait > 0)
      refuse(out, h->tag, DROVER_LIMIT_DAY + (uint32_t)ring, w->limit, wait);
  }
  hint(&c->keys->names[h->place].has_dollars);
}


/* The slot is marked in the record now: the cells are raised next. */
static void look_slots(struct limit_claim *c, uint32_t i,
                       struct limit_refusal *out) {
  struct limit_hold *h = &c->holds->of[i];
  uint32_t row = limit_keys_row(c->keys, h->place);
  hint(&c->keys->names[h->place].has_cells);
  h->kinds = HOLD_SLOT;
  if ((uint32_t)limit_cells_sum(&c->keys->cells, row) >=
      c->want[i].limit->concurrent)
    refuse(out, h->tag, DROVER_LIMIT_CONCURRENT, c->want[i].limit, 0);
}


static void look_one(struct limit_claim *c, uint32_t i,
                     struct limit_refusal *out) {
  struct limit_hold *h = &c->holds->of[i];
  const drover_limit *l = c->want[i].limit;
  h->kinds = 0;
  h->rpm = c->want[i].requests ? l->rpm : 0;
  h->tpm = l->tpm;
  h->place = limit_keys_find(c->keys, h->tag, c->self, c->now);
  if (h->place == LIMIT_NOWHERE) {
    h->place = LIMIT_PLACE_ROUTER;
    refuse(out, h->tag, DROVER_LIMIT_TABLE, l, LIMIT_MARGIN_NS * 1e-9);
    return;
  }
  int shared = l->flags & 1;
  if (shared && c->asks)
    limit_keys_ask(c->keys, h->place, h->tag);
  if (shared || atom_get_u32(&c->keys->names[h->place].under))
    limit_keys_scale(c->keys, h->place,
                     shared ? limit_keys_share(c->keys, h->place, h->tag,
                                               c->now) : LIMIT_WHOLE, c->now);
  if (l->concurrent)
    look_slots(c, i, out);
  if (h->rpm)
    look_rate(c, i, LIMIT_WORD_REQUESTS, out);
  if (h->tpm)
    look_rate(c, i, LIMIT_WORD_TOKENS, out);
  if (c->want[i].dollars)
    look_dollars(c, i, out);
}


void limit_hold_look(struct limit_claim *c, struct limit_refusal *out) {
  out->kind = DROVER_LIMIT_NONE;
  out->wait = 0;
  for (uint32_t i = 0; i < c->holds->count; i++) {
    if (i >= c->global && out->kind) {
      c->holds->count = i;          /* those behind were not prepared */
      return;
    }
    look_one(c, i, out);
  }
}


void limit_hold_rows(const struct limit_claim *c, struct limit_ask *ask) {
  for (uint32_t i = 0; i < c->holds->count; i++) {
    const struct limit_hold *h = &c->holds->of[i];
    if (h->kinds & HOLD_SLOT)
      ask->of[ask->count++] = (struct limit_row){
        limit_keys_row(c->keys, h->place), c->want[i].limit->concurrent };
  }
}


void limit_hold_full(const struct limit_claim *c, uint32_t i,
                     struct limit_refusal *out) {
  out->kind = DROVER_LIMIT_NONE;
  for (uint32_t at = 0; at < c->holds->count && !out->kind; at++) {
    const struct limit_hold *h = &c->holds->of[at];
    if (h->kinds & HOLD_SLOT && i-- == 0)
      refuse(out, h->tag, DROVER_LIMIT_CONCURRENT, c->want[at].limit, 0);
  }
}


/* ---- taking ---- */

/* 1: taken, or there is no such limit. */
static inline int take_rate(struct limit_claim *c, uint32_t i,
                            enum limit_word word, struct limit_refusal *out) {
  struct limit_hold *h = &c->holds->of[i];
  struct limit_want *w = &c->want[i];
  int requests = word == LIMIT_WORD_REQUESTS;
  if (requests ? h->rpm == 0 : h->tpm == 0)
    return 1;
  struct limit_at at = { h->tag, h->place, word };
  int64_t wait = limit_keys_take(c->keys, at, &w->rate[word], w->cost[word],
                                 c->now_ns, &w->step[word]);
  if (wait == 0)
    h->kinds |= requests ? HOLD_REQUEST : HOLD_TOKENS;
  else if (wait != LIMIT_MOVED)
    refuse(out, h->tag, requests ? DROVER_LIMIT_REQUESTS : DROVER_LIMIT_TOKENS,
           w->limit, (double)wait * 1e-9);
  return wait == 0;
}


__attribute__((noinline))
static int take_dollars(struct limit_claim *c, uint32_t i,
                        struct limit_refusal *out) {
  struct limit_hold *h = &c->holds->of[i];
  const struct limit_want *w = &c->want[i];
  struct limit_spend *s = &c->keys->spend[h->place];
  unsigned rings = limit_spend_rings(w->max);
  int64_t micro = c->holds->micro;
  enum limit_ring full = limit_spend_take(s, w->max, micro, c->now);
  if (full != LIMIT_RINGS) {
    refuse(out, h->tag, DROVER_LIMIT_DAY + full, w->limit,
           limit_spend_wait(s, full, w->max[full], micro, c->now));
    return 0;
  }
  h->kinds |= rings << RINGS_SHIFT;
  if (limit_keys_holds(c->keys, h->place, h->tag))
    return 1;
  h->kinds &= ~(rings << RINGS_SHIFT);
  limit_spend_give(s, rings, c->holds->hour, micro);
  return 0;
}


static int take_all(struct limit_claim *c, struct limit_refusal *out) {
  uint32_t count = c->holds->count;
  for (uint32_t i = 0; i < count; i++)
    if ((c->holds->of[i].kinds & HOLD_SLOT) &&
        !limit_keys_holds(c->keys, c->holds->of[i].place, c->holds->of[i].tag))
      return 0;
  for (uint32_t i = 0; i < count; i++)
    if (!take_rate(c, i, LIMIT_WORD_REQUESTS, out) ||
        !take_rate(c, i, LIMIT_WORD_TOKENS, out))
      return 0;
  for (uint32_t i = 0; i < count; i++)
    if (c->want[i].dollars && !take_dollars(c, i, out))
      return 0;
  return 1;
}


/* Crossed out first, as in a settling. */
__attribute__((cold, noinline))
static void undo_rates(struct limit_claim *c) {
  for (uint32_t i = c->holds->count; i-- > 0;) {
    struct limit_hold *h = &c->holds->of[i];
    uint32_t kinds = h->kinds;
    h->kinds = kinds & ~(uint32_t)(HOLD_REQUEST | HOLD_TOKENS);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    for (int word = LIMIT_WORDS; word-- > 0;)
      if (kinds & (word == LIMIT_WORD_REQUESTS ? HOLD_REQUEST : HOLD_TOKENS))
        limit_keys_undo(c->keys, (struct limit_at){ h->tag, h->place,
                                                    (enum limit_word)word },
                        &c->want[i].step[word]);
  }
}


/* Dollars that were taken before a refusal go back as of an attempt that was
 * never sent. */
int limit_hold_take(struct limit_claim *c, struct limit_refusal *out) {
  out->kind = DROVER_LIMIT_NONE;
  out->wait = 0;
  if (take_all(c, out))
    return 1;
  struct limit_bill nothing = { .self = c->self, .now = c->now };
  undo_rates(c);
  limit_hold_settle(c->keys, c->holds, &nothing);
  return 0;
}


/* ---- settling ---- */

/* A debt follows its name: to where it is now, if it has moved. A name that
 * no place is left for owes nothing: it was idle, or it would be there. */
static void charge(const struct limit_keys *k, struct limit_at at, int64_t ns,
                   const struct limit_bill *bill) {
  int64_t now = limit_gcra_ns(bill->now);
  while (limit_keys_charge(k, at, ns, now) == LIMIT_MOVED) {
    at.place = limit_keys_find(k, at.tag, bill->self, bill->now);
    if (at.place == LIMIT_NOWHERE)
      return;
  }
}


/* The words stand under as many parts as they do: both costs are of these. */
static void settle_tokens(const struct limit_keys *k, struct limit_hold *h,
                          uint32_t tokens, const struct limit_bill *bill) {
  struct limit_at at = { h->tag, h->place, LIMIT_WORD_TOKENS };
  if (tokens == UINT32_MAX || tokens == h->tokens)
    return;
  struct limit_rate rate = limit_gcra_rate(h->tpm, 1,
                                           limit_keys_under(k, h->place));
  int64_t more = limit_gcra_cost(&rate, tokens) -
                 limit_gcra_cost(&rate, h->tokens);
  if (more > 0)
    charge(k, at, more, bill);
  else if (more < 0)
    limit_keys_give(k, at, -more);
}


static void give_request(const struct limit_keys *k, struct limit_hold *h) {
  struct limit_at at = { h->tag, h->place, LIMIT_WORD_REQUESTS };
  struct limit_rate rate = limit_gcra_rate(h->rpm, 1,
                                           limit_keys_under(k, h->place));
  limit_keys_give(k, at, limit_gcra_cost(&rate, 1));
}


/* A name with dollars in its rings has not moved. One whose booking was of
 * nothing, or is a day old, may have. */
static void settle_dollars(const struct limit_keys *k,
                           const struct limit_holds *holds,
                           const struct limit_hold *h, unsigned rings,
                           const struct limit_bill *bill) {
  uint32_t place = h->place, hour = limit_spend_hour(bill->now);
  int64_t micro = limit_spend_micro(bill->dollars);
  if (bill->lost) {
    micro = holds->input_micro < holds->micro ? holds->input_micro
                                              : holds->micro;
    hour = holds->hour;
  }
  if (!bill->sent)
    micro = 0;
  else if (!bill->lost && (bill->tokens == UINT32_MAX || isnan(bill->dollars)))
    return;
  if (micro == holds->micro && hour == holds->hour)
    return;
  if (limit_keys_holds(k, place, h->tag))
    limit_spend_give(&k->spend[place], rings, holds->hour, holds->micro);
  while (micro > 0) {
    limit_spend_add(&k->spend[place], rings, hour, micro);
    if (limit_keys_holds(k, place, h->tag))
      return;
    limit_spend_give(&k->spend[place], rings, hour, micro);
    place = limit_keys_find(k, h->tag, bill->self, bill->now);
    if (place == LIMIT_NOWHERE)
      return;
    hint(&k->names[place].has_dollars);
  }
}


/* What the limit is charged in the end. Of a lost attempt the prompt, as far
 * as it was booked. */
static uint32_t tokens_of(const struct limit_holds *holds,
                          const struct limit_hold *h,
                          const struct limit_bill *bill) {
  if (!bill->sent)
    return 0;
  if (!bill->lost)
    return bill->tokens;
  return holds->input_tokens < h->tokens ? holds->input_tokens : h->tokens;
}


void limit_hold_settle(const struct limit_keys *k, struct limit_holds *h,
                       const struct limit_bill *bill) {
  for (uint32_t i = h->count; i-- > 0;) {
    struct limit_hold *at = &h->of[i];
    uint32_t kinds = at->kinds;
    if (!(kinds & ~(uint32_t)HOLD_SLOT))
      continue;
    at->kinds = kinds & HOLD_SLOT;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);    /* crossed out first */
    if (kinds >> RINGS_SHIFT)
      settle_dollars(k, h, at, kinds >> RINGS_SHIFT, bill);
    if (kinds & HOLD_TOKENS)
      settle_tokens(k, at, tokens_of(h, at, bill), bill);
    if (kinds & HOLD_REQUEST && !bill->sent)
      give_request(k, at);
  }
}


void limit_hold_drop(const struct limit_keys *k, const struct limit_holds *h,
                     uint32_t member, uint32_t tokens) {
  for (uint32_t i = 0; i < h->count; i++)
    if (h->of[i].kinds & HOLD_SLOT)
      limit_cells_drop(&k->cells, member, limit_keys_row(k, h->of[i].place),
                       tokens);
}


void limit_hold_clear(const struct limit_keys *k, const struct limit_holds *h,
                      uint32_t member) {
  for (uint32_t i = 0; i < h->count; i++)
    if (h->of[i].kinds & HOLD_SLOT)
      limit_cells_clear(&k->cells, member, limit_keys_row(k, h->of[i].place));
}
