/* done: the way of things between threads, and the wake-up behind it.
 *
 *   any thread --push--> head -> c -> b -> a        (newest first)
 *   one thread <--take-- a -> b -> c                (oldest first)
 *
 * A stack is closed once; from then on nothing can be pushed, so what is
 * pushed is either taken or handed back, never lost. A `net_done` is a stack
 * with a descriptor that wakes its reader: an eventfd, or for nginx the unix
 * socket that a worker's cosocket has connected to.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_DONE_H
#define DROVER_NET_DONE_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"

struct net_link { struct net_link *next; };

struct net_stack { struct net_link *head; };    /* atomic; NULL: empty */

struct net_done {
  struct net_stack stack;
  int32_t refs;                     /* atomic */
  int32_t signalled;                /* atomic; 1: the eventfd may hold a
                                     * wake-up; writers 1, the reader 0 */
  int fd;                           /* eventfd */
  int sock;                         /* atomic; -1 until accepted; the reader's
                                     * to write, then all wake through it */
  int listener;                     /* the reader's; -1 */
  int owed;                         /* the transport thread's: in net_wakes */
  struct net_done *owed_next;       /* the transport thread's */
  char path[108];                   /* of the listener; "" */
};

/* Queues whose readers are to be woken at the end of a turn. One thread. */
struct net_wakes { struct net_done *first; };


/* Any thread. 1 when the stack was empty (its reader must be woken), 0 when
 * it was not, -1 when it is closed and the link is still the caller's. */
int net_stack_push(struct net_stack *s, struct net_link *link);


/* All there is, oldest first; NULL when there is nothing or it is closed. */
struct net_link *net_stack_take(struct net_stack *s);


/* The same, and nothing can be pushed from now on. */
struct net_link *net_stack_close(struct net_stack *s);


/* Born with one reference. DROVER_ENOMEM or DROVER_ERESOURCE (descriptors). */
int net_done_new(struct net_done **out, drover_err *err);
void net_done_ref(struct net_done *d);
void net_done_unref(struct net_done *d);        /* takes NULL */


/* Write one wake-up to the socket or the eventfd. Any thread. */
void net_done_wake(struct net_done *d);


/* Wake `done` at the next flush: once, however often it is owed. */
void net_wakes_owe(struct net_wakes *w, struct net_done *done);
void net_wakes_flush(struct net_wakes *w);


/* Take what is there, after taking back the wake-up. The reader. */
struct net_link *net_done_take(struct net_done *d);


/* Wait at most `ns` (negative: for ever). 1 when there may be something. The
 * reader; not for one that has a socket. */
int net_done_wait(struct net_done *d, int64_t ns);


/* See drover_port_listen() and drover_port_accept(). A reader whose socket is
 * gone may do both again: wake-ups then go to the new one. The reader. */
int net_done_listen(struct net_done *d, const char *dir, drover_err *err);
int net_done_accept(struct net_done *d, drover_err *err);

#endif
