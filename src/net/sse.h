/* sse: bytes to server-sent events, by the WHATWG rules.
 *
 *   bytes --line ends--> lines --fields--> data, name, id --blank--> event
 *
 * It knows no HTTP and no JSON. `retry` is for clients that reconnect, which
 * we never do: it is ignored like any unknown field. Everything that grows
 * has a cap, so an endless line or event costs 1 MiB and an error.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_SSE_H
#define DROVER_NET_SSE_H

#include <stddef.h>
#include <stdint.h>

#include "../base/buf.h"

enum {
  NET_SSE_MAX = 1024 * 1024,        /* bytes of a line, and of an event */
  NET_SSE_EVENTS_MAX = 1000000      /* in one stream */
};

struct net_sse {
  struct buf line;                  /* an unfinished line */
  struct buf data;                  /* of the open event, each line with LF */
  struct buf name;                  /* of the open event */
  struct buf id;                    /* the last one seen, also if unfinished */
  struct buf last_id;               /* of the last event or blank line */
  uint64_t events;                  /* given so far */
  uint64_t comments;                /* whole lines of them so far */
  int  failed;                      /* the error that ended it; 0 */
  char started;                     /* the first line is over: no BOM now */
  char after_cr;                    /* a LF next belongs to the last line */
  char skipping;                    /* inside a comment, which is not kept */
  char given;                       /* the buffers hold an event just given */
};

struct net_event {
  int ready;                        /* 1: the rest is an event */
  int lenient;                      /* 1: its blank line was missing */
  const char *data, *name, *id;     /* spans: until the next feed or deinit */
  size_t data_size, name_size, id_size;
};


void net_sse_init(struct net_sse *p);
void net_sse_deinit(struct net_sse *p);


/* Feed bytes as they come. Returns how many it used: `len`, or fewer when an
 * event is ready in `ev` (which may also be so at `len`). DROVER_ETOOLARGE
 * past a cap, DROVER_ENOMEM; then the parser stays failed. */
long net_sse_feed(struct net_sse *p, const char *buf, size_t len,
                  struct net_event *ev);


/* The stream has ended. An unfinished event is dropped, as the rules say,
 * unless it is a whole [DONE] or JSON object that lacks only its blank line:
 * then it is ready in `ev`, marked lenient. 0 or the parser's error. */
int net_sse_end(struct net_sse *p, struct net_event *ev);

#endif
