/* upstream: see upstream.h.
 *
 * SPDX-License-Identifier: MIT */
#include "upstream.h"

#include <math.h>

enum { REQUESTS, TOKENS };
enum { UNTIL_SHIFT = 29 };
#define PACED (UINT64_C(1) << 63)
#define LEFT_MAX ((UINT64_C(1) << UNTIL_SHIFT) - 1)
#define UNTIL_MAX ((UINT64_C(1) << 34) - 1)
#define PER_SECOND 128.0
#define NS 1e9
#define SAME 1.0                    /* seconds: resets this near are one */


static uint64_t ns_of(double now) {
  return now > 0 ? (uint64_t)(now * NS) : 0;
}


static double until_of(uint64_t word) {
  return (double)(word >> UNTIL_SHIFT) / PER_SECOND;
}


static uint64_t window(double until, uint64_t left) {
  double u = ceil(until * PER_SECOND);
  uint64_t at = u > 0 ? u < (double)UNTIL_MAX ? (uint64_t)u : UNTIL_MAX : 0;
  return at << UNTIL_SHIFT | (left < LEFT_MAX ? left : LEFT_MAX);
}


/* What n units cost of a bucket; all of it at most. */
static uint64_t cost_of(uint64_t n, uint64_t unit, uint64_t room) {
  return unit && n > room / unit ? room : n * unit;
}


/* The word after n more, in *to; the seconds to wait when they must not. A
 * bucket or window that is over is left as it is. */
static double ask(const struct node_pace *p, uint64_t word, uint64_t n,
                  double now, uint64_t *to) {
  *to = word;
  if (word & PACED) {
    uint64_t at = word & ~PACED, ns = ns_of(now);
    uint64_t room = atom_get_u64(&p->room);
    if (at <= ns)
      return 0;
    at += cost_of(n, atom_get_u64(&p->unit), room);
    *to = PACED | at;
    return at > ns + room ? (double)(at - ns - room) / NS : 0;
  }
  double left = until_of(word) - now;
  if (!(left > 0))
    return 0;
  if ((word & LEFT_MAX) < n)
    return left;
  *to = word - n;
  return 0;
}


static int take(struct node_pace *p, uint64_t n, double now, double *wait) {
  uint64_t word = __atomic_load_n(&p->at, __ATOMIC_ACQUIRE), to;
  while (word) {
    *wait = ask(p, word, n, now, &to);
    if (*wait > 0)
      return 0;
    if (to == word || __atomic_compare_exchange_n(&p->at, &word, to, 0,
                        __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
      break;
  }
  return 1;
}


static void give(struct node_pace *p, uint64_t n, double now) {
  uint64_t word = __atomic_load_n(&p->at, __ATOMIC_ACQUIRE), to;
  do {
    if (word & PACED) {
      uint64_t at = word & ~PACED;
      uint64_t back = cost_of(n, atom_get_u64(&p->unit),
                              atom_get_u64(&p->room));
      to = PACED | (at > back ? at - back : 1);
    } else if (word && until_of(word) > now) {
      uint64_t left = (word & LEFT_MAX) + n;
      to = (word & ~LEFT_MAX) | (left < LEFT_MAX ? left : LEFT_MAX);
    } else {
      return;
    }
  } while (!__atomic_compare_exchange_n(&p->at, &word, to, 0,
                                        __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE));
}


int node_upstream_take(struct node_row *own, uint32_t tokens, double now,
                       double *wait) {
  if (!take(&own->upstream[REQUESTS], 1, now, wait))
    return 0;
  if (take(&own->upstream[TOKENS], tokens, now, wait))
    return 1;
  give(&own->upstream[REQUESTS], 1, now);
  return 0;
}


void node_upstream_give(struct node_row *own, uint32_t requests,
                        uint32_t tokens, double now) {
  give(&own->upstream[REQUESTS], requests, now);
  give(&own->upstream[TOKENS], tokens, now);
}


double node_upstream_wait(const struct node_row *own, double now) {
  double longest = 0;
  for (int i = REQUESTS; i <= TOKENS; i++) {
    const struct node_pace *p = &own->upstream[i];
    uint64_t word = __atomic_load_n(&p->at, __ATOMIC_ACQUIRE), to;
    longest = fmax(longest, ask(p, word, 1, now, &to));
  }
  return longest;
}


/* ---- what a header says ---- */

/* The later of both, and never emptier than empty: a limit that was raised
 * shows at once. */
static uint64_t paced(uint64_t was, uint64_t at, uint64_t now, uint64_t room) {
  if (was & PACED && (was & ~PACED) > at)
    at = was & ~PACED;
  return PACED | (at < now + room ? at : now + room);
}


static uint64_t windowed(uint64_t was, double until, uint64_t left,
                         double now) {
  int same = was && !(was & PACED) && until_of(was) > now &&
             until <= until_of(was) + SAME;
  if (same && (was & LEFT_MAX) < left)
    left = was & LEFT_MAX;
  return window(until, left);
}


/* `unit` and `room` are stored before the word that makes them count; two
 * writers at once may mix theirs, which are of the same limit. */
static void set(struct node_pace *p, double limit, double left, double reset,
                double now) {
  if (!(left >= 0) || !(reset >= 0))
    return;
  uint64_t ns = ns_of(now), unit = 0, room = 0;
  double missing = limit - left;    /* NaN when the limit is not said */
  if (missing > 0 && reset > 0) {
    double span = fmin(reset, UPSTREAM_RESET_MAX) * NS;
    unit = (uint64_t)fmax(ceil(span / missing), 1);
    room = (uint64_t)fmin(span + left * (double)unit, 0x1p60);
    atom_set_u64(&p->unit, unit);
    atom_set_u64(&p->room, room);
    reset = span;
  }
  uint64_t word = __atomic_load_n(&p->at, __ATOMIC_ACQUIRE), to = 0;
  do {
    if (unit)
      to = paced(word, ns + (uint64_t)reset, ns, room);
    else if (reset > 0 && !(missing <= 0))
      to = windowed(word, now + fmin(reset, UPSTREAM_WAIT_MAX),
                    (uint64_t)fmin(left, (double)LEFT_MAX), now);
  } while (!__atomic_compare_exchange_n(&p->at, &word, to, 0,
                                        __ATOMIC_RELEASE, __ATOMIC_ACQUIRE));
}


void node_upstream_set(struct node_row *own, const drover_upstream *u,
                       double now) {
  set(&own->upstream[REQUESTS], u->requests_limit, u->requests_left,
      u->requests_reset, now);
  set(&own->upstream[TOKENS], u->tokens_limit, u->tokens_left,
      u->tokens_reset, now);
}


void node_upstream_clear(struct node_row *own) {
  for (int i = REQUESTS; i <= TOKENS; i++)
    __atomic_store_n(&own->upstream[i].at, 0, __ATOMIC_RELEASE);
}
