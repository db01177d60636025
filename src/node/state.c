/* state: see state.h.
 *
 * SPDX-License-Identifier: MIT */
#include "state.h"

/* K_MAX: 5 s * 2^6 is past the cap of 300 s, 60 s * 2^6 past that of an hour;
 * more doublings would change nothing but the way back. */
enum { FAILS_MAX = 7, K_MAX = 6, COOLS_MAX = 6 };


/* What policies and operators see: the operator's word goes before the
 * breaker's, so a draining node shows as draining even when it is out. */
uint32_t node_state_shown(struct node_state f) {
  static const uint32_t shown[] = {
    [STATE_CLOSED] = DROVER_UP, [STATE_OPEN] = DROVER_OUT,
    [STATE_PROBE] = DROVER_PROBING, [STATE_COOL] = DROVER_OUT,
    [STATE_KEY] = DROVER_OUT,
  };
  if (f.admin == BREAKER_REMOVED)
    return DROVER_REMOVED;
  return f.admin == BREAKER_DRAINING ? DROVER_DRAINING : shown[f.state];
}


/* Leaving CLOSED: healthy minutes have lowered k, and it counts one kind of
 * trouble only. */
static struct node_state healed(struct node_state f, double now, int key) {
  if (f.state == STATE_CLOSED) {
    double minutes = (now - node_state_seconds(f)) / BREAKER_HEAL;
    uint32_t off = minutes > 0 ? (uint32_t)fmin(minutes, K_MAX) : 0;
    f.k = f.k > off ? f.k - off : 0;
  }
  if (node_state_of_key(f) != key)
    f.k = 0;
  return f;
}


/* Out of service until then, or until the row has cooled: the later. */
static struct node_state out(struct node_state f, uint32_t state,
                             enum drover_why why, double until) {
  uint64_t deadline = node_state_units(until);
  if (f.state != STATE_COOL || f.deadline < deadline)
    f.deadline = deadline;
  f.state = state;
  f.why = why;
  f.mark = 0;
  f.epoch++;
  return f;
}


struct node_state node_state_opened(struct node_state f, enum drover_why why,
                                    double now,
                                    const struct breaker_said *said) {
  f = healed(f, now, 0);
  double d = fmin(BREAKER_BASE * (double)(1u << f.k), BREAKER_CAP);
  d = fmax(d / 2 + said->rnd * d / 2, node_state_wait(said, BREAKER_CAP));
  f.k = f.k < K_MAX ? f.k + 1 : K_MAX;
  return out(f, STATE_OPEN, why, now + d);
}


/* A failed probe keeps the reason; that of a key has shown something else. */
static struct node_state reopened(struct node_state f, double now,
                                  const struct breaker_said *said) {
  enum drover_why why = node_state_of_key(f) ? DROVER_WHY_FAILURES
                                             : (enum drover_why)f.why;
  return node_state_opened(f, why, now, said);
}


/* Kept back, not out: the epoch stays, so what is under way still counts. */
static struct node_state cooled(struct node_state f, double now, double wait) {
  uint64_t deadline = node_state_units(now + wait);
  f = healed(f, now, node_state_of_key(f));
  if (f.state != STATE_COOL || f.deadline < deadline)
    f.deadline = deadline;
  f.state = STATE_COOL;
  return f;
}


/* What a row without Retry-After is spared grows with each cooling, not with
 * each 429 of those that were under way when it began. */
static struct node_state limited(struct node_state f, double now,
                                 const struct breaker_said *said) {
  double wait = node_state_wait(said, BREAKER_CAP);
  if (f.state == STATE_COOL)
    return wait > 0 ? cooled(f, now, wait) : f;
  if (!(wait > 0))
    wait = said->rnd * fmin(BREAKER_COOL * (double)(1u << f.cools),
                            BREAKER_COOL_CAP);
  f.cools = f.cools < COOLS_MAX ? f.cools + 1 : COOLS_MAX;
  return cooled(f, now, fmax(wait, BREAKER_COOL_MIN));
}


static struct node_state refused(struct node_state f, double now,
                                 const struct breaker_said *said) {
  f = healed(f, now, 1);
  if (said->verdict == BREAKER_SPENT) {
    double d = fmax(BREAKER_QUOTA, node_state_wait(said, BREAKER_QUOTA_CAP));
    return out(f, STATE_KEY, DROVER_WHY_QUOTA, now + d);
  }
  double d = fmin(BREAKER_KEY * (double)(1u << f.k), BREAKER_KEY_CAP);
  d = fmax(d, node_state_wait(said, BREAKER_KEY_CAP));
  f.k = f.k < K_MAX ? f.k + 1 : K_MAX;
  return out(f, STATE_KEY, DROVER_WHY_KEY, now + d);
}


static struct node_state succeeded(struct node_state f, double now) {
  f.fails = 0;
  if (f.state == STATE_CLOSED)
    f.cools = 0;
  if (f.state != STATE_PROBE)
    return f;
  f.deadline = node_state_units(now);   /* due at once, or counted from here */
  if (f.mark) {
    f.state = STATE_CLOSED;
    f.cools = 0;
  }
  f.mark = 1;
  return f;
}


/* `low`: under half of the share is successes. */
static struct node_state failed(struct node_state f, double now, int low,
                                const struct breaker_said *said) {
  f.fails = f.fails < FAILS_MAX ? f.fails + 1 : FAILS_MAX;
  if (f.state == STATE_PROBE)
    return reopened(f, now, said);
  if (f.fails >= BREAKER_FAILS)
    return node_state_opened(f, DROVER_WHY_FAILURES, now, said);
  if (low)
    return node_state_opened(f, DROVER_WHY_SHARE, now, said);
  double wait = node_state_wait(said, BREAKER_CAP);
  return wait > 0 ? cooled(f, now, wait) : f;
}


/* The rules in the head of state.h, as a function of the word: pure, so
 * that settle() can try it again when its swap fails. */
struct node_state node_state_next(struct node_state f,
                                  const struct breaker_said *said, int low,
                                  double now) {
  if (f.state == STATE_COOL && node_state_due(f, now))
    f.state = STATE_CLOSED;
  switch (said->verdict) {
  case BREAKER_SUCCESS: return succeeded(f, now);
  case BREAKER_FAILURE: return failed(f, now, low, said);
  case BREAKER_LIMITED: return f.state == STATE_PROBE ? reopened(f, now, said)
                                                      : limited(f, now, said);
  case BREAKER_REFUSED: case BREAKER_SPENT: return refused(f, now, said);
  case BREAKER_NEUTRAL: break;
  }
  if (f.state == STATE_PROBE) {
    f.state = node_state_of_key(f) ? STATE_KEY : STATE_OPEN;
    f.deadline = node_state_units(now);
  }
  return f;
}


/* k was raised behind the opening, whose back-off was that of one less. */
struct node_state node_state_hurried(struct node_state f, double now,
                                     double rnd) {
  double own = f.k < K_MAX ? BREAKER_BASE * (double)(1u << f.k) / 2
                           : BREAKER_CAP;
  double left = node_state_seconds(f) - now;
  if (f.state == STATE_OPEN && f.admin == BREAKER_ACTIVE &&
      left > BREAKER_HURRY && left <= own)
    f.deadline = node_state_units(now + BREAKER_HURRY / 2 * (1 + rnd));
  return f;
}
