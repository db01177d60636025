/* request: what goes out in one call, checked and copied. One block of
 * memory, wiped before it is given back: keys and prompts are in it.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_REQUEST_H
#define DROVER_NET_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"

struct curl_slist;

struct net_request {
  void  *block;                     /* all of the below lies in it */
  size_t block_size;
  const char *url;
  const char *unix_path, *ca_file;  /* NULL: none */
  struct curl_slist *headers;       /* what libcurl sends, and no Expect */
  const char *body;                 /* never NULL; "" of a GET */
  size_t  body_size;
  int     post, https, stream;      /* flags; stream: the caller wants SSE */
  int64_t connect_ns, first_token_ns, idle_ns, total_ns;   /* 0: no deadline */
  size_t  body_max;                 /* bytes of the reply; 0: the defaults */
};


/* Check method, URL and headers, and copy. DROVER_EINVAL, DROVER_ENOMEM. */
int net_request_init(struct net_request *r, const drover_call_config *c,
                     drover_err *err);
void net_request_deinit(struct net_request *r);

#endif
