/* err: see err.h. The table is the only list of kinds in the project.
 *
 * SPDX-License-Identifier: MIT */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { CODES = -DROVER_ELOST + 1 };

/* By the negated code. Kinds that say "elsewhere it may work" are retryable;
 * kinds that say something about the node (and not about the request or
 * about us) hurt it. */
struct row {
  const char *kind;
  int counter;                      /* row among the counters */
  unsigned char retryable;          /* the same request may go elsewhere */
  unsigned char hurts;              /* counts against the node's health */
};

static const struct row rows[] = {
  [-DROVER_OK]            = { "ok", 0, 0, 0 },
  [-DROVER_EBADREQUEST]   = { "bad_request", 1, 0, 0 },
  [-DROVER_EUNAUTHORIZED] = { "unauthorized", 2, 1, 1 },
  [-DROVER_EQUOTA]        = { "quota", 3, 1, 1 },
  [-DROVER_ERATELIMITED]  = { "rate_limited", 4, 1, 1 },
  [-DROVER_EOVERLOADED]   = { "overloaded", 5, 1, 1 },
  [-DROVER_ENONODE]       = { "no_node", 6, 1, 0 },
  [-DROVER_EUNREACHABLE]  = { "unreachable", 7, 1, 1 },
  [-DROVER_ETLS]          = { "tls", 8, 1, 1 },
  [-DROVER_ETIMEOUT]      = { "timeout", 9, 1, 1 },
  [-DROVER_ERESET]        = { "reset", 10, 1, 1 },
  [-DROVER_ETRUNCATED]    = { "truncated", 11, 1, 1 },
  [-DROVER_EMALFORMED]    = { "malformed", 12, 1, 1 },
  [-DROVER_ECONTEXT]      = { "context_too_long", 13, 0, 0 },
  [-DROVER_EPOLICY]       = { "content_policy", 14, 0, 0 },
  [-DROVER_ENOTFOUND]     = { "not_found", 15, 0, 0 },
  [-DROVER_ETOOLARGE]     = { "too_large", 16, 0, 0 },
  [-DROVER_ECANCELLED]    = { "cancelled", 17, 0, 0 },
  [-DROVER_ECLOSED]       = { "closed", 18, 0, 0 },
  [-DROVER_ERESOURCE]     = { "resource", 19, 1, 0 },
  [-DROVER_EINTERNAL]     = { "internal", 20, 0, 0 },
  [-DROVER_EINVAL]        = { "bad_request", 1, 0, 0 },
  [-DROVER_ENOMEM]        = { "resource", 19, 1, 0 },
  [-DROVER_EFORMAT]       = { "malformed", 12, 1, 1 },
  [-DROVER_EAGAIN]        = { "overloaded", 5, 1, 0 },
  [-DROVER_ELOST]         = { "lost", 21, 0, 0 },
};
_Static_assert(sizeof rows / sizeof *rows == CODES, "a row for each code");

static const char *const phases[] = {
  [DROVER_PHASE_CONFIG] = "config", [DROVER_PHASE_LIMIT] = "limit",
  [DROVER_PHASE_PICK] = "pick", [DROVER_PHASE_CONNECT] = "connect",
  [DROVER_PHASE_SEND] = "send", [DROVER_PHASE_FIRST_TOKEN] = "first_token",
  [DROVER_PHASE_STREAM] = "stream", [DROVER_PHASE_DECODE] = "decode",
};


/* A number that is no code of ours counts as an internal error, so that a
 * table lookup never needs a check. */
static const struct row *row_of(int code) {
  return code <= 0 && code > -CODES ? &rows[-code] : &rows[-DROVER_EINTERNAL];
}


const char *drover_err_kind(int code) {
  return row_of(code)->kind;
}


int drover_err_retryable(int code) {
  return row_of(code)->retryable;
}


const char *drover_phase_name(int phase) {
  int count = (int)(sizeof phases / sizeof *phases);
  return phase >= 0 && phase < count ? phases[phase] : NULL;
}


int err_row(int code) {
  return row_of(code)->counter;
}


/* Several codes share a row; their kinds are spelled alike, so the first
 * found will do. NULL when no row has the number. */
const char *err_row_word(int row) {
  for (int i = 0; i < CODES; i++)
    if (rows[i].counter == row)
      return rows[i].kind;
  return NULL;
}


int err_hurts_node(int code) {
  return row_of(code)->hurts;
}


/* Where a text of `size` bytes ends when a UTF-8 sequence is cut at its end. */
static size_t whole(const char *text, size_t size) {
  size_t i = size;
  while (i > 0 && size - i < 3 && ((unsigned char)text[i - 1] & 0xc0) == 0x80)
    i--;
  if (i == 0 || !((unsigned char)text[i - 1] & 0x80))
    return size;
  unsigned char lead = (unsigned char)text[i - 1];
  size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
  return size - (i - 1) < want ? i - 1 : size;
}


/* What vsnprintf cuts off may have ended inside a sequence: the text then
 * ends before it, because it goes into JSON as it is. A failed format
 * (EILSEQ) leaves the code with an empty text. */
int drover_fail(drover_err *err, int code, const char *fmt, ...) {
  if (!err)
    return code;
  va_list args;
  va_start(args, fmt);
  int wrote = vsnprintf(err->text, sizeof err->text, fmt, args);
  va_end(args);
  if (wrote < 0)
    err->text[0] = '\0';
  if (wrote >= (int)sizeof err->text)
    err->text[whole(err->text, sizeof err->text - 1)] = '\0';
  err->code = code;
  return code;
}
