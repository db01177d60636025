/* queue: see queue.h. Here is all that needs no lock: entering, going back,
 * leaving, and looking; queue_pop.c has what one holder does at a time.
 *
 * SPDX-License-Identifier: MIT */
#include "queue.h"

#include "../base/member.h"

/* Until the rate is known: when to come again to a full queue, in seconds. */
#define RETRY 1.0


/* Room for a group of each tenant and each cause, and as much again free. */
static uint32_t groups_of(uint32_t max) {
  uint32_t n = 16;
  while (n < 4 * max)
    n *= 2;
  return n;
}


size_t limit_queue_size(uint32_t max) {
  return sizeof(struct queue_shared) + max * sizeof(struct queue_entry) +
         groups_of(max) * sizeof(struct queue_group);
}


struct limit_queue limit_queue_view(void *span, uint32_t max) {
  struct queue_shared *s = span;
  struct queue_entry *entries = (struct queue_entry *)(s + 1);
  return (struct limit_queue){
    .shared = s, .entries = entries, .max = max, .room = max,
    .groups = (struct queue_group *)(entries + max),
    .mask = groups_of(max) - 1,
  };
}


/* ---- entering ---- */

struct crowd { uint32_t ahead, own; };      /* own: of the asker's tenant */


/* Who would come before it, by priority; those that wait for a limit of their
 * own do not. */
static struct crowd crowd_of(const struct limit_queue *q,
                             const struct queue_ask *ask) {
  uint32_t top = atom_get_u32(&q->shared->top);
  struct crowd c = { 0, 0 };
  for (uint32_t i = 0; i < top; i++) {
    const struct queue_entry *e = &q->entries[i];
    if (queue_state(queue_load(&e->word)) != QUEUE_WAITING ||
        queue_get(&e->priority) > ask->priority || !queue_get(&e->wants))
      continue;
    c.ahead++;
    c.own += atom_get_u64(&e->tenant) == ask->tenant;
  }
  return c;
}


/* Seconds until its turn, or 0 when that is not known. Turns go from tenant
 * to tenant, so what is ahead of it is at most as many of each tenant as of
 * its own, and itself. */
static double turn_in(const struct limit_queue *q,
                      const struct queue_ask *ask) {
  double rate = atom_get_f64(&q->shared->rate);
  if (!(rate > 0))
    return 0;
  struct crowd c = crowd_of(q, ask);
  uint64_t fair = (uint64_t)(c.own + 1) * atom_get_u32(&q->shared->tenants);
  uint64_t before = c.ahead < fair ? c.ahead : fair;
  return ((double)before + 1) / rate;
}


/* DROVER_ETIMEOUT when its turn comes behind its deadline. Who waits for a
 * node waits for what has no rate, and may come before the time it knows. */
static int hopeless(const struct limit_queue *q, const struct queue_ask *ask,
                    double now, double *retry) {
  double left = ask->deadline - now;
  *retry = ask->wait;
  if (!(left > 0) || (ask->wait > left && !ask->hold))
    return DROVER_ETIMEOUT;
  double turn = ask->hold ? 0 : turn_in(q, ask);
  if (turn <= QUEUE_HOPE * left)
    return DROVER_OK;
  *retry = turn > ask->wait ? turn : ask->wait;
  return DROVER_ETIMEOUT;
}


/* What refused it, as a name that all who share it have. */
static uint64_t cause_of(const struct queue_ask *ask, uint32_t scope) {
  return queue_cause(scope, ask->tenant, ask->model, ask->only);
}


/* A refusal that says when it passes is believed from the start. Any other
 * may be over since, unseen: its first try comes at once, for the mark is not
 * the count. */
static void fill(const struct limit_queue *q, struct queue_entry *e,
                 const struct queue_ask *ask, double now) {
  struct queue_shared *s = q->shared;
  int timed = ask->wait > 0;
  uint32_t scope = ask->kind ? ask->scope : DROVER_SCOPE_NODE;
  uint64_t cause = ask->kind || timed ? cause_of(ask, scope) : 0;
  int held = cause && !timed;
  atom_set_u64(&e->tenant, ask->tenant);
  atom_set_u64(&e->model, ask->model);
  atom_set_u64(&e->cause, cause);
  atom_set_f64(&e->ready_at, held ? (double)INFINITY : now + ask->wait);
  atom_set_f64(&e->deadline, ask->deadline);
  queue_set(&e->priority, ask->priority);
  queue_set(&e->wants, !timed);
  atom_set_u32(&e->tokens, ask->tokens ? ask->tokens : 1);
  atom_set_u32(&e->mark, queue_moved(s, cause, scope) +
               (held ? atom_get_u32(&s->beat) - 1 : 0));
  atom_set_u64(&e->tag, atom_get_u64(&s->round[ask->priority]));
  atom_set_u64(&e->seq, __atomic_add_fetch(&s->seq, 1, __ATOMIC_RELAXED));
  atom_set_u64(&e->bell, ask->bell);
  atom_set_u64(&e->token, ask->token);
  queue_set(&e->only, ask->only);
  queue_set(&e->scope, scope);
  queue_set(&e->kind, ask->kind);
}


/* The entry is no longer free when `top` is raised, and `top` is looked at
 * behind that: the partner is lower() in queue_pop.c. */
static void raise_top(struct queue_shared *s, uint32_t to) {
  uint32_t top = __atomic_load_n(&s->top, __ATOMIC_SEQ_CST);
  while (top < to && !__atomic_compare_exchange_n(&s->top, &top, to, 0,
                                                  __ATOMIC_SEQ_CST,
                                                  __ATOMIC_SEQ_CST))
    ;
}


/* The lowest free entry, so that a look goes over few. Pops see it with the
 * last store, which releases what was filled in. */
int limit_queue_enter(const struct limit_queue *q, const struct queue_ask *ask,
                      double now, struct queue_place *out, double *retry) {
  int rc = hopeless(q, ask, now, retry);
  if (rc)
    return rc;
  for (uint32_t i = 0; i < q->room; i++) {
    struct queue_entry *e = &q->entries[i];
    uint64_t word = queue_load(&e->word);
    uint32_t serial = queue_serial(word) + 1;
    serial += serial == 0;
    if (queue_state(word) != QUEUE_FREE)
      continue;
    atom_raise_u32(&q->shared->peak, i + 1);    /* first: for the reclaim */
    if (!queue_swap(&e->word, word,
                    queue_word(serial, ask->member, QUEUE_ENTERING)))
      continue;
    raise_top(q->shared, i + 1);
    fill(q, e, ask, now);
    __atomic_store_n(&e->word, queue_word(serial, ask->member, QUEUE_WAITING),
                     __ATOMIC_SEQ_CST);
    *out = (struct queue_place){ i + 1, serial, ask->member };
    return DROVER_OK;
  }
  double rate = atom_get_f64(&q->shared->rate);
  *retry = fmax(ask->wait, rate > 0 ? q->room / rate : RETRY);
  return DROVER_ERESOURCE;
}


/* ---- its owner's other steps ---- */

/* The word of an entry that is still the owner's, or 0. */
static uint64_t word_at(const struct limit_queue *q,
                        const struct queue_place *at) {
  if (at->place == 0 || at->place > q->max)
    return 0;
  uint64_t word = queue_load(&q->entries[at->place - 1].word);
  enum queue_state state = queue_state(word);
  return queue_serial(word) == at->serial && queue_member(word) == at->member &&
         (state == QUEUE_WAITING || state == QUEUE_CALLED) ? word : 0;
}


int limit_queue_called(const struct limit_queue *q,
                       const struct queue_place *at) {
  uint64_t word = word_at(q, at);
  return word ? queue_state(word) == QUEUE_CALLED : DROVER_ECLOSED;
}


/* The count of the cause as it was when the entry was popped, so ahead of the
 * claim that failed: what was given back since lets it try again at once. */
static uint32_t seen(const struct queue_entry *e, uint32_t scope) {
  if (scope == DROVER_SCOPE_TENANT)
    return atom_get_u32(&e->seen_tenant);
  return scope == DROVER_SCOPE_MODEL ? atom_get_u32(&e->seen_model)
                                     : atom_get_u32(&e->seen_any);
}


/* Where a call was taken back in the meantime the entry waits already; what
 * refused it is noted all the same. */
int limit_queue_again(const struct limit_queue *q, const struct queue_place *at,
                      const struct queue_ask *ask, double now) {
  uint64_t word = word_at(q, at);
  if (!word)
    return DROVER_ECLOSED;
  struct queue_entry *e = &q->entries[at->place - 1];
  uint32_t scope = ask->kind ? ask->scope : DROVER_SCOPE_NODE;
  double ready = ask->wait > 0 ? now + ask->wait : (double)INFINITY;
  uint32_t beat = isinf(ready) ? atom_get_u32(&q->shared->beat) : 0;
  atom_set_u64(&e->cause, cause_of(ask, scope));
  atom_set_f64(&e->ready_at, ready);
  atom_set_u32(&e->mark, seen(e, scope) + beat);
  queue_set(&e->scope, scope);
  queue_set(&e->kind, ask->kind);
  queue_set(&e->wants, 0);
  uint64_t to = queue_word(at->serial, at->member, QUEUE_WAITING);
  return word == to || queue_swap(&e->word, word, to) || word_at(q, at)
         ? DROVER_OK : DROVER_ECLOSED;
}


int limit_queue_leave(const struct limit_queue *q,
                      const struct queue_place *at) {
  uint64_t word;
  while ((word = word_at(q, at))) {
    if (queue_swap(&q->entries[at->place - 1].word, word,
                   queue_word(at->serial, 0, QUEUE_FREE)))
      return 1;
  }
  return 0;
}


/* Not only below `top`: it may have died before it raised that. A popper may move the word meanwhile, from WAITING to CALLED or back. */
void limit_queue_reclaim(const struct limit_queue *q, uint32_t member) {
  uint32_t peak = __atomic_load_n(&q->shared->peak, __ATOMIC_SEQ_CST);
  for (uint32_t i = 0; i < peak; i++) {
    uint64_t *at = &q->entries[i].word, word = queue_load(at);
    while (queue_state(word) != QUEUE_FREE && queue_member(word) == member &&
           !queue_swap(at, word, queue_word(queue_serial(word), 0, QUEUE_FREE)))
      word = queue_load(at);
  }
}


/* ---- what moves, and who is there ---- */

/* Each count is raised behind the giving back that it tells of. */
void limit_queue_moved(const struct limit_queue *q, uint64_t tenant,
                       uint64_t model) {
  uint32_t *moved = q->shared->moved;
  uint64_t t = queue_cause(DROVER_SCOPE_TENANT, tenant, model, 0);
  uint64_t m = queue_cause(DROVER_SCOPE_MODEL, tenant, model, 0);
  __atomic_add_fetch(&moved[0], 1, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&moved[queue_count_of(t, DROVER_SCOPE_TENANT)], 1,
                     __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&moved[queue_count_of(m, DROVER_SCOPE_MODEL)], 1,
                     __ATOMIC_SEQ_CST);
}


void limit_queue_moved_all(const struct limit_queue *q) {
  for (uint32_t i = 0; i < QUEUE_CAUSES; i++)
    __atomic_add_fetch(&q->shared->moved[i], 1, __ATOMIC_SEQ_CST);
}


uint32_t limit_queue_count(const struct limit_queue *q) {
  uint32_t top = atom_get_u32(&q->shared->top), n = 0;
  for (uint32_t i = 0; i < top; i++)
    n += queue_state(queue_load(&q->entries[i].word)) != QUEUE_FREE;
  return n;
}


/* ---- newcomers ---- */

/* One that waits for a limit which the newcomer needs too. */
static void note_cause(const struct limit_queue *q, const struct queue_entry *e,
                       const struct queue_ask *ask, struct queue_ahead *a) {
  uint32_t scope = queue_get(&e->scope);
  if (a->kind || !queue_get(&e->kind) || scope >= DROVER_SCOPE_NODE ||
      atom_get_u64(&e->cause) != cause_of(ask, scope) ||
      !queue_held(q->shared, e, a->now))
    return;
  double ready = atom_get_f64(&e->ready_at);
  a->scope = scope;
  a->kind = queue_get(&e->kind);
  a->wait = isinf(ready) ? 0 : ready - a->now;
}


/* Of waiting entries with the same model one is asked about: a queue has few
 * models. */
void limit_queue_ahead(const struct limit_queue *q, const struct queue_ask *ask,
                       struct queue_ahead *a) {
  uint32_t top = atom_get_u32(&q->shared->top);
  uint64_t refused = 0;             /* a model that the row does not take */
  a->called = a->called_row = a->kept = a->scope = a->kind = 0;
  a->wait = 0;
  for (uint32_t i = 0; i < top; i++) {
    const struct queue_entry *e = &q->entries[i];
    enum queue_state state = queue_state(queue_load(&e->word));
    if (state == QUEUE_CALLED) {
      a->called++;
      a->called_row += queue_get(&e->row) == a->row;
    }
    if (state != QUEUE_WAITING || queue_get(&e->priority) > ask->priority)
      continue;
    note_cause(q, e, ask, a);
    uint64_t model = atom_get_u64(&e->model);
    uint32_t only = queue_get(&e->only);
    if (a->kept || !queue_get(&e->wants) || (only && only != a->row) ||
        (refused && model == refused))
      continue;
    a->kept = a->takes(a->arg, model) != 0;
    refused = a->kept ? 0 : model;
  }
}


/* ---- the holder's word ---- */

/* The mark is made before the word is looked at, and the holder looks for the
 * mark behind giving the word back: one of both sees the other. */
int limit_queue_hold(const struct limit_queue *q, uint64_t self) {
  __atomic_store_n(&q->shared->again, 1, __ATOMIC_SEQ_CST);
  if (!queue_swap(&q->shared->lock, 0, self))
    return 0;
  __atomic_store_n(&q->shared->again, 0, __ATOMIC_SEQ_CST);
  return 1;
}


int limit_queue_let(const struct limit_queue *q, uint64_t self) {
  __atomic_store_n(&q->shared->lock, 0, __ATOMIC_SEQ_CST);
  return __atomic_load_n(&q->shared->again, __ATOMIC_SEQ_CST) &&
         limit_queue_hold(q, self);
}


/* What the dead one left half done is a tag not yet moved or a call not rung:
 * the next looks mend both. */
void limit_queue_heal(const struct limit_queue *q, uint64_t self) {
  uint64_t holder = queue_load(&q->shared->lock);
  if (holder && !member_alive(holder, self))
    queue_swap(&q->shared->lock, holder, 0);
}
