/* conn: one connection of the fault server: bytes that came, bytes to go, and
 * what the request's path asks for. Knows no fault.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FAULT_CONN_H
#define FAULT_CONN_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_F = 4096, PIECE = 65536 };

/* What a step of an answer says: go on; the connection stays for another
 * request; close it; reset it; say no more and wait until the client leaves. */
enum verdict { MORE, KEEP, SHUT, RESET, HOLD };

struct bytes {
  char  *data;
  size_t size, room;
};

struct conn {
  int      fd;
  uint32_t id;                      /* of the connection, from 1 */
  int      requests;                /* read on it */
  struct bytes in;                  /* the request; more may be behind it */
  size_t   head_size, body_size;
  char     path[PATH_MAX_F];
  int      stream;                  /* the body says "stream":true */
  struct bytes out;
  size_t   out_at;                  /* of it, gone */
  int    (*step)(struct conn *c);   /* the next part; NULL: reads a request */
  int      verdict;                 /* of the last step */
  long     i;                       /* parts made, for the step */
  long     turn;                    /* how often this path was asked for */
  struct bytes whole;               /* for steps that keep a reply */
  int64_t  due_ns;                  /* goes on then; 0: at once */
  long     record;                  /* in the log; -1: none */
  uint32_t events;                  /* with content, made */
  struct conn *next;
};


/* ---- bytes ---- */

static void put(struct bytes *b, const void *data, size_t size) {
  if (b->size + size + 1 > b->room) {
    b->room = (b->size + size + 1) * 2;
    b->data = realloc(b->data, b->room);
    if (!b->data)
      exit(1);
  }
  memcpy(b->data + b->size, data, size);
  b->size += size;
  b->data[b->size] = '\0';
}


static void say(struct bytes *b, const char *text) {
  put(b, text, strlen(text));
}


__attribute__((format(printf, 2, 3)))
static void sayf(struct bytes *b, const char *format, ...) {
  char text[8192];
  va_list args;
  va_start(args, format);
  int n = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  put(b, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
}


static void fill(struct bytes *b, char byte, size_t size) {
  char piece[4096];
  memset(piece, byte, sizeof piece);
  for (; size > sizeof piece; size -= sizeof piece)
    put(b, piece, sizeof piece);
  put(b, piece, size);
}


/* Pairs of hex digits, up to what is none. */
static void put_hex(struct bytes *b, const char *hex) {
  unsigned byte;
  for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
    char one = (char)byte;
    put(b, &one, 1);
    if (!hex[1])
      break;
  }
}


/* ---- what the path asks for ---- */

/* The value of ";key=" or "/key=" in the path; "" when it stands alone; NULL
 * when it is not there. */
static const char *option(const struct conn *c, const char *key) {
  size_t n = strlen(key);
  for (const char *p = c->path; (p = strpbrk(p, "/;")); ) {
    p++;
    if (strncmp(p, key, n) == 0 && strchr("=@;?/", p[n]))
      return p[n] == '=' || p[n] == '@' ? p + n + 1 : p + n;
  }
  return NULL;
}


static long number(const struct conn *c, const char *key, long otherwise) {
  const char *v = option(c, key);
  return v && ((*v >= '0' && *v <= '9') || *v == '-') ? atol(v) : otherwise;
}


/* 1 when the option's value is this word. */
static int is_word(const struct conn *c, const char *key, const char *word) {
  const char *v = option(c, key);
  size_t n = strlen(word);
  return v && strncmp(v, word, n) == 0 && strchr(";/?", v[n]);
}


/* The option's value, copied; `otherwise` when it is not there. */
static const char *word(const struct conn *c, const char *key, char *to,
                        size_t room, const char *otherwise) {
  const char *v = option(c, key);
  if (!v)
    return otherwise;
  size_t n = strcspn(v, ";/?");
  n = n < room ? n : room - 1;
  memcpy(to, v, n);
  to[n] = '\0';
  return to;
}

#endif
