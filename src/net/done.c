/* done: see done.h.
 *
 * SPDX-License-Identifier: MIT */
#include "done.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "../base/rand.h"

/* The worker connects before it asks for the accept, so that one try does;
 * the others are for strangers who came first. Together under a second, which
 * an nginx worker is stalled once, at its start. */
enum { ACCEPT_TRIES = 8, ACCEPT_WAIT_MS = 100 };

/* The head of a closed stack. Its address is the mark; it is never written. */
static const struct net_link closed_mark;
#define CLOSED ((struct net_link *)(uintptr_t)&closed_mark)


/* The release pairs with the acquire of the exchanges in net_stack_take()
 * and net_stack_close(): who takes the link sees what was written to it. */
int net_stack_push(struct net_stack *s, struct net_link *link) {
  struct net_link *head = __atomic_load_n(&s->head, __ATOMIC_RELAXED);
  do {
    if (head == CLOSED)
      return -1;
    link->next = head;
  } while (!__atomic_compare_exchange_n(&s->head, &head, link, 1,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  return head == NULL;
}


/* The stack has the newest first, its reader wants the order of pushes. */
static struct net_link *reversed(struct net_link *l) {
  struct net_link *out = NULL;
  while (l) {
    struct net_link *next = l->next;
    l->next = out;
    out = l;
    l = next;
  }
  return out;
}


/* Only the reader closes and takes, so a stack that is not closed here is
 * not closed before the exchange. */
struct net_link *net_stack_take(struct net_stack *s) {
  struct net_link *head = __atomic_load_n(&s->head, __ATOMIC_RELAXED);
  if (!head || head == CLOSED)
    return NULL;
  return reversed(__atomic_exchange_n(&s->head, NULL, __ATOMIC_ACQ_REL));
}


/* A push that raced lost its exchange, sees the mark, and says -1. */
struct net_link *net_stack_close(struct net_stack *s) {
  struct net_link *head = __atomic_exchange_n(&s->head, CLOSED,
                                              __ATOMIC_ACQ_REL);
  return head == CLOSED ? NULL : reversed(head);
}


int net_done_new(struct net_done **out, drover_err *err) {
  struct net_done *d = mem_calloc(1, sizeof *d);
  if (!d)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a port");
  d->refs = 1;
  d->sock = d->listener = -1;
  d->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (d->fd < 0) {
    mem_free(d);
    return drover_fail(err, DROVER_ERESOURCE, "no descriptor for a port: %s",
                       strerror(errno));
  }
  *out = d;
  return DROVER_OK;
}


/* Relaxed: who adds a reference holds one already. */
void net_done_ref(struct net_done *d) {
  __atomic_add_fetch(&d->refs, 1, __ATOMIC_RELAXED);
}


/* The path goes too: a socket's file outlives its descriptor. */
static void close_listener(struct net_done *d) {
  if (d->listener >= 0)
    close(d->listener);
  d->listener = -1;
  if (d->path[0])
    unlink(d->path);
  d->path[0] = '\0';
}


/* Acquire and release: who frees sees what the others did under theirs. The
 * last may be the transport's: the descriptors then close on its thread. */
void net_done_unref(struct net_done *d) {
  if (!d || __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  close_listener(d);
  if (d->sock >= 0)
    close(d->sock);
  close(d->fd);
  mem_free(d);
}


/* A write that would block finds a wake-up pending already. The flag is
 * raised on both sides of the write. Before it, for the reader whom the write
 * itself puts in our place on this core: it would find the flag down, read
 * nothing, and its poll would spin until we run again. Behind it, for one
 * that took the flag before there was anything to read: it would never read
 * what is written, and spin until the next wake-up. */
void net_done_wake(struct net_done *d) {
  int sock = __atomic_load_n(&d->sock, __ATOMIC_ACQUIRE);
  uint64_t one = 1;
  ssize_t n;
  if (sock >= 0) {
    do
      n = send(sock, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
  } else {
    __atomic_store_n(&d->signalled, 1, __ATOMIC_SEQ_CST);
    do
      n = write(d->fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    __atomic_store_n(&d->signalled, 1, __ATOMIC_SEQ_CST);
  }
}


/* `owed` needs no atomic: a process has one transport thread, and a queue's
 * other producers (the engine) wake at once. */
void net_wakes_owe(struct net_wakes *w, struct net_done *done) {
  if (done->owed)
    return;
  done->owed = 1;
  net_done_ref(done);
  done->owed_next = w->first;
  w->first = done;
}


void net_wakes_flush(struct net_wakes *w) {
  while (w->first) {
    struct net_done *done = w->first;
    w->first = done->owed_next;
    done->owed = 0;
    net_done_wake(done);
    net_done_unref(done);
  }
}


/* The wake-up is taken back first: what is pushed after the take finds an
 * empty stack and wakes anew. The flag spares a read where nobody woke; the
 * plain load before the exchange keeps the line shared while it is down. */
struct net_link *net_done_take(struct net_done *d) {
  uint64_t count;
  if (__atomic_load_n(&d->signalled, __ATOMIC_RELAXED)
      && __atomic_exchange_n(&d->signalled, 0, __ATOMIC_SEQ_CST))
    (void)!read(d->fd, &count, sizeof count);
  return net_stack_take(&d->stack);
}


/* Looks at the stack first: a push that found it not empty wrote no wake-up.
 * A signal does not shorten the wait. */
int net_done_wait(struct net_done *d, int64_t ns) {
  if (__atomic_load_n(&d->stack.head, __ATOMIC_ACQUIRE))
    return 1;
  struct pollfd p = { .fd = d->fd, .events = POLLIN };
  int64_t until = ns < 0 || ns > INT64_MAX / 2 ? -1 : clock_now_ns() + ns;
  for (;;) {
    int64_t left = until < 0 ? -1 : until - clock_now_ns();
    if (until >= 0 && left < 0)
      left = 0;
    struct timespec t = { left / 1000000000, left % 1000000000 };
    int n = ppoll(&p, 1, until < 0 ? NULL : &t, NULL);
    if (n >= 0 || errno != EINTR)
      return n > 0;
  }
}


/* The mode is set before anybody can connect: a connect is refused until
 * listen(). The number in the name keeps it apart from one that an earlier
 * process of this pid has left, or that another container's has. */
int net_done_listen(struct net_done *d, const char *dir, drover_err *err) {
  struct sockaddr_un at = { .sun_family = AF_UNIX };
  close_listener(d);                /* one that nobody came to */
  int n = snprintf(at.sun_path, sizeof at.sun_path, "%s/drover-%d-%08x.sock",
                   dir, (int)getpid(), (unsigned)rand_entropy());
  if (n < 0 || (size_t)n >= sizeof at.sun_path)
    return drover_fail(err, DROVER_EINVAL, "the socket's path is too long");
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return drover_fail(err, DROVER_ERESOURCE, "no socket for the wake-up: %s",
                       strerror(errno));
  if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0) {
    int rc = drover_fail(err, DROVER_ERESOURCE,
                         "cannot make a socket in %s: %s", dir,
                         strerror(errno));
    close(fd);
    return rc;
  }
  d->listener = fd;
  memcpy(d->path, at.sun_path, sizeof d->path);
  if (chmod(d->path, 0600) != 0 || listen(fd, ACCEPT_TRIES) != 0) {
    int rc = drover_fail(err, DROVER_ERESOURCE, "cannot listen in %s: %s",
                         dir, strerror(errno));
    close_listener(d);
    return rc;
  }
  return DROVER_OK;
}


/* Only this very process may hold the other end. */
static int is_ours(int fd) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0
         && peer.pid == getpid();
}


/* From here on wake-ups go to `fd`. The descriptor of an earlier socket, whose
 * reader is gone, stays and gets the new socket in one step: another thread
 * may be in the middle of a send on it, and must not hit a stranger's. */
static int use_socket(struct net_done *d, int fd, drover_err *err) {
  /* Pairs with the acquire in net_done_wake(). */
  if (d->sock < 0) {
    __atomic_store_n(&d->sock, fd, __ATOMIC_RELEASE);
    return DROVER_OK;
  }
  int took = dup3(fd, d->sock, O_CLOEXEC);
  close(fd);
  return took >= 0 ? DROVER_OK
       : drover_fail(err, DROVER_ERESOURCE, "cannot take another wake-up "
                     "socket: %s", strerror(errno));
}


/* The listener goes after the first right peer: one worker, one socket. */
int net_done_accept(struct net_done *d, drover_err *err) {
  struct pollfd p = { .fd = d->listener, .events = POLLIN };
  if (d->listener < 0)
    return drover_fail(err, DROVER_EINVAL, "the port does not listen");
  for (int tries = 0; tries < ACCEPT_TRIES; tries++) {
    if (poll(&p, 1, ACCEPT_WAIT_MS) <= 0)
      continue;
    int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
      continue;
    if (!is_ours(fd)) {
      close(fd);
      continue;
    }
    close_listener(d);
    int rc = use_socket(d, fd, err);
    /* What was pushed before woke the eventfd, or a socket that is gone,
     * which nobody watches: wake the new one as well. */
    if (!rc)
      net_done_wake(d);
    return rc;
  }
  return drover_fail(err, DROVER_ERESOURCE, "nobody connected to the wake-up");
}
