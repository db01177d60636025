/* header: which request headers may go out, and which reply headers are let
 * in. libcurl sends header lines as they are, so these checks are the only
 * ones.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_HEADER_H
#define DROVER_NET_HEADER_H

#include "../drover.h"

enum {
  NET_HEADER_MAX = 8192,            /* bytes of name and value; what nginx and
                                     * Apache take of one line by default */
  NET_HEADER_KEPT_MAX = 1024        /* bytes of a reply's value that is shown */
};


/* A token for a name; a value without control characters or spaces at its
 * ends, at most NET_HEADER_MAX bytes together; and none of the headers that
 * frame the message, which are the transport's. 0 or DROVER_EINVAL; the text
 * has the name, never the value. */
int net_header_check(const char *name, size_t name_size, const char *value,
                     size_t value_size, drover_err *err);


/* The same for a header that a caller of the library names: those that carry
 * keys and cookies are refused too, they belong to the node. */
int net_header_check_caller(const char *name, size_t name_size,
                            const char *value, size_t value_size,
                            drover_err *err);


/* Each of the "Name: value\n" lines; *count is how many. */
int net_header_lines(const char *text, size_t size, size_t *count,
                     drover_err *err);


/* One reply header, its line end included. */
struct net_header {
  char   name[48];                  /* lower case, closed by NUL */
  const char *value;                /* in the line, without spaces around */
  size_t value_size;
};


/* Read a reply's header line. 1, or 0 when it is to be ignored (no colon, a
 * name too long, folded, control characters in its value). */
int net_header_read(const char *line, size_t size, struct net_header *out);


/* 1 when the callers of this library are shown the header. */
int net_header_kept(const struct net_header *h);

#endif
