/* keys: see keys.h.
 *
 * SPDX-License-Identifier: MIT */
#include "keys.h"

#include "../base/member.h"

enum { LOCK = 1, SCOPE_SHIFT = 1, USED = 16, LOW = 31 };
enum { SECOND_SHIFT = 28, SHARE_PER_SECOND = 16 };
/* The 16 bits of a tag that mark a word as its own lie above those that choose
 * its sets, so they differ among the names of a set. */
enum { MARK_SHIFT = 48 };
#define REST  ((UINT64_C(1) << MARK_SHIFT) - 1)


/* Half as many again: with two sets to choose from, the first name that finds
 * both full of busy ones comes at 0.7 of the places or later (simulated, 4096
 * sets). */
size_t limit_keys_places(uint32_t names) {
  size_t sets = 1;
  while (sets * LIMIT_SET * 2 < (size_t)names * 3)
    sets *= 2;
  return (sets + 1) * LIMIT_SET;
}


/* The product and the shift are one to one, so two names have one tag only
 * if they differ in nothing but the five bits that are cut off. */
uint64_t limit_keys_tag(uint32_t scope, uint64_t name) {
  uint64_t x = name * UINT64_C(0x9e3779b97f4a7c15);
  x ^= x >> 32;
  return (x & ~(uint64_t)LOW) | USED | scope << SCOPE_SHIFT;
}


/* ---- places ---- */

/* The first place of one of the two sets. The router has set 0 for itself, so
 * that no flood of names keeps it out. */
static uint32_t set_of(const struct limit_keys *k, uint64_t tag, int second) {
  if (limit_keys_scope(tag) == DROVER_SCOPE_ROUTER)
    return LIMIT_PLACE_ROUTER;
  uint64_t bits = tag >> (second ? SECOND_SHIFT : 5);
  return (1 + ((uint32_t)bits & k->mask)) * LIMIT_SET;
}


/* The tag itself, or with its lock. */
static inline int is(uint64_t word, uint64_t tag) {
  return (word ^ tag) <= LOCK;
}


/* The place of a set where a name is put if it is free. */
static inline uint32_t favourite(uint64_t tag) {
  return (uint32_t)(tag >> MARK_SHIFT) % LIMIT_SET;
}


/* Most names are at their favourite place. Else all eight are compared,
 * without a jump: where a name lies then is nothing that a processor could
 * learn. */
static uint32_t seek_set(const struct limit_keys *k, uint32_t set,
                         uint64_t tag) {
  const uint64_t *at = &k->tags[set];
  if (is(atom_get_u64(&at[favourite(tag)]), tag))
    return set + favourite(tag);
  unsigned found = 0;
  for (unsigned i = 0; i < LIMIT_SET; i++)
    found |= (unsigned)is(atom_get_u64(&at[i]), tag) << i;
  return found ? set + (uint32_t)__builtin_ctz(found) : LIMIT_NOWHERE;
}


uint32_t limit_keys_seek(const struct limit_keys *k, uint64_t tag) {
  uint32_t place = seek_set(k, set_of(k, tag, 0), tag);
  return place != LIMIT_NOWHERE ? place
                                : seek_set(k, set_of(k, tag, 1), tag);
}


static int swap(uint64_t *word, uint64_t from, uint64_t to) {
  return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}


int limit_keys_holds(const struct limit_keys *k, uint32_t place,
                     uint64_t tag) {
  uint64_t word = __atomic_load_n(&k->tags[place], __ATOMIC_SEQ_CST);
  return word == tag ||
         (word == (tag | LOCK) && (swap(&k->tags[place], tag | LOCK, tag) ||
          __atomic_load_n(&k->tags[place], __ATOMIC_SEQ_CST) == tag));
}


/* ---- eviction ---- */

/* What a user changed before it looked at the tag is seen here, or the user
 * sees the lock. The hints has_* are set before the change that they stand
 * for. */
static int idle(const struct limit_keys *k, uint32_t place, double now) {
  const struct limit_name *n = &k->names[place];
  int64_t before = limit_gcra_ns(now) - LIMIT_MARGIN_NS;
  for (int i = 0; i < LIMIT_WORDS; i++)
    if (__atomic_load_n(&n->tat[i], __ATOMIC_SEQ_CST) > before)
      return 0;
  if (__atomic_load_n(&n->has_cells, __ATOMIC_SEQ_CST) &&
      (uint32_t)limit_cells_sum(&k->cells, limit_keys_row(k, place)) > 0)
    return 0;
  return !__atomic_load_n(&n->has_dollars, __ATOMIC_SEQ_CST) ||
         limit_spend_idle(&k->spend[place], now);
}


/* Give the place of an idle name to another: 1 when it is. The caller holds
 * the set's lock, so a lock bit that is there was left by a dead evictor. It
 * looks before it locks, since most are busy, and behind it, since only that
 * counts; the fence is for the cells' loads. */
static int evict(const struct limit_keys *k, uint32_t place, uint64_t tag,
                 double now) {
  uint64_t *word = &k->tags[place];
  uint64_t was = __atomic_load_n(word, __ATOMIC_SEQ_CST) & ~(uint64_t)LOCK;
  if (!idle(k, place, now))
    return 0;
  swap(word, was, was | LOCK);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);      /* partner: limit_cells_take */
  if (idle(k, place, now))
    return swap(word, was | LOCK, tag);
  swap(word, was | LOCK, was);
  return 0;
}


/* From the favourite place on, so that not always the same one goes. */
static uint32_t evict_one(const struct limit_keys *k, uint64_t tag,
                          uint64_t self, double now) {
  for (int second = 0; second < 2; second++) {
    uint32_t set = set_of(k, tag, second);
    uint64_t *lock = &k->locks[set / LIMIT_SET * 2 + 1];
    if (!member_lock(lock, self))
      continue;
    uint32_t place = LIMIT_NOWHERE;
    for (uint32_t i = 0; i < LIMIT_SET && place == LIMIT_NOWHERE; i++) {
      uint32_t at = set + (i + favourite(tag)) % LIMIT_SET;
      if (evict(k, at, tag, now))
        place = at;
    }
    member_unlock(lock);
    if (place != LIMIT_NOWHERE)
      return place;
  }
  return LIMIT_NOWHERE;
}


static uint32_t used(const struct limit_keys *k, uint32_t set) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < LIMIT_SET; i++)
    count += atom_get_u64(&k->tags[set + i]) != 0;
  return count;
}


/* Free places first: in the first set up to its half, since that is where
 * names are looked for first, then in the emptier one. Then whoever is idle. */
static uint32_t insert(const struct limit_keys *k, uint64_t tag,
                       uint64_t self, double now) {
  uint32_t sets[2] = { set_of(k, tag, 0), set_of(k, tag, 1) };
  uint32_t first = used(k, sets[0]);
  int turned = first >= LIMIT_SET / 2 && first > used(k, sets[1]);
  for (int n = 0; n < 2; n++) {
    for (uint32_t i = 0; i < LIMIT_SET; i++) {
      uint32_t at = sets[n ^ turned] + (i + favourite(tag)) % LIMIT_SET;
      if (atom_get_u64(&k->tags[at]) == 0 && swap(&k->tags[at], 0, tag))
        return at;
    }
  }
  return evict_one(k, tag, self, now);
}


/* The lock is of the first set, so all who insert one name have the same. A
 * holder that is stopped for long makes new names of that set be refused, as
 * a full table does. */
uint32_t limit_keys_find(const struct limit_keys *k, uint64_t tag,
                         uint64_t self, double now) {
  uint32_t place = limit_keys_seek(k, tag);
  if (place != LIMIT_NOWHERE)
    return place;
  uint64_t *lock = &k->locks[set_of(k, tag, 0) / LIMIT_SET * 2];
  if (!member_lock(lock, self))
    return LIMIT_NOWHERE;
  place = limit_keys_seek(k, tag);
  if (place == LIMIT_NOWHERE || !limit_keys_holds(k, place, tag))
    place = insert(k, tag, self, now);
  member_unlock(lock);
  return place;
}


/* ---- changes ---- */

static int64_t *word_at(const struct limit_keys *k, struct limit_at at) {
  return &k->names[at.place].tat[at.word];
}


/* The place went to another name before the change, or right behind it: as
 * long as nobody has moved the word since, its old value is right for the
 * new owner. If somebody has, the owner bears the cost, rather than that a
 * booking of its own is lost. */
static int still(const struct limit_keys *k, struct limit_at at, int64_t to,
                 int64_t was) {
  if (limit_keys_holds(k, at.place, at.tag))
    return 1;
  __atomic_compare_exchange_n(word_at(k, at), &to, was, 0, __ATOMIC_SEQ_CST,
                              __ATOMIC_RELAXED);
  return 0;
}


int64_t limit_keys_take(const struct limit_keys *k, struct limit_at at,
                        const struct limit_rate *r, int64_t cost, int64_t now,
                        struct limit_step *step) {
  int64_t was;
  int64_t wait = limit_gcra_take(word_at(k, at), r, cost, now, &was);
  int64_t to = (was > now ? was : now) + cost;
  if (step)
    *step = (struct limit_step){ was, to };
  return wait > 0 || still(k, at, to, was) ? wait : LIMIT_MOVED;
}


int64_t limit_keys_charge(const struct limit_keys *k, struct limit_at at,
                          int64_t cost, int64_t now) {
  int64_t was;
  int64_t to = limit_gcra_charge(word_at(k, at), cost, now, &was);
  return still(k, at, to, was) ? 0 : LIMIT_MOVED;
}


/* As in still(): a word that has its value still may be moved back. */
void limit_keys_undo(const struct limit_keys *k, struct limit_at at,
                     const struct limit_step *step) {
  int64_t to = step->to;
  __atomic_compare_exchange_n(word_at(k, at), &to, step->was, 0,
                              __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}


/* The order is: word, tag, swap. See keys.h for why no look is needed
 * behind. */
void limit_keys_give(const struct limit_keys *k, struct limit_at at,
                     int64_t ns) {
  int64_t *tat = word_at(k, at);
  int64_t was = __atomic_load_n(tat, __ATOMIC_SEQ_CST);
  do {
    if (!is(__atomic_load_n(&k->tags[at.place], __ATOMIC_SEQ_CST), at.tag))
      return;
  } while (!__atomic_compare_exchange_n(tat, &was, was - ns, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}


/* ---- shares ---- */

static uint64_t mark(uint64_t tag) {
  return tag >> MARK_SHIFT << MARK_SHIFT;
}


/* A word that another name left begins anew: marks differ, or the new name
 * goes on counting, which readers of a count that only grows can bear. */
void limit_keys_ask(const struct limit_keys *k, uint32_t place,
                    uint64_t tag) {
  uint64_t *asked = &k->names[place].asked, at = atom_get_u64(asked), to;
  do {
    to = mark(at) == mark(tag) ? at : mark(tag);
    to = mark(tag) | ((to + 1) & REST);
  } while (!__atomic_compare_exchange_n(asked, &at, to, 0, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
}


/* What the name has of its own; 0: nothing, or its time is over. */
static uint32_t own_parts(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, double now) {
  uint64_t word = atom_get_u64(&k->names[place].share);
  if (mark(word) != mark(tag) ||
      (double)(uint32_t)word / SHARE_PER_SECOND < now)
    return 0;
  return (uint32_t)(word >> 32 & 0xffff);
}


uint32_t limit_keys_share(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, double now) {
  uint64_t base = atom_get_u64(k->base);
  if (base == 0 || base > LIMIT_WHOLE)
    return LIMIT_WHOLE;
  uint64_t parts = base - 1 + own_parts(k, place, tag, now);
  return parts == 0 ? 1 : parts < LIMIT_WHOLE ? (uint32_t)parts : LIMIT_WHOLE;
}


uint32_t limit_keys_parts(float share) {
  if (!(share > 0))
    return 0;
  return share < 1 ? (uint32_t)((double)share * LIMIT_WHOLE + 0.5)
                   : LIMIT_WHOLE;
}


/* Less than the whole, since that is not 16 bits: with a base it comes to the
 * whole all the same. */
void limit_keys_set_share(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, float share, double until) {
  uint64_t parts = limit_keys_parts(share);
  double end = until * SHARE_PER_SECOND;
  uint64_t last = end > 0 ? end < UINT32_MAX ? (uint32_t)end : UINT32_MAX : 0;
  parts -= parts == LIMIT_WHOLE;
  atom_set_u64(&k->names[place].share, mark(tag) | parts << 32 | last);
}


/* Whoever moves `under` moves the words. */
void limit_keys_scale(const struct limit_keys *k, uint32_t place,
                      uint32_t parts, double now) {
  struct limit_name *n = &k->names[place];
  uint32_t was = atom_get_u32(&n->under), from = was ? was : LIMIT_WHOLE;
  if (from == parts ||
      !__atomic_compare_exchange_n(&n->under, &was, parts, 0,
                                   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
    return;
  for (int i = 0; i < LIMIT_WORDS; i++) {
    int64_t at = atom_get_i64(&n->tat[i]), to;
    do {
      to = limit_gcra_scale(at, limit_gcra_ns(now), from, parts);
    } while (to != at &&
             !__atomic_compare_exchange_n(&n->tat[i], &at, to, 0,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  }
}


uint64_t limit_keys_asked(const struct limit_keys *k, uint32_t place,
                          double *asked) {
  uint64_t tag = atom_get_u64(&k->tags[place]) & ~(uint64_t)LOCK;
  uint64_t word = atom_get_u64(&k->names[place].asked);
  *asked = (double)(word & REST);
  return (word & REST) && mark(word) == mark(tag) ? tag : 0;
}


uint32_t limit_keys_count(const struct limit_keys *k) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < (k->mask + 2) * LIMIT_SET; i++)
    count += atom_get_u64(&k->tags[i]) != 0;
  return count;
}
