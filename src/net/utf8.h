/* utf8: bytes as text. What is not UTF-8 becomes U+FFFD, one for each maximal
 * subpart, as the WHATWG decoder does it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_UTF8_H
#define DROVER_NET_UTF8_H

#include <stddef.h>

#include "../base/buf.h"


/* How many bytes from the front are whole, valid code points. */
size_t net_utf8_run(const char *s, size_t size);


/* Append `size` bytes, repaired. The returns of buf_add(); on an error a part
 * may have been appended. */
int net_utf8_add(struct buf *b, const char *s, size_t size);

#endif
