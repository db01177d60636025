/* queue_pop: what the holder of the queue's word does: a sweep over all
 * entries, then one pop after the other, as queue.h says who is next. Its
 * groups are scratch in the zone; nothing in them outlives a pop, so a holder
 * that dies leaves nothing that another would have to mend.
 *
 * SPDX-License-Identifier: MIT */
#include <string.h>

#include "queue.h"

struct pop {                        /* one pop on its way */
  const struct limit_queue *q;
  const struct queue_look *look;
  double   now;
  uint32_t top;
  uint64_t held;                    /* the stamp of this pop's causes */
  uint32_t causes;                  /* how many */
  uint64_t stamp;                   /* of the tenants of one priority */
  uint32_t first;                   /* of them; number + 1, 0: none */
  uint32_t tenants;                 /* that want room, in all priorities */
};


/* ---- the sweep ---- */

/* `top` is lowered by a swap against the value that was looked at, and then
 * the entries above are looked at once more: an entering that saw the old
 * value had taken its entry before. See raise_top() in queue.c. */
static void lower(const struct limit_queue *q, uint32_t top, uint32_t used) {
  uint32_t *at = &q->shared->top, seen = top;
  if (used == top || !__atomic_compare_exchange_n(at, &seen, used, 0,
                                                  __ATOMIC_SEQ_CST,
                                                  __ATOMIC_SEQ_CST))
    return;
  for (uint32_t i = top; i-- > used;)
    if (queue_state(queue_load(&q->entries[i].word)) != QUEUE_FREE) {
      atom_raise_u32(at, i + 1);
      return;
    }
}


/* Slots given back a second, while somebody waits: an average of the last
 * seconds, over all of the time since it began anew while that is short. 0
 * until it is worth to be believed. Without anybody who waits nothing is
 * counted, so it begins anew with the first of a crowd. */
static void measure(struct queue_shared *s, uint32_t used, double now) {
  double since = now - s->rate_at;
  uint32_t moved = __atomic_load_n(&s->moved[0], __ATOMIC_RELAXED);
  if (!used || !(fabs(since) < QUEUE_FORGET)) {
    atom_set_f64(&s->rate, 0);
    s->rate_at = s->rate_from = now;
    s->counted = s->began = moved;
    s->smooth = 0;
    return;
  }
  if (since < QUEUE_BEAT)
    return;
  double part = fmax(since / QUEUE_SMOOTH, since / (now - s->rate_from));
  double sample = (uint32_t)(moved - (uint32_t)s->counted) / since;
  s->smooth += (sample - s->smooth) * fmin(part, 1);
  s->rate_at = now;
  s->counted = moved;
  uint32_t ends = moved - (uint32_t)s->began;
  atom_set_f64(&s->rate, ends >= QUEUE_ENDS ? s->smooth : 0);
}


/* A call: how long it has been, and for which row. */
static void look_at_call(struct queue_entry *e, uint64_t word,
                         const struct queue_look *look, double now) {
  if (now - atom_get_f64(&e->called_at) >= QUEUE_ANSWER) {
    int over = atom_get_f64(&e->deadline) <= now;
    atom_set_u64(&e->cause, 0);
    atom_set_f64(&e->ready_at, now + QUEUE_ANSWER);
    queue_swap(&e->word, word, over
               ? queue_word(queue_serial(word), 0, QUEUE_FREE)
               : word - QUEUE_CALLED + QUEUE_WAITING);
    return;
  }
  uint32_t row = queue_get(&e->row);
  look->called[0]++;
  if (row && row <= look->rows)
    look->called[row]++;
  if (now - atom_get_f64(&e->rung_at) >= QUEUE_RING) {
    atom_set_f64(&e->rung_at, now);
    look->ring(look->arg, e);
  }
}


void limit_queue_sweep(const struct limit_queue *q,
                       const struct queue_look *look, double now) {
  struct queue_shared *s = q->shared;
  uint32_t top = __atomic_load_n(&s->top, __ATOMIC_SEQ_CST), used = 0;
  memset(look->called, 0, (look->rows + 1) * sizeof *look->called);
  if (!(fabs(now - s->beat_at) < QUEUE_BEAT)) {
    s->beat_at = now;
    atom_bump_u32(&s->beat, 1);
  }
  for (uint32_t i = 0; i < top; i++) {
    struct queue_entry *e = &q->entries[i];
    uint64_t word = queue_load(&e->word);
    enum queue_state state = queue_state(word);
    if (state == QUEUE_FREE)
      continue;
    if (state == QUEUE_WAITING && atom_get_f64(&e->deadline) <= now &&
        queue_swap(&e->word, word,
                   queue_word(queue_serial(word), 0, QUEUE_FREE)))
      continue;
    if (state == QUEUE_CALLED)
      look_at_call(e, word, look, now);
    used = i + 1;
  }
  lower(q, top, used);
  measure(s, used, now);
}


/* ---- groups ---- */

/* The group of a key under a stamp; a new one when `make` is 1, else NULL. A
 * place with neither of this pop's stamps is empty. Causes come first and
 * stay, so no search for one ends at a place that a tenant has left. */
static struct queue_group *group(const struct pop *p, uint64_t key,
                                 uint64_t stamp, int make) {
  for (uint32_t i = (uint32_t)key & p->q->mask;; i = (i + 1) & p->q->mask) {
    struct queue_group *g = &p->q->groups[i];
    if (g->stamp == stamp && g->key == key)
      return g;
    if (g->stamp == p->held || g->stamp == p->stamp)
      continue;
    if (make)
      *g = (struct queue_group){ .key = key, .stamp = stamp,
                                 .priority = QUEUE_PRIORITIES };
    return make ? g : NULL;
  }
}


/* Does it stand before all that share its cause? One that is called to try a
 * limit does, so that not all of a tenant try what one may pass; but where
 * row() counts the room itself, as many may go as there is room for. */
static int stands(const struct pop *p, const struct queue_entry *e) {
  enum queue_state state = queue_state(queue_load(&e->word));
  if (state == QUEUE_WAITING)
    return atom_get_f64(&e->deadline) > p->now &&
           queue_held(p->q->shared, e, p->now);
  uint32_t scope = queue_get(&e->scope);
  return state == QUEUE_CALLED && scope < DROVER_SCOPE_NODE &&
         (scope != DROVER_SCOPE_ROUTER ||
          queue_get(&e->kind) != DROVER_LIMIT_CONCURRENT);
}


/* Every cause that entries have to wait behind, and the best priority of
 * those that stand there. */
static void find_causes(struct pop *p) {
  for (uint32_t i = 0; i < p->top; i++) {
    const struct queue_entry *e = &p->q->entries[i];
    uint64_t cause = atom_get_u64(&e->cause);
    if (!cause || !stands(p, e))
      continue;
    struct queue_group *g = group(p, cause, p->held, 1);
    uint32_t priority = queue_get(&e->priority);
    if (priority < g->priority)
      g->priority = priority;
    p->causes++;
  }
}


/* Is it behind another that the same limit holds up? */
static int behind(const struct pop *p, const struct queue_entry *e) {
  if (p->causes == 0)
    return 0;
  for (uint32_t scope = DROVER_SCOPE_ROUTER; scope <= DROVER_SCOPE_NODE;
       scope++) {
    uint64_t cause = queue_cause(scope, atom_get_u64(&e->tenant),
                                 atom_get_u64(&e->model),
                                 queue_get(&e->only));
    const struct queue_group *g = group(p, cause, p->held, 0);
    if (g && g->priority <= queue_get(&e->priority))
      return 1;
  }
  return 0;
}


/* The order of heads: the earliest deadline, then who entered first. */
static int earlier(const struct queue_entry *a, const struct queue_entry *b) {
  double da = atom_get_f64(&a->deadline), db = atom_get_f64(&b->deadline);
  return da < db || (da == db && atom_get_u64(&a->seq) < atom_get_u64(&b->seq));
}


/* The group of an entry that wants room; with a row it may become its head. */
static void join(struct pop *p, uint32_t i, uint64_t word) {
  struct queue_entry *e = &p->q->entries[i];
  uint64_t key = hash_mix(atom_get_u64(&e->tenant)), tag;
  struct queue_group *g = group(p, key, p->stamp, 1);
  if (!g->next) {
    g->next = p->first ? p->first : UINT32_MAX;
    p->first = (uint32_t)(g - p->q->groups) + 1;
    p->tenants++;
  }
  uint32_t row = p->look->row(p->look->arg, e);
  if (!row)
    return;
  tag = atom_get_u64(&e->tag);
  if (!g->head || tag < g->tag)
    g->tag = tag;
  if (g->head && !earlier(e, &p->q->entries[g->head - 1]))
    return;
  g->head = i + 1;
  g->row = row;
  g->word = word;
}


/* All that may run in one priority, by tenant. */
static void find_tenants(struct pop *p, uint32_t priority) {
  p->stamp = ++p->q->shared->stamp;
  p->first = 0;
  for (uint32_t i = 0; i < p->top; i++) {
    struct queue_entry *e = &p->q->entries[i];
    uint64_t word = queue_load(&e->word);
    if (queue_state(word) != QUEUE_WAITING ||
        queue_get(&e->priority) != priority ||
        atom_get_f64(&e->deadline) <= p->now)
      continue;
    uint32_t wants = !queue_held(p->q->shared, e, p->now) && !behind(p, e);
    if (queue_get(&e->wants) != wants)
      queue_set(&e->wants, wants);
    if (wants)
      join(p, i, word);
  }
}


/* ---- the pop ---- */

static uint64_t finish_of(const struct pop *p, const struct queue_group *g,
                          uint32_t priority) {
  const struct queue_entry *e = &p->q->entries[g->head - 1];
  uint64_t round = p->q->shared->round[priority];
  uint64_t finish = g->tag + atom_get_u32(&e->tokens);
  return finish > round ? finish : round;
}


static struct queue_group *choose(const struct pop *p, uint32_t priority,
                                  uint64_t *finish) {
  struct queue_group *best = NULL;
  for (uint32_t n = p->first; n && n != UINT32_MAX;) {
    struct queue_group *g = &p->q->groups[n - 1];
    n = g->next;
    if (!g->head)
      continue;
    uint64_t f = finish_of(p, g, priority);
    if (!best || f < *finish ||
        (f == *finish && earlier(&p->q->entries[g->head - 1],
                                 &p->q->entries[best->head - 1]))) {
      best = g;
      *finish = f;
    }
  }
  return best;
}


/* What the owner, or a later look, reads of a call is written before the
 * state. 0: it has left meanwhile, and whoever has the place now finds a mark
 * that is not its own, which costs it one try more. */
static int call(const struct pop *p, const struct queue_group *g) {
  struct queue_shared *s = p->q->shared;
  struct queue_entry *e = &p->q->entries[g->head - 1];
  uint64_t tenant = atom_get_u64(&e->tenant), model = atom_get_u64(&e->model);
  uint64_t t = queue_cause(DROVER_SCOPE_TENANT, tenant, model, 0);
  uint64_t m = queue_cause(DROVER_SCOPE_MODEL, tenant, model, 0);
  atom_set_u32(&e->seen_any, queue_moved(s, 0, DROVER_SCOPE_ROUTER));
  atom_set_u32(&e->seen_tenant, queue_moved(s, t, DROVER_SCOPE_TENANT));
  atom_set_u32(&e->seen_model, queue_moved(s, m, DROVER_SCOPE_MODEL));
  atom_set_f64(&e->called_at, p->now);
  atom_set_f64(&e->rung_at, p->now);
  queue_set(&e->row, g->row);
  return queue_swap(&e->word, g->word,
                    g->word - QUEUE_WAITING + QUEUE_CALLED);
}


/* The tenant has had its turn: all of it earns from this round on. */
static void pay(const struct pop *p, uint64_t tenant, uint32_t priority,
                uint64_t finish) {
  atom_set_u64(&p->q->shared->round[priority], finish);
  for (uint32_t i = 0; i < p->top; i++) {
    struct queue_entry *e = &p->q->entries[i];
    if (atom_get_u64(&e->tenant) == tenant &&
        queue_get(&e->priority) == priority &&
        queue_state(queue_load(&e->word)) == QUEUE_WAITING)
      atom_set_u64(&e->tag, finish);
  }
}


/* 1 when one was popped. When the chosen one has left meanwhile the look
 * begins again: somebody else's step came between, so it is not for ever. */
static int pop_of(struct pop *p, uint32_t priority) {
  for (;;) {
    uint64_t finish = 0;
    find_tenants(p, priority);
    const struct queue_group *g = choose(p, priority, &finish);
    if (!g)
      return 0;
    const struct queue_entry *e = &p->q->entries[g->head - 1];
    uint64_t tenant = atom_get_u64(&e->tenant);
    if (!call(p, g))
      continue;
    pay(p, tenant, priority, finish);
    p->look->called[0]++;
    if (g->row <= p->look->rows)
      p->look->called[g->row]++;
    p->look->ring(p->look->arg, e);
    return 1;
  }
}


int limit_queue_pop(const struct limit_queue *q, const struct queue_look *look,
                    double now) {
  struct queue_shared *s = q->shared;
  struct pop p = { .q = q, .look = look, .now = now,
                   .top = __atomic_load_n(&s->top, __ATOMIC_SEQ_CST) };
  p.held = p.stamp = ++s->stamp;
  find_causes(&p);
  for (uint32_t i = 0; i < QUEUE_PRIORITIES; i++)
    if (pop_of(&p, i))
      return 1;
  atom_set_u32(&s->tenants, p.tenants);
  return 0;
}
