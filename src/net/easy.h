/* easy: what libcurl is told about a call, and what it calls back. The
 * checklist of options is here and nowhere else.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_EASY_H
#define DROVER_NET_EASY_H

#include <curl/curl.h>

#include "call.h"
#include "watch.h"


/* A handle with all that is the same for each call. `watch` is told of each
 * socket that it opens and closes. NULL: no memory. */
CURL *net_easy_new(struct net_watch *watch);
void net_easy_free(CURL *easy);                 /* takes NULL */


/* All that is a call's own, nothing of the last call left. The handle then
 * points into the call until net_easy_clear(). DROVER_ENOMEM, the one way that
 * these options, all checked before, can fail. */
int net_easy_set(CURL *easy, struct net_call *call);


/* The call that it was set for; NULL when none. */
struct net_call *net_easy_call(CURL *easy);


/* The handle forgets the call. */
void net_easy_clear(CURL *easy);

#endif
