/* err: codes, their words and classes, and the text that a caller owns.
 *
 * One table in err.c has a row for each code of drover.h: the err.kind, its
 * row among the counters, whether the same request may be tried elsewhere,
 * and whether the failure counts against the node's health.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_ERR_H
#define DROVER_BASE_ERR_H

#include "../drover.h"

enum { ERR_KINDS = 22 };            /* ok, the 20 kinds, lost: counters' rows */


/* Fill `err` (may be NULL) and hand `code` back, so a caller can return it.
 * A text that is too long is cut, never in the middle of a UTF-8 sequence.
 * Any thread. */
int drover_fail(drover_err *err, int code, const char *fmt, ...)
  __attribute__((format(printf, 3, 4)));


/* The row of a code's kind among the counters: 0 ok, 1..20 the kinds, 21
 * lost. A finer code has the row of its kind. */
int err_row(int code);


/* The word of a counters' row. */
const char *err_row_word(int row);


/* 1 when a failure of this code counts against the node that gave it. */
int err_hurts_node(int code);

#endif
