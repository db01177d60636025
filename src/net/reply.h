/* reply: the bytes of one HTTP reply to the events of one call. It knows no
 * libcurl and no thread; times come in.
 *
 *   header lines -> HEAD -> text/event-stream, 2xx: SSE, SSE, ...
 *                        \> anything else:          BODY (once, at the end)
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_REPLY_H
#define DROVER_NET_REPLY_H

#include "../base/buf.h"
#include "../drover.h"
#include "sse.h"

enum {
  NET_HEAD_MAX = 300 * 1024,        /* bytes of all header lines; curl's own
                                     * MAX_HTTP_RESP_HEADER_SIZE since 8.3 */
  NET_HEAD_LINES_MAX = 5000,        /* as curl's MAX_HTTP_RESP_HEADER_COUNT */
  NET_HEAD_INTERIM_MAX = 8,         /* 1xx replies before the reply */
  NET_ERROR_BODY_MAX = 1024 * 1024  /* of a reply that is not 2xx */
};
#define NET_BODY_MAX   ((size_t)32 * 1024 * 1024)
#define NET_STREAM_MAX ((size_t)64 * 1024 * 1024)


/* Where events go; returns 0, DROVER_ENOMEM or DROVER_ECLOSED. */
struct net_out {
  int (*push)(void *user, const drover_event *ev);
  void *user;
};

struct net_reply {
  struct net_out out;
  struct buf head;                  /* the kept header lines */
  struct buf body;
  struct net_sse sse;
  size_t  body_max;                 /* as configured; 0: the defaults */
  size_t  head_bytes, head_lines;   /* so far, interim replies included */
  size_t  interim;                  /* 1xx replies so far */
  uint64_t bytes;                   /* of the body so far */
  int64_t event_ns;                 /* when the last event came; 0: none did */
  int64_t comment_ns;               /* and the last comment's end */
  int     status;                   /* of the last status line */
  int     head_done;                /* the final head is over */
  int     streaming;                /* it is an event stream */
  int     encoded;                  /* compressed, which we never ask for */
  int     heard;                    /* any byte came at all */
  drover_err err;                   /* the first failure; code 0: none */
};


void net_reply_init(struct net_reply *r, struct net_out out, size_t body_max);
void net_reply_deinit(struct net_reply *r);


/* One header line with its end, as it came; a line of a trailer is ignored.
 * 0, or a code that is in r->err too. */
int net_reply_line(struct net_reply *r, const char *line, size_t size);


/* Bytes of the body. Returns as above. */
int net_reply_bytes(struct net_reply *r, const char *bytes, size_t size,
                    int64_t now_ns);


/* The transport says that the reply is over and whole: gives what is left
 * (BODY, or a last event). DROVER_ETRUNCATED when the head was not whole. */
int net_reply_end(struct net_reply *r, int64_t now_ns);

#endif
