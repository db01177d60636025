/* turn: see turn.h.
 *
 * SPDX-License-Identifier: MIT */
#include "turn.h"

#include <limits.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "../base/clock.h"
#include "easy.h"
#include "outcome.h"

enum {
  EVENTS = 64,                      /* sockets looked at in one turn; epoll
                                     * gives the others in the next */
  CONNECTIONS_KEPT = 256,           /* libcurl's default grows with the load:
                                     * 200 calls at once left 200 open */
  NS_PER_MS = 1000000,
  LEAVE_NS = 250 * NS_PER_MS        /* for what follows a stream's end mark */
};


/* ---- running calls ---- */

/* From begin() to end() a call is in this list, and owns a reference of its
 * sink's user. */
static void link_call(struct net_loop *loop, struct net_call *call) {
  call->prev = NULL;
  call->next = loop->running;
  if (call->next)
    call->next->prev = call;
  loop->running = call;
}


static void unlink_call(struct net_loop *loop, struct net_call *call) {
  if (call->prev)
    call->prev->next = call->next;
  else
    loop->running = call->next;
  if (call->next)
    call->next->prev = call->prev;
}


/* Only after a transfer that went well: a handle remembers an errno, and who
 * knows what else. */
static void put_easy(struct net_loop *loop, CURL *easy, int well) {
  net_easy_clear(easy);
  if (well && loop->pooled < NET_POOLED)
    loop->pool[loop->pooled++] = easy;
  else
    net_easy_free(easy);
}


/* The one way out of a running call; `ev` is its last event, or NULL when
 * nobody wants one. A transfer that still runs loses its connection.
 * The order counts: the last event asks libcurl how far it came, so it is
 * pushed while the handle lives; the handle goes before the headers and body
 * that it points to; the release is last, since it may free the call. */
static void end(struct net_loop *loop, struct net_call *call,
                const drover_event *ev) {
  CURL *easy = call->easy;
  unlink_call(loop, call);
  net_timers_drop(&loop->shared.timers, &call->timer);
  if (ev)
    net_call_push(call, ev);
  call->easy = NULL;
  if (easy) {
    curl_multi_remove_handle(loop->multi, easy);
    put_easy(loop, easy, ev && ev->type == DROVER_EVENT_END);
  }
  net_reply_deinit(&call->reply);
  net_request_deinit(&call->request);
  __atomic_store_n(&call->ended, 1, __ATOMIC_RELEASE);   /* with http's ask() */
  call->sink->release(call->user);
}


/* `text` holds the sentence until end() has pushed a copy of it. */
static void fail(struct net_loop *loop, struct net_call *call, int code,
                 const char *why) {
  drover_event ev;
  drover_err text;
  net_outcome_fail(call, code, why, &ev, &text);
  end(loop, call, &ev);
}


static void finish(struct net_loop *loop, struct net_call *call, CURLcode rc) {
  drover_event ev;
  drover_err text;
  net_outcome_done(call, rc, &ev, &text);
  end(loop, call, &ev);
}


/* In the list before anything can fail: fail() takes it out again. A failure
 * of any of these is one of memory; libcurl's options are known to be right. */
static void begin(struct net_loop *loop, struct net_call *call, int64_t now) {
  link_call(loop, call);
  call->shared = &loop->shared;
  call->easy = loop->pooled ? loop->pool[--loop->pooled]
                            : net_easy_new(&loop->watch);
  if (!call->easy || net_call_look(call, now)
      || net_easy_set(call->easy, call)
      || curl_multi_add_handle(loop->multi, call->easy) != CURLM_OK)
    fail(loop, call, DROVER_ENOMEM, "no memory in the transport");
}


/* Going on calls the write callback with what libcurl held back, inside of
 * curl_easy_pause(): the call may be paused again when that returns. No
 * resume is missed: the consumer lowers its count before it asks, so once an
 * ask is taken, take_bytes() reads the lower count. */
static void resume(struct net_loop *loop, struct net_call *call, int64_t now) {
  if (!call->paused)
    return;
  call->paused = 0;
  call->resumed_ns = now;
  CURLcode rc = curl_easy_pause(call->easy, CURLPAUSE_CONT);
  if (rc != CURLE_OK)
    finish(loop, call, rc);
  else
    net_call_look(call, now);
}


/* Nobody reads on: the total deadline comes forward to a moment from now. A
 * transfer that ends within it leaves its connection to the next call. */
static void leave(struct net_call *call, int64_t now) {
  int64_t total = now - call->start_ns + LEAVE_NS;
  if (call->request.total_ns <= 0 || call->request.total_ns > total)
    call->request.total_ns = total;
  net_call_look(call, now);
}


/* ---- one turn ---- */

/* The exchange pairs with the one in net_loop_ask(): bits that are set after
 * it queue the call again. */
static void take_asks(struct net_loop *loop, struct net_call *call,
                      int64_t now) {
  uint32_t asked = __atomic_exchange_n(&call->asked, 0, __ATOMIC_ACQ_REL);
  if (call->ended)
    return;
  if (asked & NET_ASK_BEGIN)
    begin(loop, call, now);
  if (!call->ended && (asked & NET_ASK_CANCEL))
    end(loop, call, NULL);
  if (!call->ended && (asked & NET_ASK_RESUME))
    resume(loop, call, now);
  if (!call->ended && (asked & NET_ASK_LEAVE))
    leave(call, now);
}


/* The queue's reference goes last: an end inside has given back the other. */
static void take_submits(struct net_loop *loop, struct net_link *l,
                         int64_t now) {
  while (l) {
    struct net_call *call = (struct net_call *)l;       /* its first member */
    l = l->next;
    take_asks(loop, call, now);
    call->sink->release(call->user);
  }
}


/* Also after each submit: a transfer can end inside any call of libcurl's. */
static void reap(struct net_loop *loop) {
  CURLMsg *m;
  int left;
  while ((m = curl_multi_info_read(loop->multi, &left))) {
    if (m->msg != CURLMSG_DONE)
      continue;
    CURLcode rc = m->data.result;
    struct net_call *call = net_easy_call(m->easy_handle);
    if (call)
      finish(loop, call, rc);
  }
}


/* Timers are set early rather than late (a deadline may have moved since), so
 * the call is asked what is due. net_call_due() gives a time past `now` when
 * nothing is, so the loop ends. */
static void expire(struct net_loop *loop, int64_t now) {
  struct net_timer *t;
  while ((t = net_timers_first(&loop->shared.timers)) && t->at_ns <= now) {
    struct net_call *call = (struct net_call *)(void *)
      ((char *)t - offsetof(struct net_call, timer));
    int64_t next = INT64_MAX;
    drover_event ev;
    drover_err text;
    enum net_limit limit = net_call_due(call, now, &next);
    if (limit == NET_LIMIT_NONE) {
      net_timers_set(&loop->shared.timers, t, next);
      continue;
    }
    net_outcome_late(call, limit, &ev, &text);
    end(loop, call, &ev);
  }
}


/* Results come through reap(); how many run is of no interest, and the return
 * is an error only for a wrong argument or a callback of ours that failed. */
static void run_curl(struct net_loop *loop, curl_socket_t fd, int what) {
  int running;
  curl_multi_socket_action(loop->multi, fd, what, &running);
}


/* libcurl's timer is taken down before its turn: it announces a new one. */
static void run_curl_timer(struct net_loop *loop, int64_t now) {
  if (loop->curl_ns > now)
    return;
  loop->curl_ns = INT64_MAX;
  run_curl(loop, CURL_SOCKET_TIMEOUT, 0);
}


static int wait_ms(const struct net_loop *loop) {
  const struct net_timer *t = net_timers_first(&loop->shared.timers);
  int64_t at = t && t->at_ns < loop->curl_ns ? t->at_ns : loop->curl_ns;
  if (at == INT64_MAX)
    return -1;
  int64_t now = clock_now_ns();
  if (at <= now)
    return 0;
  int64_t ms = (at - now - 1) / NS_PER_MS + 1;  /* up: else a turn in vain */
  return ms > INT_MAX ? INT_MAX : (int)ms;
}


/* Waiters whose turn has come: rung at once. Acquire pairs with the release
 * in net_loop_bell(). */
static int is_bell(struct net_loop *loop, int fd) {
  struct net_bell *bell = __atomic_load_n(&loop->bell, __ATOMIC_ACQUIRE);
  if (!bell || fd != net_bell_fd(bell))
    return 0;
  net_bell_take(bell);
  return 1;
}


/* Sockets before submits, so that connections which became free serve the new
 * calls; deadlines behind both, so that a reply which has come in time counts;
 * the wake-ups last, one for all that this turn has pushed. */
static void turn(struct net_loop *loop) {
  struct epoll_event events[EVENTS];
  uint64_t count;
  int n = epoll_wait(loop->epoll, events, EVENTS, wait_ms(loop));
  for (int i = 0; i < n; i++) {
    uint32_t e = events[i].events;
    if (events[i].data.fd == loop->wake) {
      (void)!read(loop->wake, &count, sizeof count);
      continue;
    }
    if (is_bell(loop, events[i].data.fd))
      continue;
    if (!net_watch_wanted(&loop->watch, events[i].data.fd))
      continue;
    run_curl(loop, events[i].data.fd,
             (e & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0)
             | (e & EPOLLOUT ? CURL_CSELECT_OUT : 0)
             | (e & EPOLLERR ? CURL_CSELECT_ERR : 0));
  }
  int64_t now = clock_now_ns();
  run_curl_timer(loop, now);
  reap(loop);
  take_submits(loop, net_stack_take(&loop->submits), now);
  run_curl_timer(loop, now);        /* a transfer just added wants it at once */
  reap(loop);
  expire(loop, clock_now_ns());
  net_wakes_flush(&loop->shared.wakes);
}


/* The acquire pairs with the exchange in stop() of loop.c. At the stop the
 * stack is closed first: a call that is in it begins, then fails with the
 * others, so each still has its one end; what comes later is refused in
 * net_loop_ask(). */
void *net_turn_run(void *user) {
  struct net_loop *loop = user;
  while (!__atomic_load_n(&loop->stopping, __ATOMIC_ACQUIRE))
    turn(loop);
  take_submits(loop, net_stack_close(&loop->submits), clock_now_ns());
  while (loop->running)
    fail(loop, loop->running, DROVER_ECLOSED, "the transport was stopped");
  net_wakes_flush(&loop->shared.wakes);
  while (loop->pooled)
    net_easy_free(loop->pool[--loop->pooled]);
  curl_multi_cleanup(loop->multi);
  net_watch_deinit(&loop->watch);
  net_timers_deinit(&loop->shared.timers);
  return NULL;
}


/* ---- libcurl's two callbacks of the multi handle ---- */

/* A failure here (epoll has no room) makes libcurl, from 7.81 on, fail all
 * transfers of the multi handle; it works again when they are gone. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *user,
                        void *known) {
  struct net_loop *loop = user;
  (void)easy;
  (void)known;
  if (what == CURL_POLL_REMOVE)
    what = 0;
  return net_watch_set(&loop->watch, fd,
                       (what & CURL_POLL_IN ? EPOLLIN : 0u)
                       | (what & CURL_POLL_OUT ? EPOLLOUT : 0u));
}


static int set_curl_timer(CURLM *multi, long ms, void *user) {
  struct net_loop *loop = user;
  (void)multi;
  loop->curl_ns = ms < 0 ? INT64_MAX
                         : clock_now_ns() + (int64_t)ms * NS_PER_MS;
  if (ms == 0)
    loop->curl_ns = 0;              /* due in whichever turn asks first */
  return 0;
}


/* No CURLMOPT_MAX_TOTAL_CONNECTIONS or _MAX_HOST_: libcurl would queue the
 * calls beyond it, unseen by the limits that the router keeps. */
int net_turn_init(struct net_loop *loop) {
  struct epoll_event e = { .events = EPOLLIN, .data.fd = loop->wake };
  loop->multi = curl_multi_init();
  int well = loop->multi
    && epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake, &e) == 0
    && !curl_multi_setopt(loop->multi, CURLMOPT_SOCKETFUNCTION, watch_socket)
    && !curl_multi_setopt(loop->multi, CURLMOPT_SOCKETDATA, loop)
    && !curl_multi_setopt(loop->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer)
    && !curl_multi_setopt(loop->multi, CURLMOPT_TIMERDATA, loop)
    && !curl_multi_setopt(loop->multi, CURLMOPT_MAXCONNECTS,
                          (long)CONNECTIONS_KEPT);
  return well ? 0 : -1;
}
