/* json: a cursor over a JSON text (RFC 8259) that checks as it goes. It
 * builds no tree, allocates nothing, and its stack does not grow with the
 * text; what it gives are byte spans into the text.
 *
 * Every call checks what it passes: structure, escapes, control characters,
 * UTF-8 (no overlong form, no surrogate, nothing past U+10FFFF), and a depth
 * of at most JSON_DEPTH_MAX (a search may pass over deeper ones). A byte
 * order mark is not JSON. An escaped lone surrogate is in RFC 8259's grammar,
 * so it passes; unescaped it is U+FFFD.
 *
 * Reading an object, wherever it stands:
 *
 *   if (json_kind(j) == JSON_OBJECT) {
 *     json_enter(j);
 *     while (json_next(j, &key))         at the member's value:
 *       json_skip(j, NULL);              or enter it, or json_string() it
 *   }
 *
 * After a fault json_next() gives 0 and json_kind() JSON_NONE, so loops end
 * by themselves and json_close() reports it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_JSON_H
#define DROVER_BASE_JSON_H

#include "../drover.h"

enum {
  JSON_DEPTH_MAX = 128,
  JSON_PASSED_MAX = 1024            /* what json_find() can pass over */
};

enum json_kind {                    /* of a value: its first byte */
  JSON_NONE = 0, JSON_OBJECT = '{', JSON_ARRAY = '[', JSON_STRING = '"',
  JSON_NUMBER = '0', JSON_TRUE = 't', JSON_FALSE = 'f', JSON_NULL = 'n'
};

struct json {
  const unsigned char *at;          /* next byte */
  const unsigned char *end;         /* of the text; after a fault, that place */
  const unsigned char *start;
  const char *fault;                /* what is wrong at `at`; NULL: nothing */
  int depth;                        /* containers entered and not left */
  int depth_max;
  int array;                        /* the innermost one is an array */
  int first;                        /* and nothing of it is read yet */
  uint64_t arrays[JSON_PASSED_MAX / 64];  /* bit n: container n is an array */
};

struct json_text {                  /* a string's inside, still escaped */
  const char *at;
  size_t size;
  int plain;                        /* 1: no escape in it */
};


/* Stand before the text's value. The text must outlive the cursor. */
void json_open(struct json *j, const char *text, size_t size);


/* The kind of the value at the cursor, by its first byte (white space before
 * it is passed); JSON_NONE when no value starts here. */
enum json_kind json_kind(struct json *j);


/* Step into the object or array at the cursor. */
void json_enter(struct json *j);


/* Go to the next member or element, whose value the caller then reads, and
 * give a member's key; or leave the container: 0. */
int json_next(struct json *j, struct json_text *key);


/* Read the rest of the containers entered past `depth`. */
void json_leave(struct json *j, int depth);


/* Read one whole value of any kind; `span` may be NULL. */
void json_skip(struct json *j, drover_span *span);


/* Read the string at the cursor. */
void json_string(struct json *j, struct json_text *out);


/* The text must be over. 0, or DROVER_EFORMAT with what was wrong at which
 * byte. */
int json_close(struct json *j, drover_err *err);


/* 1 when the inside of a string, unescaped, is these bytes. */
int json_is(const struct json_text *text, const char *bytes, size_t size);


/* Unescape the inside of a string into `to`, which has room for its size.
 * Returns the bytes written, or DROVER_EFORMAT. Checks as json_string(). */
long json_unescape(const char *from, size_t size, char *to);


/* Find the value at a path: see drover_json_find(). The whole text is
 * checked, what stands behind the value too, down to JSON_PASSED_MAX. */
int json_find(struct json *j, const char *path, size_t path_size,
              drover_span *out, drover_err *err);

#endif
