/* loop: see loop.h.
 *
 * SPDX-License-Identifier: MIT */
#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "../base/process.h"
#include "turn.h"


/* The thread is joined by then, for it needs no reference of its own: the
 * process's is given back behind stop(). A loop of the parent's is never
 * freed in a child, because the process's reference stays in it. */
void net_loop_unref(struct net_loop *loop) {
  if (!loop || __atomic_sub_fetch(&loop->refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  if (loop->epoll >= 0)
    close(loop->epoll);
  if (loop->wake >= 0)
    close(loop->wake);
  net_bell_free(loop->bell);
  mem_free(loop);
}


static void poke(struct net_loop *loop) {
  uint64_t one = 1;
  while (write(loop->wake, &one, sizeof one) < 0 && errno == EINTR)
    ;
}


/* Once, by whoever comes first; not for a loop inherited over a fork, whose
 * thread is not here. */
static void stop(struct net_loop *loop) {
  if (loop->pid != process_pid()
      || __atomic_exchange_n(&loop->stopping, 1, __ATOMIC_ACQ_REL))
    return;
  poke(loop);
  pthread_join(loop->thread, NULL);
}


/* Registered behind curl_global_init(), so that it runs before OpenSSL's own
 * exit handler frees what the thread uses: 14 of 80 exits crashed without.
 * The record keeps the stopped loop: nobody starts a new one in an exit. */
static void stop_at_exit(void) {
  struct net_loop *loop = process_transport();
  if (loop)
    stop(loop);
}


/* The record is cleared behind the join, so that a new transport never runs
 * beside the old one. */
void net_loop_stop(void) {
  struct net_loop *loop = process_transport();
  if (!loop)
    return;
  stop(loop);
  process_transport_set(NULL);
  net_loop_unref(loop);
}


/* Signals stay the application's: its handlers must not run here. A thread
 * inherits its creator's mask, so there is no moment without it. Sets errno. */
static int start_thread(struct net_loop *loop) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int rc = pthread_create(&loop->thread, NULL, net_turn_run, loop);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (rc == 0)
    pthread_setname_np(loop->thread, "drover-net");
  else
    errno = rc;
  return rc == 0;
}


/* The thread is started before the claim, and stopped when another was first:
 * who finds a loop in the record finds it running. Without the flag THREADSAFE
 * curl_global_init() may not race with the application's own use of libcurl. */
static int start(struct net_loop **out, drover_err *err) {
  if (!(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_THREADSAFE))
    return drover_fail(err, DROVER_ERESOURCE, "this libcurl cannot be used by"
                       " threads; 7.84 or later is needed");
  if (curl_global_init(CURL_GLOBAL_DEFAULT) || atexit(stop_at_exit))
    return drover_fail(err, DROVER_ENOMEM, "libcurl does not start");
  struct net_loop *loop = mem_calloc(1, sizeof *loop);
  if (!loop)
    return drover_fail(err, DROVER_ENOMEM, "no memory for the transport");
  loop->refs = 1;
  loop->pid = process_pid();
  loop->curl_ns = INT64_MAX;
  loop->epoll = epoll_create1(EPOLL_CLOEXEC);
  loop->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  net_watch_init(&loop->watch, loop->epoll);
  if (loop->epoll < 0 || loop->wake < 0 || net_turn_init(loop)
      || !start_thread(loop)) {
    drover_fail(err, DROVER_ERESOURCE,
                "the transport does not start: %s", strerror(errno));
    curl_multi_cleanup(loop->multi);
    net_loop_unref(loop);
    return DROVER_ERESOURCE;
  }
  if (process_transport_claim(loop)) {
    *out = loop;
    return DROVER_OK;
  }
  stop(loop);                       /* another thread was first */
  net_loop_unref(loop);
  *out = process_transport();
  return DROVER_OK;
}


int net_loop_get(struct net_loop **out, drover_err *err) {
  struct net_loop *loop = process_transport();
  int rc = loop ? DROVER_OK : start(&loop, err);
  if (rc)
    return rc;
  __atomic_add_fetch(&loop->refs, 1, __ATOMIC_RELAXED);  /* the caller's own */
  *out = loop;
  return DROVER_OK;
}


/* The bit first, then the stack: a call is in the stack once, whoever sets the
 * first bit puts it there. The exchange in take_asks() is the partner. When
 * the stack is closed the bit stays set; nobody looks at it any more. */
int net_loop_ask(struct net_loop *loop, struct net_call *call,
                 enum net_ask what) {
  if (!loop || loop->pid != process_pid())
    return -1;
  if (__atomic_fetch_or(&call->asked, what, __ATOMIC_ACQ_REL))
    return 0;                       /* queued already: the thread will see it */
  call->sink->retain(call->user);
  int rc = net_stack_push(&loop->submits, &call->link);
  if (rc > 0)
    poke(loop);
  if (rc >= 0)
    return 0;
  call->sink->release(call->user);
  return -1;
}


/* Watched before it is in the loop, so that what is in the loop is watched;
 * nobody knows its number yet. Of two threads that come at once one's is kept,
 * and the other's leaves epoll as it is closed. */
int net_loop_bell(struct net_loop *loop, struct net_bell **out,
                  drover_err *err) {
  *out = net_loop_has_bell(loop);
  if (*out)
    return DROVER_OK;
  struct net_bell *bell, *none = NULL;
  int rc = net_bell_new(&bell, err);
  if (rc)
    return rc;
  struct epoll_event e = { .events = EPOLLIN, .data.fd = net_bell_fd(bell) };
  if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, e.data.fd, &e) != 0) {
    rc = drover_fail(err, DROVER_ERESOURCE, "no room to watch a queue's bell:"
                     " %s", strerror(errno));
    net_bell_free(bell);
    return rc;
  }
  *out = bell;
  if (!__atomic_compare_exchange_n(&loop->bell, &none, bell, 0,
                                   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    net_bell_free(bell);
    *out = none;
  }
  return DROVER_OK;
}


/* Acquire pairs with the release of the swap above. */
struct net_bell *net_loop_has_bell(struct net_loop *loop) {
  return loop ? __atomic_load_n(&loop->bell, __ATOMIC_ACQUIRE) : NULL;
}
