/* bell: see bell.h.
 *
 * SPDX-License-Identifier: MIT */
#include "bell.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "../base/rand.h"

enum { SLOTS = 16 };                /* at first; doubled as need be */

struct slot {                       /* one waiter */
  uint64_t token;                   /* 0: free */
  const struct net_ring *ring;
  void    *user;
  uint32_t next;                    /* free list: number of the next; 0: end */
};

struct net_bell {
  int fd;
  uint64_t id;
  pthread_mutex_t lock;             /* of what follows; held for a few stores */
  struct slot *slots;
  uint32_t count;                   /* of the slots */
  uint32_t free;                    /* number of a free one; 0: none */
};


/* "\0drover-" and 16 digits. Returns the address's size. */
static socklen_t name_of(struct sockaddr_un *at, uint64_t id) {
  *at = (struct sockaddr_un){ .sun_family = AF_UNIX };
  int n = snprintf(at->sun_path + 1, sizeof at->sun_path - 1, "drover-%016llx",
                   (unsigned long long)id);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}


int net_bell_new(struct net_bell **out, drover_err *err) {
  struct net_bell *b = mem_calloc(1, sizeof *b);
  if (!b)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a queue's bell");
  struct sockaddr_un at;
  int one = 1;
  b->id = rand_entropy();
  b->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  socklen_t size = name_of(&at, b->id);
  pthread_mutex_init(&b->lock, NULL);
  if (b->fd < 0 ||
      setsockopt(b->fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) != 0 ||
      bind(b->fd, (struct sockaddr *)&at, size) != 0) {
    int rc = drover_fail(err, DROVER_ERESOURCE, "no socket for a queue's bell:"
                         " %s", strerror(errno));
    net_bell_free(b);
    return rc;
  }
  *out = b;
  return DROVER_OK;
}


void net_bell_free(struct net_bell *b) {
  if (!b)
    return;
  if (b->fd >= 0)
    close(b->fd);
  pthread_mutex_destroy(&b->lock);
  mem_free(b->slots);
  mem_free(b);
}


uint64_t net_bell_id(const struct net_bell *b) {
  return b->id;
}


int net_bell_fd(const struct net_bell *b) {
  return b->fd;
}


/* ---- waiters ---- */

/* Twice as many slots; the new ones are free. Under the lock. */
static int grow(struct net_bell *b) {
  uint32_t count = b->count ? 2 * b->count : SLOTS;
  struct slot *slots = mem_realloc(b->slots, count * sizeof *slots);
  if (!slots)
    return -1;
  for (uint32_t i = b->count; i < count; i++)
    slots[i] = (struct slot){ .next = i + 1 < count ? i + 2 : 0 };
  b->free = b->count + 1;
  b->slots = slots;
  b->count = count;
  return 0;
}


/* A token is the slot's number with chance above it: one that is rung late
 * does not fit who has the slot by then. */
int net_bell_add(struct net_bell *b, const struct net_ring *ring, void *user,
                 uint64_t *token, drover_err *err) {
  uint64_t chance = rand_entropy() << 32;
  pthread_mutex_lock(&b->lock);
  if (!b->free && grow(b) != 0) {
    pthread_mutex_unlock(&b->lock);
    return drover_fail(err, DROVER_ENOMEM, "no memory for one more that waits");
  }
  uint32_t number = b->free;
  struct slot *s = &b->slots[number - 1];
  b->free = s->next;
  *token = chance | number;
  *s = (struct slot){ .token = *token, .ring = ring, .user = user };
  pthread_mutex_unlock(&b->lock);
  return DROVER_OK;
}


/* Under the lock. */
static struct slot *find(struct net_bell *b, uint64_t token) {
  uint32_t number = (uint32_t)token;
  if (number == 0 || number > b->count)
    return NULL;
  struct slot *s = &b->slots[number - 1];
  return s->token == token ? s : NULL;
}


void *net_bell_drop(struct net_bell *b, uint64_t token) {
  void *user = NULL;
  pthread_mutex_lock(&b->lock);
  struct slot *s = find(b, token);
  if (s) {
    user = s->user;
    *s = (struct slot){ .next = b->free };
    b->free = (uint32_t)token;
  }
  pthread_mutex_unlock(&b->lock);
  return user;
}


/* The user is retained under the lock, so it lives while it is rung. */
static void ring(struct net_bell *b, uint64_t token) {
  const struct net_ring *how = NULL;
  void *user = NULL;
  pthread_mutex_lock(&b->lock);
  struct slot *s = find(b, token);
  if (s) {
    how = s->ring;
    user = s->user;
    how->retain(user);
  }
  pthread_mutex_unlock(&b->lock);
  if (how) {
    how->ring(user);
    how->release(user);
  }
}


/* ---- datagrams ---- */

/* Root is heard too: a master that ticks for its workers. */
static int is_ours(struct msghdr *m) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
    struct ucred peer;
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
      continue;
    memcpy(&peer, CMSG_DATA(c), sizeof peer);
    return peer.uid == geteuid() || peer.uid == 0;
  }
  return 0;
}


void net_bell_take(struct net_bell *b) {
  uint64_t token;
  union {
    struct cmsghdr head;            /* aligns the bytes */
    char bytes[CMSG_SPACE(sizeof(struct ucred))];
  } control;
  for (;;) {
    struct iovec data = { &token, sizeof token };
    struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1,
                        .msg_control = control.bytes,
                        .msg_controllen = sizeof control.bytes };
    ssize_t n = recvmsg(b->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return;
    if (n == sizeof token && !(m.msg_flags & MSG_TRUNC) && is_ours(&m))
      ring(b, token);
  }
}


int net_bell_send(int *fd, uint64_t id, uint64_t token) {
  struct sockaddr_un at;
  socklen_t size = name_of(&at, id);
  if (*fd < 0)
    *fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return *fd >= 0 && sendto(*fd, &token, sizeof token,
                            MSG_DONTWAIT | MSG_NOSIGNAL,
                            (struct sockaddr *)&at, size) == sizeof token;
}
