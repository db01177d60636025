/* host: the host of a URL: a name, an IPv4 or an IPv6 literal, in the one
 * spelling that all readers agree on, and what it must not be.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_HOST_H
#define DROVER_NET_HOST_H

#include "../drover.h"


/* Read `text` (an IPv6 literal with its brackets) into `out` in lower case,
 * shortest form; *local says if it is loopback as written: nothing is
 * resolved, so a name that leads to 127.0.0.1 is not seen. 0, or
 * DROVER_EINVAL with the reason. Any thread. */
int net_host_read(const char *text, size_t size, char out[256], int *local,
                  drover_err *err);

#endif
