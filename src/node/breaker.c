/* breaker: see breaker.h. All changes go through change(): read the word,
 * make the next, swap, then show the state to the policies.
 *
 * SPDX-License-Identifier: MIT */
#include "breaker.h"

#include <math.h>

/* In the word's two low bits. K_MAX: 5 s * 2^6 is past the cap of 300 s, so
 * more doublings would change nothing but the way back. */
enum { CLOSED, OPEN, PROBE };

enum { FAILS_MAX = 15, K_MAX = 6 };
#define DEADLINE_MAX ((UINT64_C(1) << 34) - 1)
#define PER_SECOND 128.0            /* the deadline's unit; 4 years fit */

/* The usual word is closed, active and without failures: these bits are 0. */
#define UNUSUAL UINT64_C(0xf0f)
_Static_assert(CLOSED == 0 && BREAKER_ACTIVE == 0, "the usual word is zeros");

/* The word taken apart, for code that decides; widths as the head of
 * breaker.h draws them. */
struct fields {
  uint64_t deadline;
  uint32_t epoch, fails, k, admin, state;
};


/* Masks and shifts here and in pack() are the only places that know the
 * layout; UNUSUAL above is `fails`, `admin` and `state` of it. */
static struct fields unpack(uint64_t w) {
  return (struct fields){
    .deadline = w >> 28, .epoch = w >> 12 & 0xffff, .fails = w >> 8 & 15,
    .k = w >> 4 & 15, .admin = w >> 2 & 3, .state = w & 3,
  };
}


/* `deadline` has been cut to 34 bits by units(); the epoch wraps at 16, and
 * 65536 openings while one request is in flight do not happen. */
static uint64_t pack(struct fields f) {
  return f.deadline << 28 | (uint64_t)(f.epoch & 0xffff) << 12 |
         (uint64_t)f.fails << 8 | (uint64_t)f.k << 4 |
         (uint64_t)f.admin << 2 | f.state;
}


/* Rounded up: never due before its time. */
static uint64_t units(double seconds) {
  double u = ceil(seconds * PER_SECOND);
  if (!(u > 0))
    return 0;
  return u < (double)DEADLINE_MAX ? (uint64_t)u : DEADLINE_MAX;
}


/* What policies and operators see: the operator's word goes before the
 * breaker's, so a draining node shows as draining even when it is out. */
static uint32_t state_of(uint64_t word) {
  static const uint32_t shown[] = { DROVER_UP, DROVER_OUT, DROVER_PROBING };
  struct fields f = unpack(word);
  if (f.admin == BREAKER_REMOVED)
    return DROVER_REMOVED;
  return f.admin == BREAKER_DRAINING ? DROVER_DRAINING : shown[f.state];
}


static uint64_t word_of(const struct node_row *own) {
  return __atomic_load_n(&own->breaker, __ATOMIC_SEQ_CST);
}


/* The row's state follows the word. Whoever stored last has looked at the
 * word after its store, so the last store is right. */
static void show(drover_node *row, const struct node_row *own) {
  uint64_t word;
  do {
    word = word_of(own);
    __atomic_store_n(&row->state, state_of(word), __ATOMIC_SEQ_CST);
  } while (word != word_of(own));
}


/* Sequentially consistent, the partner of node_breaker_holds(): of a claim
 * behind its fence and a removal, one sees the other. */
static int change(drover_node *row, struct node_row *own, uint64_t from,
                  struct fields to) {
  if (!__atomic_compare_exchange_n(&own->breaker, &from, pack(to), 0,
                                   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
    return 0;
  show(row, own);
  return 1;
}


static int due(struct fields f, double now) {
  return f.state != CLOSED && f.admin == BREAKER_ACTIVE &&
         now * PER_SECOND >= (double)f.deadline;
}


int node_breaker_due(const struct node_row *own, double now) {
  return due(unpack(atom_get_u64(&own->breaker)), now);
}


/* The swap to PROBE is the permit: of all processes that find the row due
 * one wins, and the others read PROBE with a new lease and are refused. A
 * lease that has run out (its prober died) is due again like an opening. */
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out) {
  for (;;) {
    uint64_t word = word_of(own);
    struct fields f = unpack(word);
    out->epoch = f.epoch;
    out->probe = f.state != CLOSED;
    if (f.admin != BREAKER_ACTIVE)
      return 0;
    if (f.state == CLOSED)
      return 1;
    if (!due(f, now))
      return 0;
    f.state = PROBE;
    f.deadline = units(now + BREAKER_LEASE);
    if (change(row, own, word, f))
      return 1;
  }
}


/* By the epoch and not the whole word: failures counted meanwhile do not
 * matter to this request, an opening does. */
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit) {
  struct fields f = unpack(word_of(own));
  return f.admin == BREAKER_ACTIVE && f.epoch == permit->epoch &&
         (f.state == CLOSED || permit->probe);
}


/* The next opening; from a closed row, healthy minutes have lowered k. */
static struct fields opened(struct fields f, double now, double rnd) {
  if (f.state == CLOSED) {
    double healthy = now - (double)f.deadline / PER_SECOND;
    uint32_t off = healthy > 0 ? (uint32_t)fmin(healthy / BREAKER_HEAL, 15) : 0;
    f.k = f.k > off ? f.k - off : 0;
  }
  double d = fmin(BREAKER_BASE * (double)(1u << f.k), BREAKER_CAP);
  f.deadline = units(now + d / 2 + rnd * d / 2);    /* later than any before */
  f.k = f.k < K_MAX ? f.k + 1 : K_MAX;
  f.epoch++;
  f.state = OPEN;
  return f;
}


/* The state machine in the head of breaker.h, as a function of the word
 * alone: pure, so that leave() can try it again when its swap fails. */
static struct fields next(struct fields f, enum breaker_verdict verdict,
                          double now, double rnd) {
  if (verdict == BREAKER_SUCCESS) {
    f.fails = 0;
    if (f.state == PROBE)
      f.deadline = units(now);      /* closed: counted from here */
    f.state = CLOSED;
  } else if (verdict == BREAKER_FAILURE) {
    f.fails = f.fails < FAILS_MAX ? f.fails + 1 : FAILS_MAX;
    if (f.state == PROBE || f.fails >= BREAKER_FAILS)
      f = opened(f, now, rnd);
  } else if (f.state == PROBE) {
    f.state = OPEN;                 /* nothing learned: due at once */
    f.deadline = units(now);
  }
  return f;
}


/* The quick way out is the usual one: a success on a closed row without
 * failures changes nothing and costs one load. A late reply is recognised by
 * the epoch, a reply to a probe that was overtaken by its lease by the
 * state; neither says anything about the row as it is now. */
double node_breaker_leave(drover_node *row, struct node_row *own,
                          const struct breaker_permit *permit,
                          enum breaker_verdict verdict, double now,
                          double rnd) {
  for (;;) {
    uint64_t word = atom_get_u64(&own->breaker);
    if (!(word & UNUSUAL) && verdict != BREAKER_FAILURE)
      return 0;                     /* whatever the epoch: nothing to change */
    struct fields f = unpack(word);
    uint32_t wanted = permit->probe ? PROBE : CLOSED;
    if (f.epoch != permit->epoch || f.state != wanted)
      return 0;
    struct fields to = next(f, verdict, now, rnd);
    if (pack(to) == word)
      return 0;
    if (change(row, own, word, to))
      return to.state == OPEN ? (double)to.deadline / PER_SECOND : 0;
  }
}


/* Keeps what was learned: a node that comes back from draining is as
 * healthy, or as far out, as it was. */
int node_breaker_admin(drover_node *row, struct node_row *own,
                       enum breaker_admin to, int only_from) {
  for (;;) {
    uint64_t word = word_of(own);
    struct fields f = unpack(word);
    if (only_from >= 0 && f.admin != (uint32_t)only_from)
      return 0;
    f.admin = to;
    if (change(row, own, word, f))
      return 1;
  }
}


/* The epoch goes on instead of back to 0: tickets of the row's former node
 * must not fit the new one. */
void node_breaker_reset(drover_node *row, struct node_row *own,
                        enum breaker_admin admin) {
  for (;;) {
    uint64_t word = word_of(own);
    struct fields f = { .epoch = unpack(word).epoch + 1, .admin = admin };
    if (change(row, own, word, f))
      return;
  }
}


enum breaker_admin node_breaker_word(const struct node_row *own) {
  return unpack(word_of(own)).admin;
}


uint32_t node_breaker_fails(const struct node_row *own) {
  return unpack(word_of(own)).fails;
}


/* PROBE is not waited for: a request is out to decide it. */
double node_breaker_out_for(const struct node_row *own, double now) {
  struct fields f = unpack(word_of(own));
  double left = (double)f.deadline / PER_SECOND - now;
  return f.state == OPEN && left > 0 ? left : 0;
}


/* For the hint `due_at`: of a probing row it is the end of the lease, since
 * that is when it becomes due again. A drained or removed row is never
 * probed. */
double node_breaker_deadline(const struct node_row *own) {
  struct fields f = unpack(word_of(own));
  return f.state == CLOSED || f.admin != BREAKER_ACTIVE
       ? INFINITY : (double)f.deadline / PER_SECOND;
}
