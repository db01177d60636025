/* watch: see watch.h.
 *
 * SPDX-License-Identifier: MIT */
#include "watch.h"

#include <string.h>
#include <sys/epoll.h>

#include "../base/mem.h"

struct net_watched {
  uint32_t wanted;                  /* by libcurl; 0: nothing */
  uint32_t held;                    /* what epoll has; 0: it is not in epoll */
  int ours;                         /* opened by us, so its close is told */
};


void net_watch_init(struct net_watch *w, int epoll) {
  *w = (struct net_watch){ .epoll = epoll };
}


void net_watch_deinit(struct net_watch *w) {
  mem_free(w->sockets);
  *w = (struct net_watch){ .epoll = -1 };
}


/* What is known of a descriptor; NULL where there is no memory for it. */
static struct net_watched *find(struct net_watch *w, int fd) {
  size_t n = (size_t)fd, room = w->room ? w->room : 64;
  if (n < w->room)
    return &w->sockets[n];
  while (room <= n)
    room *= 2;
  void *sockets = mem_realloc(w->sockets, room * sizeof *w->sockets);
  if (!sockets)
    return NULL;
  w->sockets = sockets;
  memset(w->sockets + w->room, 0, (room - w->room) * sizeof *w->sockets);
  w->room = room;
  return &w->sockets[n];
}


void net_watch_opened(struct net_watch *w, int fd) {
  struct net_watched *s = fd < 0 ? NULL : find(w, fd);
  if (s)
    *s = (struct net_watched){ .ours = 1 };
}


/* The system takes a closed descriptor out of epoll by itself. */
void net_watch_closing(struct net_watch *w, int fd) {
  if (fd >= 0 && (size_t)fd < w->room)
    w->sockets[fd] = (struct net_watched){ 0 };
}


/* An error means that it was not in: what was wanted. */
static int leave(struct net_watch *w, int fd) {
  epoll_ctl(w->epoll, EPOLL_CTL_DEL, fd, NULL);
  return 0;
}


/* A socket of ours that is wanted no more keeps its place in epoll: `held` is
 * what epoll was last told. Taking it up again for the same events then needs
 * no system call. Without memory for a row it can only be taken out. */
int net_watch_set(struct net_watch *w, int fd, uint32_t events) {
  struct epoll_event e = { .events = events, .data.fd = fd };
  struct net_watched *s = find(w, fd);
  if (!s)
    return events ? -1 : leave(w, fd);
  s->wanted = events;
  if (events == 0 && s->ours)
    return 0;
  uint32_t held = s->held;
  s->held = events;
  if (events == 0)
    return leave(w, fd);
  if (held == events)
    return 0;
  return epoll_ctl(w->epoll, held ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e);
}


/* Mostly a node that closed an idle connection. Epoll is level-triggered: left
 * in, it would wake the thread for ever, as libcurl looks only before it takes
 * the connection up again. */
int net_watch_wanted(struct net_watch *w, int fd) {
  struct net_watched *s = find(w, fd);
  if (!s || s->wanted)
    return 1;
  s->held = 0;
  return leave(w, fd);
}
