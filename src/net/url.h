/* url: what a node's or a call's URL says, read strictly.
 *
 * Where readers of URLs differ (WHATWG, RFC 3986, libcurl) the spelling is
 * refused, so that the host which is checked here is the host that the
 * transport connects to. Resolves nothing.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_URL_H
#define DROVER_NET_URL_H

#include "../drover.h"

enum { NET_URL_MAX = 2048 };


/* A node's URL: see drover_url_check() in drover.h. */
int net_url_node(const char *url, size_t size, drover_url *out,
                 drover_err *err);


/* A call's URL: http or https, a path, perhaps a query. `out` is as for a
 * node's, but without the path. */
int net_url_call(const char *url, size_t size, drover_url *out,
                 drover_err *err);

#endif
