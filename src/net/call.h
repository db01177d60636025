/* call: one HTTP call, from its request to its one END or FAIL.
 *
 *   consumer's thread           transport thread
 *   new, start    --submit-->   begin, libcurl's callbacks, end
 *   cancel, resume --submit-->  (bits of `asked`, so a submit cannot fail)
 *   commit        --flag---->   read where deadlines are looked at
 *
 * It knows no port: events go to a sink. Deadlines are its own: libcurl's
 * timeout is only a backstop.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_CALL_H
#define DROVER_NET_CALL_H

#include <curl/curl.h>

#include "../drover.h"
#include "done.h"
#include "reply.h"
#include "request.h"
#include "timers.h"

struct net_loop;

/* Where a call's events go, and who holds it alive. */
struct net_sink {
  int  (*push)(void *user, const drover_event *ev);   /* as port_push(…, 0) */
  int  (*full)(const void *user);   /* 1: the consumer does not keep up */
  void (*retain)(void *user);
  void (*release)(void *user);
};

enum net_ask { NET_ASK_BEGIN = 1, NET_ASK_CANCEL = 2, NET_ASK_RESUME = 4 };

struct net_call {
  struct net_link link;             /* in the loop's stack of submits */
  uint32_t asked;                   /* atomic; NET_ASK_*; not 0: it is queued */
  int32_t committed;                /* atomic; the consumer sets it */
  int32_t ended;                    /* atomic; the transport sets it */
  struct net_loop *loop;            /* from start on; a reference */
  const struct net_sink *sink;
  void *user;
  struct net_done *done;            /* whom to wake; the sink's user holds it */
  struct net_request request;       /* the transport's from start on */
  /* From here on the transport thread's. */
  CURL *easy;                       /* while it runs */
  struct net_call *prev, *next;     /* running calls */
  struct net_timer timer;           /* the next look at the deadlines */
  struct net_reply reply;
  int64_t start_ns;
  int64_t resumed_ns;               /* when the consumer let it go on; 0 */
  int sends;                        /* requests begun on a connection */
  int paused;
};

enum net_limit { NET_LIMIT_NONE, NET_LIMIT_CONNECT, NET_LIMIT_FIRST_TOKEN,
                 NET_LIMIT_IDLE, NET_LIMIT_TOTAL };


/* ---- the consumer's side ---- */

/* Check and copy. DROVER_EINVAL, DROVER_ENOMEM. */
int net_call_new(struct net_call **out, const drover_call_config *c,
                 drover_err *err);


/* Hand it to the transport (starting that, in a process that has none). One
 * reference of `user` becomes the transport's; on an error it stays the
 * caller's and no event comes. */
int net_call_start(struct net_call *call, const struct net_sink *sink,
                   void *user, struct net_done *done, drover_err *err);


void net_call_cancel(struct net_call *call);
void net_call_commit(struct net_call *call);
void net_call_resume(struct net_call *call);


/* When no reference of `user` is left. Takes NULL. */
void net_call_free(struct net_call *call);


/* ---- the transport thread's side ---- */

/* Which deadline has passed at `now_ns`; if none, *next_ns is when to look
 * again (INT64_MAX: never). */
enum net_limit net_call_due(const struct net_call *call, int64_t now_ns,
                            int64_t *next_ns);


/* Fill the FAIL of a passed deadline. */
void net_call_late(struct net_call *call, enum net_limit limit,
                   drover_event *ev, drover_err *text);


/* The last event of a transfer that libcurl has ended with `rc`: END, after
 * what the reply still held, or FAIL. */
void net_call_result(struct net_call *call, CURLcode rc, drover_event *ev,
                     drover_err *text);


/* How far it is. */
enum drover_phase net_call_phase(const struct net_call *call);


/* 1 when the node may count it: bytes of a POST have gone out. */
int net_call_billed(const struct net_call *call);


/* Push through the sink, and remember whom to wake. */
int net_call_push(struct net_call *call, const drover_event *ev);

#endif
