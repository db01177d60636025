/* watch: which of libcurl's sockets our epoll looks at, and for what.
 *
 * libcurl lets go of a connection after each reply and takes it up again for
 * the next request. A socket that we opened stays in epoll meanwhile, so that
 * this costs no system call; it is taken out when something comes that nobody
 * waits for. Sockets that we did not open (a resolver's) leave at once, since
 * nobody tells us of their close.
 *
 * One thread: the transport's.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NET_WATCH_H
#define DROVER_NET_WATCH_H

#include <stddef.h>
#include <stdint.h>

struct net_watched;

struct net_watch {
  int epoll;                        /* the owner's */
  struct net_watched *sockets;      /* by descriptor */
  size_t room;                      /* rows allocated; grows by doubling */
};


void net_watch_init(struct net_watch *w, int epoll);
void net_watch_deinit(struct net_watch *w);


/* A socket of ours is new, or about to be closed: what was known of its
 * number is forgotten. */
void net_watch_opened(struct net_watch *w, int fd);
void net_watch_closing(struct net_watch *w, int fd);


/* Look at `fd` for these of EPOLLIN and EPOLLOUT; 0: no more. 0, or -1. */
int net_watch_set(struct net_watch *w, int fd, uint32_t events);


/* Something came for `fd`. 1 when it is waited for; else it is taken out. */
int net_watch_wanted(struct net_watch *w, int fd);

#endif
