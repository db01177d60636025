/* drover_call: the completion port, the calls whose events arrive there, and
 * what reads JSON on the way. A part of drover.h, which includes it: the same
 * rules hold.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_CALL_H
#define DROVER_CALL_H

#pragma GCC visibility push(default)
/* cdef begin */
/* ---- the completion port: where replies of all calls arrive ---- */
typedef struct drover_call drover_call;

enum drover_event_type {
  DROVER_EVENT_HEAD = 1,            /* status; data: "name: value\n" lines */
  DROVER_EVENT_SSE,                 /* one event; data, and its name */
  DROVER_EVENT_BODY,                /* the whole body; no stream */
  DROVER_EVENT_TEXT,                /* a piece of a local model's text */
  DROVER_EVENT_END,                 /* ended well; the last event */
  DROVER_EVENT_FAIL,                /* code, phase, text; the last event */
  DROVER_EVENT_SLOT,                /* not of a call: a waiter was popped */
  DROVER_EVENT_VECTOR,              /* data: the floats of an embedding */
  DROVER_EVENT_CHOICE               /* one choice of a local model has ended,
                                     * others go on; the last one's is END */
};

enum drover_finish { DROVER_FINISH_NONE, DROVER_FINISH_STOP,
                     DROVER_FINISH_LENGTH };

typedef struct drover_event {
  uint32_t call;                    /* the number its caller gave */
  int32_t  type;                    /* enum drover_event_type */
  int32_t  code, phase;             /* FAIL: DROVER_E*, enum drover_phase */
  int32_t  status;                  /* HEAD: the HTTP status */
  int32_t  finish;                  /* END, CHOICE: enum drover_finish */
  int32_t  maybe_billed;            /* FAIL: the body had gone out */
  uint32_t prompt_tokens, completion_tokens;   /* END of a local model */
  double   at;                      /* drover_clock() when it happened */
  const char *data;                 /* bytes, not closed by NUL */
  size_t   data_size;
  const char *name;                 /* SSE: the event field, or "message" */
  size_t   name_size;
  int32_t  choice;                  /* TEXT, CHOICE, END of a local model: 0 …
                                     * n - 1 */
  const char *logprobs;             /* TEXT: of its tokens, where wanted, as
                                     * the JSON of a list without brackets;
                                     * data may be empty beside them */
  size_t   logprobs_size;
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
