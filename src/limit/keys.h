/* keys: the names that limits are kept for (tenants, models, nodes, keys, the
 * router), in a table of fixed size. It knows names as numbers, and nothing of
 * what passes under them.
 *
 * A name's tag lies in one of two sets of eight, a cache line each, as its
 * bits say; its words lie at the same place of the other arrays. An entry
 * whose words all lie in the past, with nothing in flight and no dollars in
 * its rings, is idle: it says the same as one that was never used. Only such
 * entries are given to other names, and their words need no reset.
 *
 *   free --insert--> X <--> X|lock --Y--> Y          tag of a place
 *
 *   evictor  swaps X for X|lock, then looks whether the entry is idle, then
 *            swaps X|lock for Y
 *   user     changes a word, then looks at the tag: X is right; X|lock it
 *            swaps back to X; else it undoes its change and looks again
 *
 * Both steps of both are sequentially consistent: either the user sees the
 * lock or the evictor sees the change. The evictor that was interrupted fails
 * in its last swap, and a dead one keeps nothing from anybody. A set has one
 * evictor at a time, else the lock of a second would stand for the first's. A
 * word that still has the value it had when its tag was right may be moved
 * back without a second look: if the name has left since, the word lay in the
 * past.
 *
 * Only one place is given to a name, because insertions with the same first
 * set go one after another. Both orders are kept by locks that a dead process
 * cannot keep (base/member); an evictor holds one of each, in this order. A
 * table full of busy names takes no new one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_LIMIT_KEYS_H
#define DROVER_LIMIT_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "../base/atom.h"
#include "../drover.h"
#include "cells.h"
#include "gcra.h"
#include "spend.h"

enum { LIMIT_SET = 8, LIMIT_PLACE_ROUTER = 0, LIMIT_MOVED = -1 };
#define LIMIT_NOWHERE UINT32_MAX

/* An entry is idle when its rates have been so for that long: `now` of two
 * processes may differ a little. */
#define LIMIT_MARGIN_NS INT64_C(50000000)

enum limit_word { LIMIT_WORD_REQUESTS, LIMIT_WORD_TOKENS, LIMIT_WORDS };

struct limit_at {                   /* one word of a name */
  uint64_t tag;
  uint32_t place;
  enum limit_word word;
};

struct limit_step { int64_t was, to; };          /* a word, moved */

struct limit_name {                 /* the words of one name: a cache line */
  int64_t  tat[LIMIT_WORDS];        /* see gcra.h */
  uint64_t asked;                   /* 16 bits of the tag | how often */
  uint64_t share;                   /* 16 bits of the tag | 16 | until, 32 */
  uint32_t has_cells, has_dollars;  /* 1: were ever used at this place */
  uint32_t under;                   /* parts of the rate under which the words
                                     * stand; 0: all */
  uint32_t spare[5];
};

struct limit_keys {                 /* a view: all of it lies in the zone */
  uint64_t           *tags;         /* [set][8]; set 0 is the router's */
  struct limit_name  *names;
  struct limit_spend *spend;
  uint64_t           *locks;        /* two words a set: to insert, to evict */
  struct limit_cells  cells;
  const uint64_t     *base;         /* 1 + parts that all names have; 0: all */
  uint32_t            first_row;    /* the cells' row of place 0 */
  uint32_t            mask;         /* sets - 1, without the router's */
};

_Static_assert(sizeof(struct limit_name) == 64, "a name fills one cache line");


/* Places of a table for at least so many names. */
size_t limit_keys_places(uint32_t names);


/* What stands for a name of a scope (enum drover_scope): never 0, its lowest
 * bit is 0, the scope in the three above. Names are hashes or numbers. */
uint64_t limit_keys_tag(uint32_t scope, uint64_t name);
static inline uint32_t limit_keys_scope(uint64_t tag) {
  return (uint32_t)(tag >> 1 & 7);
}


/* Where the name is; LIMIT_NOWHERE: it is not known. Any thread. */
uint32_t limit_keys_seek(const struct limit_keys *k, uint64_t tag);


/* Where it is, or is from now on. LIMIT_NOWHERE: all places it may have are
 * busy. `self` is member_self(). Any thread. */
uint32_t limit_keys_find(const struct limit_keys *k, uint64_t tag,
                         uint64_t self, double now);


/* 1 when the place is the name's still: to be asked behind each change of
 * its words (which must be sequentially consistent, or fenced). */
int limit_keys_holds(const struct limit_keys *k, uint32_t place,
                     uint64_t tag);


/* limit_gcra_take() and _charge() of one of the name's words. A place that was
 * the name's no more is left as it was, and LIMIT_MOVED is returned. `step`:
 * where it went, or NULL. */
int64_t limit_keys_take(const struct limit_keys *k, struct limit_at at,
                        const struct limit_rate *r, int64_t cost, int64_t now,
                        struct limit_step *step);
int64_t limit_keys_charge(const struct limit_keys *k, struct limit_at at,
                          int64_t cost, int64_t now);


/* Undo a booking of an attempt that is not let in, if nobody has moved the
 * word since. If somebody has, the booking stays, and refills: a bucket that
 * ran empty meanwhile has paid for it once already, and what is given back
 * then would pass on top of the rate. Any thread. */
void limit_keys_undo(const struct limit_keys *k, struct limit_at at,
                     const struct limit_step *step);


/* Move a word back by `ns`, if the place is the name's: what was booked is
 * given back. A name that left had nothing to get. Any thread. */
void limit_keys_give(const struct limit_keys *k, struct limit_at at,
                     int64_t ns);


/* The row of the cells for what the name has in flight. */
static inline uint32_t limit_keys_row(const struct limit_keys *k,
                                      uint32_t place) {
  return k->first_row + place;
}


/* ---- rates shared by many hosts ---- */

/* Count that the name was asked for, as long as the place is its own. */
void limit_keys_ask(const struct limit_keys *k, uint32_t place, uint64_t tag);


/* Parts in 65536 of the name's rates, 1 at least: those that all names have
 * and, until its time is over, its own. */
uint32_t limit_keys_share(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, double now);


/* Its own, `share` of 0 .. 1, until `until`. */
void limit_keys_set_share(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, float share, double until);


/* `share` in parts. */
uint32_t limit_keys_parts(float share);


/* Make the words stand under so many parts of the rate: what is owed keeps its
 * number of requests and tokens. Two at once, or one that books meanwhile,
 * may scale a booking twice, once. */
void limit_keys_scale(const struct limit_keys *k, uint32_t place,
                      uint32_t parts, double now);


/* The parts under which the words stand. */
static inline uint32_t limit_keys_under(const struct limit_keys *k,
                                        uint32_t place) {
  uint32_t parts = atom_get_u32(&k->names[place].under);
  return parts ? parts : LIMIT_WHOLE;
}


/* The tag of a place whose name was asked for, and how often; 0: none. */
uint64_t limit_keys_asked(const struct limit_keys *k, uint32_t place,
                          double *asked);


/* How many places have a name. */
uint32_t limit_keys_count(const struct limit_keys *k);

#endif
