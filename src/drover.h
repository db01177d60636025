/* drover.h: the public door of libdrover, and LuaJIT's view of it.
 *
 * What stands between the cdef marks is plain C that ffi.cdef reads: no
 * macros, no _Atomic. Handles are opaque. Every fallible call returns 0 or a
 * negative DROVER_E* code and fills a drover_err that the caller owns (last
 * argument, may be NULL). Times are seconds in a double, `now` on the clock of
 * drover_clock(); `rnd` is uniform in [0, 1). No call blocks, prints, exits or
 * calls into Lua. "One thread" means: the thread that opened the handle.
 *
 * Calls and their events are in drover_call.h, the local model in
 * drover_engine.h; this header brings both.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_H
#define DROVER_H

#include <stddef.h>
#include <stdint.h>

/* Declarations are exported though the library hides its symbols. */
#pragma GCC visibility push(default)
/* cdef begin */
enum drover_code {
  DROVER_OK = 0,
  /* One for each err.kind, in the order of the counters; ECONTEXT is
   * context_too_long, EPOLICY content_policy. */
  DROVER_EBADREQUEST = -1,   DROVER_EUNAUTHORIZED = -2, DROVER_EQUOTA = -3,
  DROVER_ERATELIMITED = -4,  DROVER_EOVERLOADED = -5,   DROVER_ENONODE = -6,
  DROVER_EUNREACHABLE = -7,  DROVER_ETLS = -8,          DROVER_ETIMEOUT = -9,
  DROVER_ERESET = -10,       DROVER_ETRUNCATED = -11,   DROVER_EMALFORMED = -12,
  DROVER_ECONTEXT = -13,     DROVER_EPOLICY = -14,      DROVER_ENOTFOUND = -15,
  DROVER_ETOOLARGE = -16,    DROVER_ECANCELLED = -17,   DROVER_ECLOSED = -18,
  DROVER_ERESOURCE = -19,    DROVER_EINTERNAL = -20,
  /* Finer codes of the library's own; each shares the kind it names. */
  DROVER_EINVAL = -21,              /* an argument is wrong: bad_request */
  DROVER_ENOMEM = -22,              /* no memory: resource */
  DROVER_EFORMAT = -23,             /* a file or text is wrong: malformed */
  DROVER_EAGAIN = -24,              /* ask again: overloaded */
  DROVER_ELOST = -25                /* its process died: counted as "lost" */
};

enum drover_phase {
  DROVER_PHASE_CONFIG, DROVER_PHASE_LIMIT, DROVER_PHASE_PICK,
  DROVER_PHASE_CONNECT, DROVER_PHASE_SEND, DROVER_PHASE_FIRST_TOKEN,
  DROVER_PHASE_STREAM, DROVER_PHASE_DECODE
};

typedef struct drover_err {
  int  code;                        /* a DROVER_E* code; 0 when there is none */
  char text[252];                   /* for people; no program reads it */
} drover_err;

/* ---- the library ---- */
/* The build's number; core.lua compares it with its own. Any thread. */
int drover_abi(void);

/* The err.kind of a code ("ok" for 0, "lost" for DROVER_ELOST, "internal"
 * for a number that is no code). Static text. Any thread. */
const char *drover_err_kind(int code);
/* 1 when the same request may be tried elsewhere after `code`. Any thread. */
int drover_err_retryable(int code);
/* The name of a phase, as err.phase spells it; NULL when out of range. */
const char *drover_phase_name(int phase);
/* Seconds on the monotonic clock, and on the wall's. Any thread. */
double drover_clock(void);
double drover_clock_wall(void);
/* 64 bits of the system's randomness, for seeds. Any thread. */
uint64_t drover_entropy(void);

/* A 64-bit hash of bytes (model names, tenants, prefixes): the same in all
 * processes of one build, not secret. Never 0. Any thread. */
uint64_t drover_hash(const char *text, size_t size);

/* Replace this process by `argv[0]` found on PATH, keeping standard files.
 * Returns only on failure. Joins the transport first. */
int drover_exec(char *const argv[], drover_err *err);
/* 1 when the peer of socket `fd`, at `port` (0: unix), closed. Reads none. */
int drover_peer_gone(int fd, int port);

/* ---- a router: node state, limits and counters in a zone ---- */
typedef struct drover_router drover_router;

typedef struct drover_router_config {
  const char *name;                 /* 1..63 bytes; the zone is found by it */
  uint32_t shared;                  /* 0: a zone of this handle's own */
  uint32_t create;                  /* 1: make the zone if none has the name */
  uint32_t nodes_max;               /* 0: 256; at most 512 */
  uint32_t members_max;             /* 0: 64; at most 256 */
  uint32_t tickets_max;             /* per member; 0: 4096; at most 65536 */
  uint32_t keys_max;                /* limited names known at once; 0: 16384 */
  uint32_t queue_max;               /* requests waiting; 0: 1000, at most 65536 */
  uint32_t concurrent;              /* requests in flight, all nodes; 0: 100 */
  float    retry_ratio;             /* retries a first send earns; 0: 0.2 */
  uint32_t retry_reserve;           /* retries any 10 s may have; 0: 10 */
  uint32_t policy;                  /* from drover_policy() */
  uint32_t waits;                   /* 1: requests may wait in the queue */
} drover_router_config;

/* Make or attach a zone and open a handle on it. A zone is anonymous shared
 * memory: processes forked after it was made see the same one. With create
 * = 0 and no such zone: DROVER_ENOTFOUND. One thread. */
int drover_router_open(drover_router **out, const drover_router_config *c,
                       drover_err *err);
/* Settle what it still holds (as cancelled), leave the zone. Takes NULL. */
void drover_router_close(drover_router *r);
/* The next number for a configuration (taken where it is read: the master). */
uint32_t drover_router_generation(drover_router *r);

/* 1 when the caller should add the nodes of configuration `generation`
 * (again, if another process began and did not finish), 0 when that or a
 * later one is applied. */
int drover_router_apply_begin(drover_router *r, uint32_t generation);

/* Nodes of an earlier configuration that were not named again since
 * apply_begin are removed; concurrent and retry_* of `c` are set, the rest of
 * it stays as the zone was made; the number counts as applied. */
void drover_router_apply_end(drover_router *r, uint32_t generation,
                             const drover_router_config *c, double now);
/* 1 when this process made the zone (only its children see it as well). */
int drover_router_private(drover_router *r);
/* The number of a built-in policy by its name, or DROVER_ENOTFOUND. */
int drover_policy(const char *name);
const char *drover_policy_name(int policy);   /* NULL past the last */

/* Choose the built-in policy of this handle. */
int drover_router_policy(drover_router *r, uint32_t policy);

/* ---- nodes ---- */
enum drover_state {                 /* as drover_node_state exports them */
  DROVER_UP, DROVER_PROBING, DROVER_OUT, DROVER_DRAINING, DROVER_REMOVED
};

/* One row of the table, in shared memory, as policies see it. 64 bytes.
 * Unknown is NaN. Rows are numbered from 1 to drover_node_count(). */
typedef struct drover_node {
  uint32_t state;                   /* enum drover_state; REMOVED: empty */
  uint32_t inflight;                /* requests; advisory, claims are exact */
  uint32_t inflight_tokens;         /* their prompt + max_tokens; advisory */
  uint32_t capacity;                /* requests at once */
  float    first_token_ms;          /* time-decayed average */
  float    token_ms;                /* time per output token, time-decayed */
  float    error_rate;              /* 0..1, time-decayed */
  float    waiting;                 /* queued at the node, by its report */
  float    kv_used;                 /* 0..1, by its report */
  float    memory_gb;               /* free memory, by its report */
  float    load;                    /* 0..100, by its report */
  float    weight;                  /* share wanted; 1 by default */
  float    price_input, price_output;   /* dollars a million tokens */
  uint32_t tier;                    /* for `fallback`: the lowest first */
  uint32_t version;                 /* raised when the row gets another node */
} drover_node;

/* What may pass one name (a router, a tenant, a model, a node, a key); 0: no
 * limit of that kind. Rates refill without windows: in any t seconds at most
 * rate * t + burst pass. Dollars are those of any 24 hours and 30 days. */
typedef struct drover_limit {
  uint32_t rpm, tpm;                /* requests, tokens a minute */
  uint32_t concurrent;              /* requests at once */
  uint32_t burst_requests;          /* 0: one second's worth, at least 1 */
  uint32_t burst_tokens;
  uint32_t flags;                   /* 1: the rates are shared by hosts */
  double   dollars_per_day, dollars_per_month;
} drover_limit;

enum drover_scope { DROVER_SCOPE_ROUTER, DROVER_SCOPE_TENANT,
                    DROVER_SCOPE_MODEL, DROVER_SCOPE_NODE, DROVER_SCOPE_KEY };
enum drover_limit_kind {            /* what of it refused */
  DROVER_LIMIT_NONE, DROVER_LIMIT_CONCURRENT, DROVER_LIMIT_REQUESTS,
  DROVER_LIMIT_TOKENS, DROVER_LIMIT_DAY, DROVER_LIMIT_MONTH,
  DROVER_LIMIT_UPSTREAM,            /* the node's own, by its headers or 429 */
  DROVER_LIMIT_TABLE                /* no room to remember the name */
};

typedef struct drover_node_config {
  const char *id;                   /* label, 1..63 bytes, unique */
  const char *url;                  /* at most 511 bytes */
  const char *key;                  /* hashed into the identity; or NULL */
  size_t   key_size;
  const char *spec;                 /* its configuration as JSON without key, */
  size_t   spec_size;               /* for other workers; at most 4095 bytes */
  const uint64_t *models;           /* drover_hash of each, at most 64 */
  uint32_t models_count;            /* 0: any */
  uint32_t capacity, tier;
  uint32_t generation;              /* of its configuration; 0: run time */
  float    weight, price_input, price_output, memory_gb;
  uint64_t group;                   /* rows of one node (its keys) have the
                                     * same: limit_node is theirs together;
                                     * 0: the hash of `id` */
  drover_limit limit_node, limit_key;   /* of the group, of this row */
} drover_node_config;

typedef struct drover_node_text {   /* a copy of a row's texts */
  uint32_t version;
  uint32_t generation;
  char     id[64];
  char     url[512];
  char     spec[4096];
} drover_node_text;

typedef struct drover_report {      /* NaN: leave as it is */
  float memory_gb, load, waiting, kv_used, running;
} drover_report;

enum drover_why {                   /* why a node is not simply up */
  DROVER_WHY_NONE, DROVER_WHY_FAILURES, DROVER_WHY_SHARE, DROVER_WHY_OUTLIER,
  DROVER_WHY_PROBE, DROVER_WHY_RATE, DROVER_WHY_KEY, DROVER_WHY_QUOTA,
  DROVER_WHY_SLOW_START
};

/* Why a node is in its state, and its figures, for router:nodes(). */
typedef struct drover_node_stats {
  double   requests, failures;      /* attempts settled; those that failed */
  double   input_tokens, output_tokens, cached_tokens, dollars;
  double   health_score, load;      /* of the formula in docs/LUA-API.md */
  double   out_for;                 /* seconds until it may be asked; 0 */
  double   seen_ago;                /* seconds since a reply or report; NaN */
  uint32_t fails;                   /* consecutive */
  int32_t  last_code;               /* of the last failure; 0 */
  int32_t  why;                     /* enum drover_why */
  float    success_share;           /* of the last 30 s; NaN: nothing seen */
} drover_node_stats;

/* Add a node, or take up again the row of the same url and key. Returns its
 * row, 1 or more; DROVER_ERESOURCE when the table is full. A new node starts at
 * the pool's mean first-token time. */
int drover_node_add(drover_router *r, const drover_node_config *c, double now,
                    drover_err *err);
/* The row of a label, or DROVER_ENOTFOUND. */
int drover_node_find(drover_router *r, const char *id);

/* No new requests; running ones go on. Removed rows are used again when
 * nothing is in flight on them. 0 or DROVER_ENOTFOUND. */
int drover_node_remove(drover_router *r, const char *id);
int drover_node_drain(drover_router *r, const char *id, int drain);
int drover_node_report(drover_router *r, const char *id,
                       const drover_report *report, double now);

/* Forget failures, cooling and a refused key: the operator has mended it. */
int drover_node_clear(drover_router *r, const char *id, double now);

/* What the headers of a node's reply say about its own limits; NaN: not said.
 * Requests beyond what is left are kept back until the reset. */
typedef struct drover_upstream {
  double requests_limit, requests_left, requests_reset;     /* reset: seconds */
  double tokens_limit, tokens_left, tokens_reset;
} drover_upstream;
void drover_node_upstream(drover_router *r, uint32_t node, uint32_t version,
                          const drover_upstream *u, double now);

/* Rows as shared memory: drover_nodes(r)[1] .. [drover_node_count(r)]. The
 * pointer holds until the handle is closed; the count only grows. */
const drover_node *drover_nodes(drover_router *r);
uint32_t drover_node_count(drover_router *r);
/* Copies of one row's texts and figures. 0, or DROVER_ENOTFOUND. */
int drover_node_read(drover_router *r, uint32_t node, drover_node_text *out);
int drover_node_stat(drover_router *r, uint32_t node, drover_node_stats *out,
                     double now);

/* ---- one decision, and the ticket it opens ---- */
enum drover_priority { DROVER_INTERACTIVE, DROVER_DEFAULT, DROVER_BATCH };

/* The caller's memory, zeroed once by ffi.new; the first part is the
 * caller's, the second the library's. `tried` lasts over the attempts of
 * one request, so a retry goes elsewhere: drover_pick_reset() clears it. */
typedef struct drover_pick {
  uint64_t model;                   /* drover_hash of the model; 0: any */
  uint64_t prefix;                  /* of the prompt's prefix; 0: none */
  uint64_t key;                     /* of the tenant; 0: none */
  uint32_t prompt_tokens;           /* estimate */
  uint32_t max_tokens;
  uint32_t only;                    /* this row and no other; 0: any */
  uint32_t again;                   /* 1: a tried node may be chosen again */
  uint32_t priority;                /* enum drover_priority */
  uint32_t called;                  /* 1: popped from the queue, goes first */
  const drover_limit *limits[3];    /* of router, tenant, model; NULL: none.
                                     * Must outlive the tickets */

  uint32_t node;                    /* chosen row; 0: none */
  uint32_t version;                 /* that row's version */
  uint32_t ticket;                  /* 0: none */
  uint32_t serial;                  /* of the ticket: a stale one is refused */
  double   now, rnd;                /* of the open decision */
  uint64_t tried[8];                /* rows sent to, by this request */
  uint64_t masked[8];               /* rows that refused, in this decision */
  uint32_t paid;                    /* 1: a send has been charged to router,
                                     * tenant and model: a retry is not one
                                     * more request of theirs */
  uint32_t refused_scope;           /* of the last refusal: enum drover_scope */
  uint32_t refused_kind;            /* enum drover_limit_kind */
  uint32_t panic;                   /* 1: rows that are out take part too */
  double   wait;                    /* and when it would pass: seconds from
                                     * `now`; 0: when something ends */
} drover_pick;

void drover_pick_reset(drover_pick *p);
/* Open a decision: nothing is masked; p->node: a row due for a probe, or 0. */
void drover_pick_begin(drover_router *r, drover_pick *p, double now,
                       double rnd);

/* 1 when `node` may be chosen now: up or due for a probe, takes the model,
 * has room, not tried (or `again`), not masked. */
int drover_pick_may(drover_router *r, const drover_pick *p, uint32_t node);
int drover_pick_tried(const drover_pick *p, uint32_t node);

/* Ask the built-in policy: sets p->node, or says why none will do:
 * DROVER_ENOTFOUND (no node takes the model), DROVER_ENONODE (none is up),
 * DROVER_EOVERLOADED (all that could are full). */
int drover_pick_choose(drover_router *r, drover_pick *p, drover_err *err);
/* Why no node will do, when a policy of the caller's answered none. */
int drover_pick_why(drover_router *r, drover_pick *p, drover_err *err);

/* Take the limits of router, tenant, model, node and key, all or none, and
 * open a ticket: p->node, p->ticket. DROVER_EAGAIN: that node or key refused
 * and is masked, ask again. DROVER_EOVERLOADED: the router or model is full,
 * or others wait; DROVER_ERATELIMITED: a rate, or what the tenant may have at
 * once; DROVER_EQUOTA: dollars. refused_* and wait say which and how long: of
 * limits that refuse together the one that passes last, of nodes the one that
 * passes first. (src/limit/hold.h, gcra.h and spend.h say it exactly.) */
int drover_pick_claim(drover_router *r, drover_pick *p, uint32_t node,
                      drover_err *err);
/* begin, then choose and claim until one holds or none is left. */
int drover_pick_node(drover_router *r, drover_pick *p, double now, double rnd,
                     drover_err *err);

/* The request's body is about to go out: from here a death counts as lost.
 * Marks the node as tried. 0, or DROVER_ECLOSED when the ticket is settled. */
int drover_ticket_sent(drover_router *r, drover_pick *p);

typedef struct drover_outcome {
  int32_t  code;                    /* 0 or DROVER_E*: of this attempt */
  uint32_t prompt_tokens, completion_tokens, cached_tokens;
  uint32_t tokens;                  /* what limits are charged instead of the
                                     * booking: used or estimated to be;
                                     * UINT32_MAX: the booking stands, of
                                     * dollars too. Not sent: all comes back */
  float    retry_after;             /* seconds the node asked for; 0: none */
  float    first_token_ms;          /* NaN: not measured */
  float    token_ms;                /* NaN: not measured */
  double   dollars;                 /* NaN: the booking stands, none counted */
} drover_outcome;

/* Settle: give back what the ticket holds, feed averages and breaker, count
 * the attempt (when it was sent). Once: a second call is DROVER_ECLOSED and
 * changes nothing. p->ticket becomes 0. */
int drover_ticket_done(drover_router *r, drover_pick *p,
                       const drover_outcome *o, double now);

/* A request has ended: count it. `node` may be 0; NaN times are not
 * counted. `overhead` is what we added, `first_token` from the caller's
 * side; both in seconds. */
void drover_request_done(drover_router *r, uint32_t node, int code,
                         double overhead, double first_token);

/* A request's second and later sends, over all workers: 1 when the budget has
 * one (it is taken), 0 when not. Each first send earns retry_ratio. */
int drover_retry_take(drover_router *r, double now);

/* Every 250 ms in each process: reap members whose process is gone, expire
 * probes. Returns the number of members reaped. */
int drover_tick(drover_router *r, double now);
/* Requests in flight over all members; exact at the instant it is read. */
int32_t drover_inflight(drover_router *r, uint32_t node);    /* 0: the router */

/* ---- waiting: one bounded queue a router, over all workers ---- */
typedef struct drover_port drover_port;

/* A waiting request: the caller's memory, zeroed once, its own until the end.
 * The queue (src/limit/queue.h) pops the best priority, fair between tenants
 * by tokens, the earliest deadline first. Who was popped gets
 * DROVER_EVENT_SLOT on its port, perhaps more than once; when
 * drover_wait_called() says so it picks with p->called set, within 1 s, and
 * then says again or end. */
typedef struct drover_wait {
  uint32_t call;                    /* comes back in the event; not 0 */
  uint32_t hold;                    /* 1: waits for a node, none is up */
  double   deadline;                /* when it gives up, on drover_clock() */
  uint32_t place, serial;           /* the library's; place 0: not waiting */
  uint64_t token;                   /* the library's */
} drover_wait;

/* Enter, for what `p` asks for, as its pick was just refused (refused_* and
 * wait say by what, and when it may pass). The port's thread; the first one
 * in a process starts the transport thread. DROVER_EOVERLOADED: the queue is
 * full, or the deadline cannot be met; p->wait is when to come again. */
int drover_wait_begin(drover_router *r, drover_port *port, drover_pick *p,
                      drover_wait *w, double now, drover_err *err);
/* 1: popped, go and claim. 0: waits on; the event was a late one.
 * DROVER_ECLOSED: not in the queue any more (its deadline has passed). */
int drover_wait_called(drover_router *r, const drover_wait *w);
/* Popped, but the claim failed: back to its old place, until p->wait or
 * until what refused has room. DROVER_ECLOSED: as above. */
int drover_wait_again(drover_router *r, const drover_pick *p, drover_wait *w,
                      double now);
/* Leave: claimed, cancelled, or late. Lets the next one go. Any number of
 * times, with the handle of the begin, the port open or not. */
void drover_wait_end(drover_router *r, drover_wait *w, double now);
/* Pop whoever may go now. For timers: a waiter calls it when its p->wait is
 * over; all else that frees room does it itself. */
void drover_wait_pump(drover_router *r, double now);
/* Requests that wait, over all members. */
uint32_t drover_waiting(drover_router *r);

/* ---- rates shared by many hosts (limits with flags & 1) ---- */
typedef struct drover_share {
  uint64_t id;                      /* of scope and name: the same on all hosts */
  double   asked;                   /* requests that came for it, ever */
  float    share;                   /* this host's part now, with that of 0 */
  uint32_t scope;                   /* enum drover_scope */
} drover_share;

/* The next such name in use behind place `from` (0: the first). Returns its
 * place, or 0 when there is no more. */
uint32_t drover_share_next(drover_router *r, uint32_t from, drover_share *out);
/* This host's part of all rates of `id` until `until`, on top of the part of
 * 0, which all names have and which stays beyond its time. What a name owes
 * stays the same number of requests and tokens when its part changes. */
void drover_share_set(drover_router *r, uint64_t id, float share,
                      double until);
/* The part of 0, and the time that came with it (0: never set). */
float drover_share_base(drover_router *r, double *until);

typedef struct drover_totals {
  double   requests, failures;
  uint32_t nodes, healthy, members, inflight;
  double   policy_errors, unqualified;   /* see docs/LUA-API.md, stats() */
  double   panics, retries_denied;
  double   reserved_tokens;         /* booked by open tickets */
  uint32_t waiting, names;          /* in the queue; in the table of limits */
} drover_totals;
void drover_router_totals(drover_router *r, drover_totals *out, double now);

enum drover_counter { DROVER_POLICY_ERROR, DROVER_POLICY_SWAP_ERROR,
                      DROVER_UNQUALIFIED, DROVER_PANIC, DROVER_RETRY_DENIED,
                      DROVER_STREAM_QUIRK, DROVER_USAGE_ESTIMATED,
                      DROVER_STORE_ERROR };
void drover_count(drover_router *r, int counter);

/* All counters as Prometheus text. Returns the bytes needed without the
 * closing NUL; writes at most `cap`. Any thread. */
long drover_expose(drover_router *r, char *buf, size_t cap);
/* cdef end */
#pragma GCC visibility pop

#include "drover_call.h"
#include "drover_engine.h"

#endif
