/* upstream_plan: what a request may ask of bench/upstream, step by step, and
 * the whole answers of a server that is ill: bytes, and what becomes of the
 * connection behind them.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BENCH_UPSTREAM_PLAN_H
#define DROVER_BENCH_UPSTREAM_PLAN_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum fault_then { FAULT_KEEP, FAULT_CLOSE, FAULT_RESET };

struct fault {
  const char *name;                 /* as a step spells it */
  enum fault_then then;
  const char *bytes;
};

#define JSON_HEAD(status, size) "HTTP/1.1 " status "\r\nContent-Type: " \
  "application/json\r\nContent-Length: " size "\r\n\r\n"
#define SSE_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" \
  "Connection: close\r\n\r\n"
#define CHUNK(delta) "data: {\"id\":\"c\",\"object\":\"chat.completion." \
  "chunk\",\"choices\":[{\"index\":0,\"delta\":{" delta "},\"finish_reason\"" \
  ":null}]}\n\n"

static const struct fault faults[] = {
  { "junk", FAULT_CLOSE, "SSH-2.0-junk\r\n" },
  { "html", FAULT_KEEP, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    "Content-Length: 6\r\n\r\n<html>" },
  { "badjson", FAULT_KEEP, JSON_HEAD("200 OK", "9") "{\"choices" },
  { "error200", FAULT_KEEP, JSON_HEAD("200 OK", "37")
    "{\"error\":{\"message\":\"a sad machine\"}}" },
  { "empty", FAULT_KEEP, JSON_HEAD("200 OK", "0") },
  { "short", FAULT_CLOSE, JSON_HEAD("200 OK", "99") "{\"choices" },
  { "reset", FAULT_RESET, "" },
  { "resethead", FAULT_RESET, "HTTP/1.1 200 OK\r\nContent-Ty" },
  { "badchunk", FAULT_CLOSE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
    "\r\nContent-Type: application/json\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx" },
  { "redirect", FAULT_KEEP, "HTTP/1.1 307 Go\r\nContent-Length: 0\r\n"
    "Location: http://127.0.0.1:1/stolen\r\n\r\n" },
  { "context", FAULT_KEEP, JSON_HEAD("400 Bad", "65") "{\"error\":{\"code\":"
    "\"context_length_exceeded\",\"message\":\"too long\"}}" },
  { "policy", FAULT_KEEP, JSON_HEAD("400 Bad", "38")
    "{\"error\":{\"code\":\"content_filter\"}}   " },
  { "limited", FAULT_KEEP, "HTTP/1.1 429 Slow\r\nRetry-After-Ms: 5\r\n"
    "Content-Type: application/json\r\nContent-Length: 42\r\n\r\n"
    "{\"error\":{\"code\":\"rate_limit_exceeded\"}}  " },
  { "key", FAULT_KEEP, JSON_HEAD("401 No", "38")
    "{\"error\":{\"code\":\"invalid_api_key\"}}  " },
  { "quota", FAULT_KEEP, JSON_HEAD("429 Slow", "40")
    "{\"error\":{\"code\":\"insufficient_quota\"}} " },
  { "nothing", FAULT_CLOSE, SSE_HEAD "data: [DONE]\n\n" },
  { "roleonly", FAULT_CLOSE, SSE_HEAD CHUNK("\"role\":\"assistant\"") },
  { "errorfirst", FAULT_CLOSE, SSE_HEAD CHUNK("\"role\":\"assistant\"")
    "data: {\"error\":{\"message\":\"a sad machine\"}}\n\n" },
  { "badevent", FAULT_CLOSE, SSE_HEAD CHUNK("\"content\":\"c")
    "data: {\"choices\":[{\n\n" },
};


/* The fault of a name of `n` bytes, or NULL. */
static inline const struct fault *fault_find(const char *name, size_t n) {
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    if (strlen(faults[i].name) == n && !strncmp(faults[i].name, name, n))
      return &faults[i];
  return NULL;
}


struct plan {                       /* what the path and body ask for */
  int status, hang, close, stream, usage, chunks, cut, error;
  int stall, nodone, interim, once;
  uint32_t canary;                  /* 0: none */
  const struct fault *fault;
  int64_t delay_ns, gap_ns;
};


static inline void read_step(struct plan *p, const char *step, int n) {
  const char *dash = memchr(step, '-', (size_t)n);
  int value = dash ? atoi(dash + 1) : 0;
  if (!strncmp(step, "status-", 7)) p->status = value;
  else if (!strncmp(step, "delay-", 6)) p->delay_ns = value * 1000000LL;
  else if (!strncmp(step, "gap-", 4)) p->gap_ns = value * 1000000LL;
  else if (!strncmp(step, "chunks-", 7)) p->chunks = value;
  else if (!strncmp(step, "cut-", 4)) p->cut = value;
  else if (!strncmp(step, "error-", 6)) p->error = value;
  else if (!strncmp(step, "stall-", 6)) p->stall = value;
  else if (!strncmp(step, "canary-", 7)) p->canary = (uint32_t)value;
  else if (n == 4 && !strncmp(step, "hang", 4)) p->hang = 1;
  else if (n == 4 && !strncmp(step, "once", 4)) p->once = 1;
  else if (n == 5 && !strncmp(step, "close", 5)) p->close = 1;
  else if (n == 6 && !strncmp(step, "nodone", 6)) p->nodone = 1;
  else if (n == 7 && !strncmp(step, "interim", 7)) p->interim = 1;
  else if (!p->fault) p->fault = fault_find(step, (size_t)n);
}


/* Steps from `at` on, each closed by `between`, up to a byte of `ends`. */
static inline void read_steps(struct plan *p, const char *at, const char *ends,
                       char between) {
  char stops[4] = { between, ends[0], ends[0] ? ends[1] : 0 };
  while (*at && !strchr(ends, *at)) {
    int n = (int)strcspn(at, stops);
    read_step(p, at, n);
    at += n + (at[n] == between);
  }
}

#endif
