/* json: see json.h.
 *
 * SPDX-License-Identifier: MIT */
#include "json.h"

#include <stddef.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "err.h"


/* Remember the first fault; returns NULL, the position that is none. The text
 * ends there for whoever reads on, so that nobody else has to look. */
static const unsigned char *fault(struct json *j, const unsigned char *at,
                                  const char *what) {
  if (!j->fault) {
    j->at = j->end = at;
    j->fault = what;
  }
  return NULL;
}


/* ---- bytes ----
 *
 * A position goes from call to call as a value and into the cursor once a
 * token. That and the vector made 280 ns of 500 for a chunk of 200 bytes. */

/* JSON's four (RFC 8259, 2): all are at most ' ', so one comparison ends the
 * usual call. */
static inline const unsigned char *space(const unsigned char *p,
                                         const unsigned char *end) {
  while (p < end && *p <= ' ' &&
         (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    p++;
  return p;
}


/* Pass white space; the byte there, or 0 at the end. (A zero byte in the text
 * is never right outside a string, so both mean "nothing that fits".) */
static inline int peek(struct json *j) {
  if (j->at < j->end && *j->at > ' ')
    return *j->at;                  /* mostly, and without a store */
  j->at = space(j->at, j->end);
  return j->at < j->end ? *j->at : 0;
}


/* One byte that can stand in a string and unescapes to itself. DEL (0x7f) is
 * plain: only what is below the blank must be escaped. */
static int is_plain(unsigned char c) {
  return c >= ' ' && c < 0x80 && c != '"' && c != '\\';
}


/* Past printable ASCII without quote and backslash. */
static inline const unsigned char *plain_run(const unsigned char *p,
                                             const unsigned char *end) {
#ifdef __SSE2__
  const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
  const __m128i low = _mm_set1_epi8(' ');   /* signed: bytes from 0x80 too */
  for (; end - p >= 16; p += 16) {
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i stop = _mm_or_si128(_mm_cmplt_epi8(x, low),
                                _mm_or_si128(_mm_cmpeq_epi8(x, quote),
                                             _mm_cmpeq_epi8(x, slash)));
    int bits = _mm_movemask_epi8(stop);
    if (bits)
      return p + __builtin_ctz((unsigned)bits);
  }
#endif
  while (p < end && is_plain(*p))
    p++;
  return p;
}


/* The bytes of the UTF-8 sequence at `p`, 2 to 4; 0 when it is none. */
static int utf8_size(const unsigned char *p, const unsigned char *end) {
  size_t left = (size_t)(end - p);
  if (p[0] < 0xc2 || p[0] > 0xf4 || left < 2 || (p[1] & 0xc0) != 0x80)
    return 0;
  if (p[0] < 0xe0)
    return 2;
  if (left < 3 || (p[2] & 0xc0) != 0x80)
    return 0;
  if (p[0] < 0xf0) {
    int overlong = p[0] == 0xe0 && p[1] < 0xa0;
    int surrogate = p[0] == 0xed && p[1] >= 0xa0;
    return overlong || surrogate ? 0 : 3;
  }
  if (left < 4 || (p[3] & 0xc0) != 0x80)
    return 0;
  int overlong = p[0] == 0xf0 && p[1] < 0x90;
  int too_large = p[0] == 0xf4 && p[1] >= 0x90;
  return overlong || too_large ? 0 : 4;
}


/* `| 0x20` makes letters lower case; digits are gone by then. -1: none. */
static int hex_digit(unsigned char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}


/* The number of the escape "\uXXXX" at `p`, or -1. */
static int hex4(const unsigned char *p, const unsigned char *end) {
  if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
    return -1;
  int code = 0;
  for (int i = 2; i < 6; i++) {
    int digit = hex_digit(p[i]);
    if (digit < 0)
      return -1;
    code = code * 16 + digit;
  }
  return code;
}


/* The bytes of the escape at `p` (which is a backslash); 0 when it is none. */
static int escape_size(const unsigned char *p, const unsigned char *end) {
  if (end - p < 2)
    return 0;
  switch (p[1]) {
  case '"': case '\\': case '/': case 'b':
  case 'f': case 'n': case 'r': case 't':
    return 2;
  default:
    return hex4(p, end) >= 0 ? 6 : 0;
  }
}


/* ---- values ---- */

/* The end of a string from `p`, where something not plain stands inside it,
 * past its quote; NULL after a fault. */
static const unsigned char *string_rest(struct json *j, const unsigned char *p,
                                        int *plain) {
  const unsigned char *end = j->end;
  for (;; p = plain_run(p, end)) {
    int size = 0;
    if (p == end)
      return fault(j, p, "a string has no end");
    if (*p == '"')
      return p + 1;
    if (*p == '\\') {
      *plain = 0;
      size = escape_size(p, end);
    } else if (*p >= 0x80) {
      size = utf8_size(p, end);
    }
    if (!size)
      return fault(j, p, *p == '\\' ? "no such escape" :
                         *p < ' ' ? "a control character in a string" :
                         "a string is not UTF-8");
    p += size;
  }
}


/* The end of the string at `p`, which is a quote. */
static inline const unsigned char *string_end(struct json *j,
                                              const unsigned char *p,
                                              int *plain) {
  *plain = 1;
  p = plain_run(p + 1, j->end);
  return p < j->end && *p == '"' ? p + 1 : string_rest(j, p, plain);
}


/* Past the digits at `p`, of which there must be one at least. */
static const unsigned char *digits_end(struct json *j, const unsigned char *p) {
  const unsigned char *start = p;
  while (p < j->end && *p >= '0' && *p <= '9')
    p++;
  return p > start ? p : fault(j, p, "a number lacks a digit");
}


/* RFC 8259, 6: no leading zero, no plus, a digit on both sides of the point.
 * Values are not computed: readers get the span and convert what they need. */
static inline const unsigned char *number_end(struct json *j,
                                              const unsigned char *p) {
  const unsigned char *start = p += *p == '-';
  p = digits_end(j, p);
  if (p && *start == '0' && p > start + 1)
    return fault(j, start, "a number starts with a zero");
  if (p && p < j->end && *p == '.')
    p = digits_end(j, p + 1);
  if (p && p < j->end && (*p | 0x20) == 'e') {
    p++;
    p += p < j->end && (*p == '+' || *p == '-');
    p = digits_end(j, p);
  }
  return p;
}


/* `true`, `false` and `null`; what follows the word is the next token's
 * business, so "nullx" is found out there. */
static const unsigned char *word_end(struct json *j, const unsigned char *p,
                                     const char *word, size_t size) {
  if ((size_t)(j->end - p) < size || memcmp(p, word, size) != 0)
    return fault(j, p, "no such word");
  return p + size;
}


/* ---- the cursor ---- */

/* The bit stack of 1024 containers is left as it is: json_enter() clears a
 * word of it when the depth gets there. */
void json_open(struct json *j, const char *text, size_t size) {
  memset(j, 0, offsetof(struct json, arrays));    /* enter clears the rest */
  j->depth_max = JSON_DEPTH_MAX;
  j->start = j->at = (const unsigned char *)text;
  j->end = j->start + size;
}


/* By the first byte alone: '-' may still turn out to be no number, and
 * "trap" no word. Whoever reads the value checks it. */
enum json_kind json_kind(struct json *j) {
  int c = peek(j);
  switch (c) {
  case '{': case '[': case '"': case 't': case 'f': case 'n':
    return (enum json_kind)c;
  case '-':
    return JSON_NUMBER;
  default:
    return c >= '0' && c <= '9' ? JSON_NUMBER : JSON_NONE;
  }
}


/* Trusts that an object or array begins here: callers have asked json_kind().
 * The bit is kept so that leaving an inner container can restore `array`
 * without looking back in the text. */
void json_enter(struct json *j) {
  if (j->at == j->end)
    return;
  if (j->depth == j->depth_max) {
    fault(j, j->at, "nested too deep");
    return;
  }
  uint64_t bit = (uint64_t)1 << (j->depth % 64);
  uint64_t *word = &j->arrays[j->depth / 64];
  j->array = *j->at == '[';
  if (j->depth % 64 == 0)
    *word = 0;
  *word = j->array ? *word | bit : *word & ~bit;
  j->depth++;
  j->first = 1;
  j->at++;
}


/* After a fault the text is an empty one, never NULL: callers may compare it
 * without asking first. */
void json_string(struct json *j, struct json_text *out) {
  const unsigned char *start = NULL, *p;
  if (peek(j) == '"')
    p = string_end(j, start = j->at, &out->plain);
  else
    p = fault(j, j->at, "a string is missing");
  if (!p) {
    *out = (struct json_text){ .at = "", .plain = 1 };
    return;
  }
  out->at = (const char *)start + 1;
  out->size = (size_t)(p - start) - 2;
  j->at = p;
}


/* Past the comma before a member or element: 1; or out of the container. */
static int next_place(struct json *j) {
  int c = peek(j);
  if (c == (j->array ? ']' : '}')) {
    unsigned outer = (unsigned)--j->depth - 1;
    j->array = j->depth && j->arrays[outer / 64] >> (outer % 64) & 1;
    j->first = 0;
    j->at++;
    return 0;
  }
  if (!j->first && c != ',') {
    fault(j, j->at, "a comma or a closing bracket is missing");
    return 0;
  }
  j->at += !j->first;
  j->first = 0;
  return 1;
}


/* A key is read here and its colon passed, so that the cursor always stands
 * at a value when this gives 1. */
int json_next(struct json *j, struct json_text *key) {
  if (!next_place(j))
    return 0;
  if (j->array)
    return 1;
  json_string(j, key);
  if (peek(j) != ':') {
    fault(j, j->at, "a colon is missing");
    return 0;
  }
  j->at++;
  return 1;
}


/* Read the scalar of that kind at the cursor, or step into a container. */
static inline void read_value(struct json *j, enum json_kind kind) {
  const unsigned char *p = j->at;
  int plain;
  if (kind == JSON_OBJECT || kind == JSON_ARRAY)
    return json_enter(j);
  if (kind == JSON_STRING)
    p = string_end(j, p, &plain);
  else if (kind == JSON_NUMBER)
    p = number_end(j, p);
  else if (kind == JSON_NULL)
    p = word_end(j, p, "null", 4);
  else if (kind == JSON_TRUE)
    p = word_end(j, p, "true", 4);
  else if (kind == JSON_FALSE)
    p = word_end(j, p, "false", 5);
  else if (kind == JSON_NONE)
    p = fault(j, p, "a value is missing");
  if (p)
    j->at = p;
}


/* Flat: nested containers are entered and left by the same loop, which is
 * why a text 1024 deep needs no stack. With a fault the text has ended and
 * json_next() gives 0 without moving the depth; hence the second condition. */
void json_leave(struct json *j, int depth) {
  struct json_text key;
  while (j->depth > depth && !j->fault)
    if (json_next(j, &key))
      read_value(j, json_kind(j));
}


/* The span begins at the value itself, behind white space, and ends behind
 * its last byte. A scalar needs no loop: depth tells. */
void json_skip(struct json *j, drover_span *span) {
  int depth = j->depth;
  enum json_kind kind = json_kind(j);
  const unsigned char *start = j->at;
  read_value(j, kind);
  if (j->depth > depth)
    json_leave(j, depth);
  if (span)
    *span = (drover_span){ (size_t)(start - j->start),
                           (size_t)(j->at - j->start), (int32_t)kind };
}


/* peek() passes white space at the end of the text, which is allowed. The
 * message names the first fault only; whatever came later follows from it. */
int json_close(struct json *j, drover_err *err) {
  if (!j->fault && (peek(j) || j->at != j->end))
    fault(j, j->at, "something follows the value");
  if (!j->fault)
    return DROVER_OK;
  return drover_fail(err, DROVER_EFORMAT, "not JSON: %s, at byte %zu",
                     j->fault, (size_t)(j->at - j->start));
}


/* ---- strings unescaped ---- */

/* `code` is at most U+10FFFF and no surrogate (read_char() sees to it). The
 * lead byte of `size` bytes has as many ones in front: 0xf00 >> size gives
 * c0, e0, f0. */
static int put_utf8(uint32_t code, char out[4]) {
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  int size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (int i = size - 1; i > 0; i--, code >>= 6)
    out[i] = (char)(0x80 | (code & 0x3f));
  out[0] = (char)((0xf00 >> size & 0xff) | code);
  return size;
}


/* Unescape what stands at `*at`, one escape or one byte or sequence, into
 * `out`. Returns the bytes written and moves `*at`; 0 when it is not right
 * inside a string. */
static int read_char(const unsigned char **at, const unsigned char *end,
                     char out[4]) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  const unsigned char *p = *at;
  int size = p[0] < 0x80 ? p[0] >= ' ' && p[0] != '"' : utf8_size(p, end);
  if (p[0] != '\\') {
    memcpy(out, p, (size_t)size);
    *at += size;
    return size;
  }
  size = escape_size(p, end);
  *at += size;
  if (size == 2) {
    out[0] = to[strchr(from, p[1]) - from];
    return 1;
  }
  if (size == 0)
    return 0;
  uint32_t code = (uint32_t)hex4(p, end);
  int low = hex4(*at, end);
  if (code >= 0xd800 && code < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
    code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
    *at += 6;
  } else if (code >= 0xd800 && code < 0xe000) {
    code = 0xfffd;                  /* a lone surrogate */
  }
  return put_utf8(code, out);
}


/* Moves forward and never behind the source: an escape takes at least as
 * many bytes as what it stands for (2 for 1, 6 for 3, 12 for 4). So `to` may
 * be `from`. */
long json_unescape(const char *from, size_t size, char *to) {
  const unsigned char *p = (const unsigned char *)from, *end = p + size;
  char *out = to;
  while (p < end) {
    const unsigned char *run = plain_run(p, end);
    memmove(out, p, (size_t)(run - p));
    out += run - p;
    p = run;
    if (p == end)
      break;
    char one[4];
    int wrote = read_char(&p, end, one);
    if (!wrote)
      return DROVER_EFORMAT;
    memcpy(out, one, (size_t)wrote);
    out += wrote;
  }
  return out - to;
}


/* A plain key is compared as it stands; only one with an escape pays for
 * unescaping, character by character and without memory. */
int json_is(const struct json_text *text, const char *bytes, size_t size) {
  if (text->plain)
    return text->size == size && memcmp(text->at, bytes, size) == 0;
  const unsigned char *p = (const unsigned char *)text->at;
  const unsigned char *end = p + text->size;
  size_t done = 0;
  while (p < end) {
    char one[4];
    int wrote = read_char(&p, end, one);
    if (!wrote || (size_t)wrote > size - done ||
        memcmp(bytes + done, one, (size_t)wrote) != 0)
      return 0;
    done += (size_t)wrote;
  }
  return done == size;
}
