/* log: what the fault server has seen: the billing oracle. Totals for ever,
 * and a record for each complete body, RECORDS of them at most.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FAULT_LOG_H
#define FAULT_LOG_H

#include "conn.h"

enum { RECORDS = 20000, KEPT = 8192, TURNS = 4096 };

struct record {
  uint32_t conn;                    /* the connection's number */
  int      request;                 /* the how-manieth on it */
  uint32_t events;                  /* with content, sent */
  size_t   size, sent;              /* bytes of the body; of the answer */
  const char *end;                  /* how the answer ended */
  char    *path, *head, *body;      /* KEPT bytes of head and body at most */
};

static struct {
  long connections, open, bodies, gone;
  long bytes_in, bytes_out;
  struct record *records;
  long count;
  struct { uint64_t path; long turns; } turns[TURNS];
} seen;


/* How often this path has come before; counts it. */
static long log_turn(const char *path) {
  uint64_t h = 1469598103934665603u;
  for (; *path; path++)
    h = (h ^ (unsigned char)*path) * 1099511628211u;
  size_t i = h % TURNS;
  for (int n = 0; n < TURNS && seen.turns[i].turns; n++) {
    if (seen.turns[i].path == h)
      break;
    i = (i + 1) % TURNS;
  }
  seen.turns[i].path = h;
  return seen.turns[i].turns++;
}


static void log_body(struct conn *c) {
  seen.bodies++;
  c->record = -1;
  if (!seen.records)
    seen.records = calloc(RECORDS, sizeof *seen.records);
  if (!seen.records || seen.count >= RECORDS)
    return;
  struct record *r = &seen.records[c->record = seen.count++];
  memset(r, 0, sizeof *r);
  r->conn = c->id;
  r->request = c->requests;
  r->size = c->body_size;
  r->end = "open";
  r->path = strdup(c->path);
  r->head = strndup(c->in.data, c->head_size < KEPT ? c->head_size : KEPT);
  r->body = strndup(c->in.data + c->head_size,
                    c->body_size < KEPT ? c->body_size : KEPT);
}


/* `end`: kept, shut, reset, held: as it was meant; gone: the client left. */
static void log_end(struct conn *c, const char *end) {
  if (c->record < 0)
    return;
  seen.records[c->record].end = end;
  seen.records[c->record].events = c->events;
}


static void log_sent(struct conn *c, size_t size) {
  seen.bytes_out += (long)size;
  if (c->record >= 0)
    seen.records[c->record].sent += size;
}


static void log_reset(struct conn *all) {
  for (long i = 0; i < seen.count; i++) {
    free(seen.records[i].path);
    free(seen.records[i].head);
    free(seen.records[i].body);
  }
  for (struct conn *c = all; c; c = c->next)
    c->record = -1;
  long open = seen.open;
  struct record *records = seen.records;
  memset(&seen, 0, sizeof seen);
  seen.open = open;
  seen.records = records;
}


static void say_string(struct bytes *b, const char *name, const char *text) {
  sayf(b, ",\"%s\":\"", name);
  for (; *text; text++) {
    unsigned char one = (unsigned char)*text;
    if (one < 32 || one > 126 || one == '"' || one == '\\')
      sayf(b, "\\u%04x", one);
    else
      put(b, text, 1);
  }
  say(b, "\"");
}


/* All of it as one line of JSON. */
static void log_say(struct bytes *b, int with_records) {
  sayf(b, "{\"connections\":%ld,\"open\":%ld,\"bodies\":%ld,\"gone\":%ld,"
       "\"bytes_in\":%ld,\"bytes_out\":%ld,\"requests\":[", seen.connections,
       seen.open, seen.bodies, seen.gone, seen.bytes_in, seen.bytes_out);
  for (long i = 0; with_records && i < seen.count; i++) {
    const struct record *r = &seen.records[i];
    sayf(b, "%s{\"conn\":%u,\"request\":%d,\"events\":%u,\"size\":%zu,"
         "\"sent\":%zu,\"end\":\"%s\"", i ? "," : "", r->conn, r->request,
         r->events, r->size, r->sent, r->end);
    say_string(b, "path", r->path);
    say_string(b, "head", r->head);
    say_string(b, "body", r->body);
    say(b, "}");
  }
  say(b, "]}");
}

#endif
