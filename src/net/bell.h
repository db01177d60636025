/* bell: how another process tells a waiter of this one that its turn has come.
 * A process has one abstract datagram socket, named by a random number that
 * its entries in the zone carry; a datagram is the waiter's token.
 *
 *   net_bell_send --datagram--> socket --net_bell_take--> ring(user)
 *      any process               the transport thread's epoll
 *
 * A datagram may be lost or come late: who sends it repeats it, who gets it
 * asks the queue. It knows no queue and no port. Only processes of the same
 * user are heard.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_BELL_H
#define DROVER_NET_BELL_H

#include <stdint.h>

#include "../drover.h"

struct net_bell;

struct net_ring {                   /* whom a bell rings */
  void (*retain)(void *user);       /* any thread; under the bell's lock */
  void (*ring)(void *user);         /* the transport's */
  void (*release)(void *user);      /* any thread */
};


/* Bind the socket. DROVER_ENOMEM or DROVER_ERESOURCE. */
int net_bell_new(struct net_bell **out, drover_err *err);
void net_bell_free(struct net_bell *b);         /* takes NULL */


/* Its number, and the descriptor to watch. Any thread. */
uint64_t net_bell_id(const struct net_bell *b);
int net_bell_fd(const struct net_bell *b);


/* A waiter: from here on `user` is rung for *token, until it is dropped.
 * DROVER_ENOMEM. Any thread. */
int net_bell_add(struct net_bell *b, const struct net_ring *ring, void *user,
                 uint64_t *token, drover_err *err);


/* No ring begins for that token any more. The user that it was, or NULL. Any
 * thread. */
void *net_bell_drop(struct net_bell *b, uint64_t token);


/* Read what has come, and ring. The transport thread. */
void net_bell_take(struct net_bell *b);


/* Ring `token` at the bell `id`, over the socket *fd, which is made when it is
 * -1. 1 when it was sent: no word on whether anybody heard. Never waits. */
int net_bell_send(int *fd, uint64_t id, uint64_t token);

#endif
