/* breaker: see breaker.h; the rules are in state.c. All changes go through
 * change(): read the word, make the next, swap, then show the state to the
 * policies.
 *
 * SPDX-License-Identifier: MIT */
#include "breaker.h"

#include "share.h"


static uint64_t word_of(const struct node_row *own) {
  return __atomic_load_n(&own->breaker, __ATOMIC_SEQ_CST);
}


/* The row's state follows the word. Whoever stored last has looked at the
 * word after its store, so the last store is right. */
static void show(drover_node *row, const struct node_row *own) {
  uint64_t word;
  do {
    word = word_of(own);
    __atomic_store_n(&row->state, node_state_shown(node_state_unpack(word)),
                     __ATOMIC_SEQ_CST);
  } while (word != word_of(own));
}


/* Sequentially consistent, the partner of node_breaker_holds(): of a claim
 * behind its fence and a removal, one sees the other. */
static int change(drover_node *row, struct node_row *own, uint64_t from,
                  struct node_state to) {
  if (!__atomic_compare_exchange_n(&own->breaker, &from, node_state_pack(to), 0,
                                   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
    return 0;
  show(row, own);
  return 1;
}


/* ---- into the row ---- */

int node_breaker_due(const struct node_row *own, double now) {
  return node_state_due(node_state_unpack(atom_get_u64(&own->breaker)), now);
}


/* The swap to PROBE is the permit: of all processes that find the row due
 * one wins, and the others read PROBE with a new lease and are refused. A
 * lease that has run out (its prober died) is due again like an opening. Each
 * permit has an epoch of its own: whoever held the one before is late. */
__attribute__((noinline))
static int knock(drover_node *row, struct node_row *own, double now,
                 struct breaker_permit *out) {
  for (;;) {
    uint64_t word = word_of(own);
    struct node_state f = node_state_unpack(word);
    out->epoch = f.epoch;
    out->probe = BREAKER_USUAL;
    if (f.admin != BREAKER_ACTIVE)
      return 0;
    if (f.state == STATE_CLOSED)
      return 1;
    if (!node_state_due(f, now))
      return 0;
    if (f.state == STATE_COOL) {
      f.state = STATE_CLOSED;
    } else {
      f.state = STATE_PROBE;
      f.deadline = node_state_units(now + BREAKER_LEASE);
      f.epoch = out->epoch = (f.epoch + 1) & STATE_EPOCHS;
      out->probe = BREAKER_PROBE;
    }
    if (change(row, own, word, f))
      return 1;
  }
}


/* The quick way is the usual one; noinline keeps the other out of it. */
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out) {
  uint64_t word = word_of(own);
  if (word & STATE_UNUSUAL)
    return knock(row, own, now, out);
  out->epoch = node_state_unpack(word).epoch;
  out->probe = BREAKER_USUAL;
  return 1;
}


int node_breaker_ejected(const struct node_row *own) {
  struct node_state f = node_state_unpack(atom_get_u64(&own->breaker));
  if (f.admin != BREAKER_ACTIVE || node_state_of_key(f))
    return 0;
  return f.state == STATE_OPEN || f.state == STATE_PROBE;
}


int node_breaker_panic(const struct node_row *own,
                       struct breaker_permit *out) {
  out->epoch = node_state_unpack(word_of(own)).epoch;
  out->probe = BREAKER_PANIC;
  return node_breaker_ejected(own);
}


/* By the epoch and not the whole word: failures counted meanwhile do not
 * matter to this request, an opening does. */
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit) {
  struct node_state f = node_state_unpack(word_of(own));
  return f.admin == BREAKER_ACTIVE && f.epoch == permit->epoch &&
         (f.state == STATE_CLOSED || permit->probe != BREAKER_USUAL);
}


/* ---- out of the row ---- */

/* Of a reply whose epoch is not the row's, or of one let in by panic. */
static enum breaker_turn late(drover_node *row, struct node_row *own,
                              const struct breaker_said *said, double now) {
  double wait = node_state_wait(said, BREAKER_CAP);
  if (!(wait > 0) || (said->verdict != BREAKER_FAILURE &&
                      said->verdict != BREAKER_LIMITED))
    return BREAKER_SAME;
  for (;;) {
    uint64_t word = word_of(own), to = node_state_units(now + wait);
    struct node_state f = node_state_unpack(word);
    if (f.state == STATE_CLOSED || f.state == STATE_PROBE || f.deadline >= to)
      return BREAKER_SAME;
    f.deadline = to;
    if (change(row, own, word, f))
      return BREAKER_OUT;
  }
}


static int low_share(const struct node_row *own, double now) {
  struct node_share s = node_share_sum(own, now);
  return s.all >= BREAKER_LEAST && s.ok * 2 < s.all;
}


static void weigh(drover_node *row, const struct node_row *own, double now) {
  float weight = atom_get_f32(&own->weight) * node_breaker_part(own, now);
  if (atom_get_f32(&row->weight) != weight)
    atom_set_f32(&row->weight, weight);
}


/* What went wrong before the closing says nothing of the row as it is now. */
static enum breaker_turn turned(drover_node *row, struct node_row *own,
                                uint32_t from, uint32_t to, double now) {
  if (from != STATE_PROBE || to != STATE_CLOSED)
    return to == STATE_CLOSED ? BREAKER_SAME : BREAKER_OUT;
  node_share_clear(own);
  weigh(row, own, now);
  return BREAKER_BACK;
}


/* A ticket's state is that of its permit, or COOL; the epoch says all else. */
static int is_late(struct node_state f, const struct breaker_permit *permit) {
  if (f.epoch != permit->epoch || permit->probe == BREAKER_PANIC)
    return 1;
  if (permit->probe == BREAKER_PROBE)
    return f.state != STATE_PROBE;
  return f.state != STATE_CLOSED && f.state != STATE_COOL;
}


__attribute__((noinline))
static enum breaker_turn step(drover_node *row, struct node_row *own,
                              const struct breaker_permit *permit,
                              const struct breaker_said *said, double now) {
  enum breaker_verdict verdict = said->verdict;
  uint64_t word = atom_get_u64(&own->breaker);
  if (is_late(node_state_unpack(word), permit))
    return late(row, own, said, now);
  if (verdict >= BREAKER_SUCCESS && verdict <= BREAKER_LIMITED)
    node_share_add(own, verdict == BREAKER_SUCCESS, now);
  int low = verdict == BREAKER_FAILURE && low_share(own, now);
  for (;; word = word_of(own)) {
    if (!(word & STATE_UNUSUAL) && verdict <= BREAKER_SUCCESS)
      return BREAKER_SAME;
    struct node_state f = node_state_unpack(word);
    if (is_late(f, permit))
      return late(row, own, said, now);
    struct node_state to = node_state_next(f, said, low, now);
    if (node_state_pack(to) == word)
      return BREAKER_SAME;
    if (change(row, own, word, to))
      return turned(row, own, f.state, to.state, now);
  }
}


/* The quick way out is the usual one: a success on a closed row without
 * failures is added to the share and changes nothing. */
enum breaker_turn node_breaker_settle(drover_node *row, struct node_row *own,
                                      const struct breaker_permit *permit,
                                      const struct breaker_said *said,
                                      double now) {
  uint64_t word = atom_get_u64(&own->breaker);
  if (said->verdict != BREAKER_SUCCESS || word & STATE_UNUSUAL ||
      permit->probe != BREAKER_USUAL ||
      node_state_unpack(word).epoch != permit->epoch)
    return step(row, own, permit, said, now);
  node_share_add(own, 1, now);
  return BREAKER_SAME;
}


enum breaker_turn node_breaker_leave(drover_node *row, struct node_row *own,
                                     const struct breaker_permit *permit,
                                     enum breaker_verdict verdict, double now,
                                     double rnd) {
  struct breaker_said said = { .verdict = verdict, .rnd = rnd };
  return node_breaker_settle(row, own, permit, &said, now);
}


/* ---- by the tick, and by the operator ---- */

int node_breaker_eject(drover_node *row, struct node_row *own, double now,
                       double rnd) {
  struct breaker_said said = { .verdict = BREAKER_FAILURE, .rnd = rnd };
  for (;;) {
    uint64_t word = word_of(own);
    struct node_state f = node_state_unpack(word);
    if (f.state != STATE_CLOSED || f.admin != BREAKER_ACTIVE)
      return 0;
    f = node_state_opened(f, DROVER_WHY_OUTLIER, now, &said);
    if (change(row, own, word, f))
      return 1;
  }
}


int node_breaker_hurry(drover_node *row, struct node_row *own, double now,
                       double rnd) {
  for (;;) {
    uint64_t word = word_of(own);
    struct node_state to = node_state_hurried(node_state_unpack(word), now,
                                              rnd);
    if (node_state_pack(to) == word)
      return 0;
    if (change(row, own, word, to))
      return 1;
  }
}


int node_breaker_wake(drover_node *row, struct node_row *own, double now) {
  uint64_t word = word_of(own);
  struct node_state f = node_state_unpack(word);
  if (f.state != STATE_COOL || !node_state_due(f, now))
    return 0;
  f.state = STATE_CLOSED;
  return change(row, own, word, f);
}


/* The weight is written where it is not what it should be, whoever wrote it:
 * two processes that ramp it up at once may leave the older one there. */
void node_breaker_tend(drover_node *row, struct node_row *own, double now) {
  node_breaker_wake(row, own, now);
  uint64_t word = word_of(own);
  struct node_state f = node_state_unpack(word);
  if (f.state != STATE_CLOSED)
    return;
  if (f.mark && now >= node_state_seconds(f) + BREAKER_SLOW) {
    f.mark = 0;
    change(row, own, word, f);
  }
  weigh(row, own, now);
}


float node_breaker_part(const struct node_row *own, double now) {
  struct node_state f = node_state_unpack(atom_get_u64(&own->breaker));
  if (f.state != STATE_CLOSED || !f.mark)
    return 1;
  float part = (float)((now - node_state_seconds(f)) / BREAKER_SLOW);
  return fminf(fmaxf(part, BREAKER_PART), 1);
}


/* Keeps what was learned: a node that comes back from draining is as
 * healthy, or as far out, as it was. */
int node_breaker_admin(drover_node *row, struct node_row *own,
                       enum breaker_admin to, int only_from) {
  for (;;) {
    uint64_t word = word_of(own);
    struct node_state f = node_state_unpack(word);
    if (only_from >= 0 && f.admin != (uint32_t)only_from)
      return 0;
    f.admin = to;
    if (change(row, own, word, f))
      return 1;
  }
}


/* The epoch goes on instead of back to 0: tickets of the row's former node
 * must not fit the new one. */
static void renew(drover_node *row, struct node_row *own, struct node_state to,
                  int keep_admin) {
  for (;;) {
    uint64_t word = word_of(own);
    struct node_state f = node_state_unpack(word);
    to.epoch = f.epoch + 1;
    if (keep_admin)
      to.admin = f.admin;
    if (change(row, own, word, to))
      break;
  }
  node_share_clear(own);
}


void node_breaker_reset(drover_node *row, struct node_row *own,
                        enum breaker_admin admin, double slow_from) {
  struct node_state to = { .admin = admin, .mark = slow_from > 0,
                           .deadline = node_state_units(slow_from) };
  renew(row, own, to, 0);
}


void node_breaker_clear(drover_node *row, struct node_row *own) {
  renew(row, own, (struct node_state){ .state = STATE_CLOSED }, 1);
  weigh(row, own, 0);
}


/* ---- to be read ---- */

enum breaker_admin node_breaker_word(const struct node_row *own) {
  return node_state_unpack(word_of(own)).admin;
}


uint32_t node_breaker_fails(const struct node_row *own) {
  return node_state_unpack(word_of(own)).fails;
}


/* PROBE is not waited for: a request is out to decide it. */
double node_breaker_out_for(const struct node_row *own, double now) {
  struct node_state f = node_state_unpack(word_of(own));
  double left = node_state_seconds(f) - now;
  if (f.state == STATE_CLOSED || f.state == STATE_PROBE || !(left > 0))
    return 0;
  return left;
}


/* For the hint `due_at`: of a probing row it is the end of the lease, since
 * that is when it becomes due again. A drained or removed row is never
 * probed. */
double node_breaker_deadline(const struct node_row *own) {
  struct node_state f = node_state_unpack(word_of(own));
  return f.state == STATE_CLOSED || f.admin != BREAKER_ACTIVE
       ? INFINITY : node_state_seconds(f);
}


double node_breaker_slow_until(const struct node_row *own) {
  struct node_state f = node_state_unpack(word_of(own));
  return f.state == STATE_CLOSED && f.mark
       ? node_state_seconds(f) + BREAKER_SLOW : 0;
}


int node_breaker_cooling(const struct node_row *own, double now) {
  struct node_state f = node_state_unpack(atom_get_u64(&own->breaker));
  return f.state == STATE_COOL && now < node_state_seconds(f);
}


enum drover_why node_breaker_why(const struct node_row *own) {
  struct node_state f = node_state_unpack(word_of(own));
  switch (f.state) {
  case STATE_CLOSED: return f.mark ? DROVER_WHY_SLOW_START : DROVER_WHY_NONE;
  case STATE_PROBE: return DROVER_WHY_PROBE;
  case STATE_COOL: return DROVER_WHY_RATE;
  default: return (enum drover_why)f.why;
  }
}
