/* call: one HTTP call on its way, from its request to its one END or FAIL:
 * its deadlines, how far it is, and what it tells its consumer.
 *
 *   http (consumer's thread)  --asks-->  loop (transport thread)
 *                     both know the call; easy and outcome know libcurl
 *
 * It knows no port and no thread: events go to a sink. Deadlines are its
 * own: libcurl's timeout is only a backstop.
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

enum {
  NET_IDLE_COMMENTS = 5             /* idle times that comments may fill */
};

struct net_loop;

/* What a call's user asks of the thread: bits of net_call.asked. */
enum net_ask { NET_ASK_BEGIN = 1, NET_ASK_CANCEL = 2, NET_ASK_RESUME = 4,
               NET_ASK_LEAVE = 8 };

/* Where a call's events go, and who holds it alive. */
struct net_sink {
  int  (*push)(void *user, const drover_event *ev);   /* as port_push(…, 0) */
  int  (*full)(const void *user);   /* 1: the consumer does not keep up */
  void (*retain)(void *user);       /* any thread */
  void (*release)(void *user);      /* any thread; the call may be gone then */
};

/* What all calls of one transport thread share. */
struct net_shared {
  struct net_timers timers;         /* one timer each running call */
  struct net_wakes  wakes;          /* owed since the turn began */
};

struct net_call {
  struct net_link link;             /* first; in the loop's stack of submits */
  uint32_t asked;                   /* atomic; enum net_ask bits, both sides
                                     * write; not 0: it is in that stack */
  int32_t committed;                /* atomic; the consumer sets it */
  int32_t ended;                    /* atomic; the transport sets it */
  struct net_loop *loop;            /* from start on; a reference */
  const struct net_sink *sink;
  void *user;
  struct net_done *done;            /* whom to wake; the sink's user holds it */
  struct net_request request;       /* the transport's from start on */
  /* From here on the transport thread's. */
  struct net_shared *shared;
  CURL *easy;                       /* while it runs */
  struct net_call *prev, *next;     /* the loop's running calls */
  struct net_timer timer;           /* the next look at the deadlines */
  struct net_reply reply;           /* read so far */
  int64_t start_ns;                 /* set by the consumer, before it starts */
  int64_t resumed_ns;               /* when the consumer let it go on; 0 */
  int sends;                        /* requests begun on a connection; 2: the
                                     * second was refused */
  int no_socket;                    /* errno of one not opened; 0 */
  int paused;                       /* 1: libcurl holds bytes until resume */
};

enum net_limit { NET_LIMIT_NONE, NET_LIMIT_CONNECT, NET_LIMIT_FIRST_TOKEN,
                 NET_LIMIT_IDLE, NET_LIMIT_TOTAL };


/* Whom the call reports to, before it is submitted. */
void net_call_init(struct net_call *call, const struct net_sink *sink,
                   void *user, struct net_done *done, int64_t now_ns);


/* ---- the transport thread's ---- */

/* Which deadline has passed at `now_ns`; if none, *next_ns is when to look
 * again (INT64_MAX: never). */
enum net_limit net_call_due(const struct net_call *call, int64_t now_ns,
                            int64_t *next_ns);


/* Set the timer to the next look. Only the first time it can fail, with
 * DROVER_ENOMEM. */
int net_call_look(struct net_call *call, int64_t now_ns);


/* How far it is. */
enum drover_phase net_call_phase(const struct net_call *call);


/* 1 when the node may count it: bytes of a POST have gone out. */
int net_call_billed(const struct net_call *call);


/* Push through the sink, and remember whom to wake. */
int net_call_push(struct net_call *call, const drover_event *ev);

#endif
