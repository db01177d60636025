/* drover.h: the public door of libdrover, and LuaJIT's view of it.
 *
 * What stands between the two cdef marks is plain C that ffi.cdef reads: no
 * macros, no _Atomic. Handles are opaque. Every fallible call returns 0 or a
 * negative DROVER_E* code and fills a drover_err that the caller owns (last
 * argument, may be NULL). Times are seconds in a double, `now` on the clock of
 * drover_clock(); `rnd` is uniform in [0, 1). No call blocks, prints, exits or
 * calls into Lua. "One thread" means: the thread that opened the handle.
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
  uint32_t concurrent;              /* requests in flight, all nodes; 0: 100 */
  uint32_t policy;                  /* from drover_policy() */
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
 * apply_begin are removed; limits are set; the number counts as applied. */
void drover_router_apply_end(drover_router *r, uint32_t generation,
                             uint32_t concurrent, double now);
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

/* Why a node is in its state, and its figures, for router:nodes(). */
typedef struct drover_node_stats {
  double   requests, failures;      /* attempts settled; those that failed */
  double   input_tokens, output_tokens, cached_tokens, dollars;
  double   health_score, load;      /* of the formula in docs/LUA-API.md */
  double   out_for;                 /* seconds until the next probe; 0 */
  double   seen_ago;                /* seconds since a reply or report; NaN */
  uint32_t fails;                   /* consecutive */
  int32_t  last_code;               /* of the last failure; 0 */
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

/* Rows as shared memory: drover_nodes(r)[1] .. [drover_node_count(r)]. The
 * pointer holds until the handle is closed; the count only grows. */
const drover_node *drover_nodes(drover_router *r);
uint32_t drover_node_count(drover_router *r);
/* Copies of one row's texts and figures. 0, or DROVER_ENOTFOUND. */
int drover_node_read(drover_router *r, uint32_t node, drover_node_text *out);
int drover_node_stat(drover_router *r, uint32_t node, drover_node_stats *out,
                     double now);

/* ---- one decision, and the ticket it opens ---- */
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

  uint32_t node;                    /* chosen row; 0: none */
  uint32_t version;                 /* that row's version */
  uint32_t ticket;                  /* 0: none */
  uint32_t serial;                  /* of the ticket: a stale one is refused */
  double   now, rnd;                /* of the open decision */
  uint64_t tried[8];                /* rows sent to, by this request */
  uint64_t masked[8];               /* rows that refused, in this decision */
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
int drover_pick_why(drover_router *r, const drover_pick *p, drover_err *err);

/* Take the limits of router and node, all or none, and open a ticket:
 * p->node, p->ticket. DROVER_EAGAIN: that node refused and is masked, ask
 * again. DROVER_EOVERLOADED: the router is full. */
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
  float    first_token_ms;          /* NaN: not measured */
  float    token_ms;                /* NaN: not measured */
  double   dollars;
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
/* Requests that wait for a slot, this handle's share (a gauge). */
void drover_request_pending(drover_router *r, int delta);

/* Every 250 ms in each process: reap members whose process is gone, expire
 * probes. Returns the number of members reaped. */
int drover_tick(drover_router *r, double now);
/* Requests in flight over all members; exact at the instant it is read. */
uint32_t drover_inflight(drover_router *r, uint32_t node);   /* 0: the router */

typedef struct drover_totals {
  double   requests, failures;
  uint32_t nodes, healthy, members, inflight;
  double   policy_errors, unqualified;   /* see docs/LUA-API.md, stats() */
} drover_totals;
void drover_router_totals(drover_router *r, drover_totals *out, double now);

enum drover_counter { DROVER_POLICY_ERROR, DROVER_POLICY_SWAP_ERROR,
                      DROVER_UNQUALIFIED };
void drover_count(drover_router *r, int counter);

/* All counters as Prometheus text. Returns the bytes needed without the
 * closing NUL; writes at most `cap`. Any thread. */
long drover_expose(drover_router *r, char *buf, size_t cap);

/* ---- the completion port: where replies of all calls arrive ---- */
typedef struct drover_port drover_port;
typedef struct drover_call drover_call;
typedef struct drover_engine drover_engine;

enum drover_event_type {
  DROVER_EVENT_HEAD = 1,            /* status; data: "name: value\n" lines */
  DROVER_EVENT_SSE,                 /* one event; data, and its name */
  DROVER_EVENT_BODY,                /* the whole body; no stream */
  DROVER_EVENT_TEXT,                /* a piece of a local model's text */
  DROVER_EVENT_END,                 /* ended well; the last event */
  DROVER_EVENT_FAIL                 /* code, phase, text; the last event */
};

enum drover_finish { DROVER_FINISH_NONE, DROVER_FINISH_STOP,
                     DROVER_FINISH_LENGTH };

typedef struct drover_event {
  uint32_t call;                    /* the number its caller gave */
  int32_t  type;                    /* enum drover_event_type */
  int32_t  code, phase;             /* FAIL: DROVER_E*, enum drover_phase */
  int32_t  status;                  /* HEAD: the HTTP status */
  int32_t  finish;                  /* END, local model: enum drover_finish */
  int32_t  maybe_billed;            /* FAIL: the body had gone out */
  uint32_t prompt_tokens, completion_tokens;   /* END of a local model */
  double   at;                      /* drover_clock() when it happened */
  const char *data;                 /* bytes, not closed by NUL */
  size_t   data_size;
  const char *name;                 /* SSE: the event field, or "message" */
  size_t   name_size;
} drover_event;

/* Belongs to one Lua loop; calls are made on it. No thread yet. One thread. */
int drover_port_open(drover_port **out, drover_err *err);
/* Closes its calls first: their handles end here too. Takes NULL. */
void drover_port_close(drover_port *p);
/* Readable when the queue has become not empty (an eventfd; next reads it). */
int drover_port_fd(drover_port *p);

/* For nginx: listen on a unix socket in `dir` (mode 0600) and write its path
 * to `path`; the worker connects; accept takes the connection, unlinks the
 * path, and sends one byte a wake-up from then on. */
int drover_port_listen(drover_port *p, const char *dir, char *path, size_t cap,
                       drover_err *err);
int drover_port_accept(drover_port *p, drover_err *err);
/* One byte to the wake-up descriptor: ends a wait from outside. Any thread. */
void drover_port_poke(drover_port *p);
/* 1 and the next event, or 0. Its spans hold until the next call of this. */
int drover_port_next(drover_port *p, drover_event *ev);
/* Wait at most `seconds` (negative: for ever) for news. Plain LuaJIT only.
 * Returns 1 when there may be some. */
int drover_port_wait(drover_port *p, double seconds);

/* ---- calls ---- */
typedef struct drover_call_config {
  uint32_t call;                    /* comes back in each event; not 0 */
  uint32_t stream;                  /* 1: the caller asked for SSE */
  const char *method;               /* "POST" or "GET" */
  const char *url;                  /* http:// or https://, with its path */
  const char *unix_path;            /* connect here instead; or NULL */
  const char *headers;              /* "Name: value\n" lines; or NULL */
  size_t   headers_size;
  const char *body;                 /* copied */
  size_t   body_size;
  const char *ca_file;              /* PEM bundle; NULL: the system's */
  double   connect, first_token, idle, total;   /* seconds; 0: no deadline */
  size_t   body_max;                /* reply; 0: 32 MiB, a stream 64 MiB */
} drover_call_config;

/* Send one HTTP request. 0: exactly one END or FAIL comes for it, unless it
 * is closed before. On an error nothing comes. The first call in a process
 * starts the transport thread. */
int drover_call_http(drover_call **out, drover_port *p,
                     const drover_call_config *c, drover_err *err);
/* The first content has been seen: the first-token deadline is met, the idle
 * deadline runs from here on. */
void drover_call_commit(drover_call *c);
/* `bytes` of the data of this call's SSE and TEXT events have been read. A call
 * with 256 KiB unread is paused until half of it is read. */
void drover_call_consumed(drover_call *c, size_t bytes);
/* Cancel if it runs, forget, free: no event of it comes then. Takes NULL. */
void drover_call_close(drover_call *c);
/* As close, for a stream whose end mark was read: the transfer has a moment
 * to end by itself, so that its connection is kept. */
void drover_call_leave(drover_call *c);

/* URL and header checks, for the configuration's side. Each returns 0 or
 * DROVER_EINVAL with the reason. `url` is that of a node: http, https, or
 * unix:/path.sock:/base; no userinfo, query or fragment. */
typedef struct drover_url {
  int32_t  https, is_unix, port;
  int32_t  local;                   /* 1: loopback, as written */
  char     host[256];               /* lower case, as the transport connects */
  char     path[256];               /* the base, without a closing slash */
  char     unix_path[108];
} drover_url;
int drover_url_check(const char *url, size_t size, drover_url *out,
                     drover_err *err);
int drover_header_check(const char *name, size_t name_size, const char *value,
                        size_t value_size, drover_err *err);

/* ---- the local model ---- */
typedef struct drover_engine_config {
  const char *path;                 /* of a GGUF file */
  const char *device;               /* NULL or "cpu" */
  uint32_t context;                 /* tokens a sequence; 0: the model's */
  uint32_t batch;                   /* sequences a step; 0: 16 */
  uint32_t queue;                   /* requests waiting; 0: 256 */
  uint64_t memory_cap_bytes;        /* weights and cache; 0: none */
} drover_engine_config;

typedef struct drover_engine_info {
  char     name[128];               /* general.name, or "" */
  char     architecture[32];
  uint32_t context, vocab, layers, width, has_template;
  uint64_t parameters, file_bytes, memory_bytes;
} drover_engine_info;

/* Map and check the file; no thread yet (the first call starts one, in the
 * process that makes it). DROVER_EFORMAT names the byte or field. */
int drover_engine_open(drover_engine **out, const drover_engine_config *c,
                       drover_err *err);
void drover_engine_close(drover_engine *e);     /* takes NULL */
void drover_engine_describe(drover_engine *e, drover_engine_info *out);
typedef struct drover_engine_load {
  uint32_t running, waiting, kv_tokens_used, kv_tokens;
  double   steps, tokens;           /* since it was opened */
} drover_engine_load;
void drover_engine_busy(drover_engine *e, drover_engine_load *out);
typedef struct drover_text { const char *data; size_t size; } drover_text;
typedef struct drover_message { drover_text role, content; } drover_message;

typedef struct drover_generate {
  uint32_t call;                    /* comes back in each event; not 0 */
  const drover_message *messages;   /* rendered by the model's template; or */
  uint32_t messages_count;
  drover_text prompt;               /* raw text, when messages_count is 0 */
  uint32_t max_tokens;              /* 0: what the context leaves */
  float    temperature;             /* 0: greedy */
  uint32_t top_k;                   /* 0: off */
  float    top_p;                   /* 1: off */
  uint64_t seed;
  const drover_text *stop;          /* at most 16 of at most 256 bytes */
  uint32_t stop_count;
  double   first_token, total;      /* deadlines, seconds from now; 0: none */
} drover_generate;

/* Generate on the local model; events TEXT…, then END or FAIL, as for HTTP.
 * DROVER_ECONTEXT, DROVER_EOVERLOADED (queue full) and bad values are
 * returned at once. Everything is copied. */
int drover_call_engine(drover_call **out, drover_port *p, drover_engine *e,
                       const drover_generate *g, drover_err *err);
/* How many tokens the model makes of a text (special tokens are text). */
long drover_engine_tokens(drover_engine *e, const char *text, size_t size);

/* ---- spans of JSON ---- */
/* What a chat chunk holds, found in one pass; spans are byte offsets. */
enum drover_delta_flag {
  DROVER_DELTA_TEXT = 1,            /* choices[0].delta.content, not empty */
  DROVER_DELTA_FINISH = 2,          /* choices[0].finish_reason, not null */
  DROVER_DELTA_USAGE = 4,           /* usage is an object */
  DROVER_DELTA_ERROR = 8,           /* error is neither absent nor null */
  DROVER_DELTA_OTHER = 16,          /* tool calls, reasoning, refusal, more than
                                     * one choice, or an index that is not 0 */
  DROVER_DELTA_ROLE = 32
};
typedef struct drover_delta {
  uint32_t flags;
  uint32_t text_start, text_size;   /* inside the quotes, still escaped */
  uint32_t text_plain;              /* 1: no escape in it */
  uint32_t finish_start, finish_size;
} drover_delta;

/* 0, or DROVER_EFORMAT when the text is not JSON (`err` says at which byte). */
int drover_delta_scan(const char *json, size_t size, drover_delta *out,
                      drover_err *err);

/* Unescape the inside of a JSON string into `to` (never longer than the
 * source). Returns the bytes written, or DROVER_EFORMAT. */
long drover_json_unescape(const char *from, size_t size, char *to);

typedef struct drover_span {
  size_t  start, stop;              /* byte offsets, stop is one past */
  int32_t type;                     /* first byte: { [ " t f n, '0': a number */
} drover_span;

/* Find one field. `path` is a run of steps, each closed by a NUL: "kNAME" is a
 * member of an object, "i7" an array's element 7 (from 0). 0, DROVER_ENOTFOUND
 * or DROVER_EFORMAT. The first of equal keys wins; they compare unescaped. The
 * whole text is checked; other values may be 1024 deep. */
int drover_json_find(const char *json, size_t size, const char *path,
                     size_t path_size, drover_span *out, drover_err *err);
/* 0 when the whole text is one well-formed JSON value no deeper than 128. */
int drover_json_check(const char *json, size_t size, drover_err *err);
/* The same, and an object's members of these names, each closed by a NUL: the
 * first of equal keys. What is absent has a type of 0, not '0'. */
int drover_json_members(const char *json, size_t size, const char *names,
                        int count, drover_span *out, drover_err *err);
/* cdef end */
#pragma GCC visibility pop
#endif
