/* port: see port.h; and the HTTP calls, which it ties to the room net.
 *
 * Unread bytes: each event counts with its own size and its name until the
 * consumer has taken it; the data of SSE and TEXT events, which consumers
 * queue, counts on until drover_call_consumed().
 *
 * SPDX-License-Identifier: MIT */
#include "port.h"

#include <errno.h>
#include <linux/close_range.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/process.h"
#include "net/done.h"
#include "net/header.h"
#include "net/http.h"
#include "net/loop.h"
#include "net/url.h"

enum { LAST_TEXT = 256 };           /* bytes; a drover_err's text fits */

struct item {                       /* one event on its way */
  struct net_link link;             /* first: the queue knows only links */
  drover_call *call;                /* a reference */
  size_t counted;                   /* unread bytes that end when it is taken */
  drover_event ev;                  /* its spans lie behind, in `bytes` */
  char bytes[];
};

struct drover_call {
  int32_t refs;                     /* atomic; consumer, producer, items */
  int32_t closed;                   /* atomic; the consumer sets it */
  int32_t ended;                    /* atomic; END or FAIL has been pushed */
  uint32_t number;                  /* the caller's name for it; not 0 */
  size_t  unread;                   /* atomic; bytes; see above */
  struct net_done *done;            /* a reference */
  const struct call_ops *ops;
  void   *impl;                     /* the producer's; ops->free ends it */
  drover_port *port;                /* the consumer's, until it closes us */
  drover_call *prev, *next;         /* of the port's calls; the consumer's */
  struct item *last;                /* for END or FAIL, which need no memory */
};

struct drover_port {
  struct net_done *done;            /* a reference */
  struct item *ready;               /* taken, not yet given */
  struct item *given;               /* what the last event's spans lie in */
  drover_call *calls;               /* open ones, the newest first */
  int pid;                          /* whose it is */
};


/* ---- calls of any kind ---- */

void port_call_ref(drover_call *c) {
  __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
}


void port_call_unref(drover_call *c) {
  if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  c->ops->free(c->impl);
  net_done_unref(c->done);
  mem_free(c->last);
  mem_free(c);
}


/* The last event's memory comes first: then a call that began can always say
 * how it ended. */
int port_call_new(drover_call **out, drover_port *p, uint32_t number,
                  const struct call_ops *ops, void *impl, drover_err *err) {
  if (number == 0 || p->pid != process_pid())
    return drover_fail(err, DROVER_EINVAL, number == 0
                       ? "a call's number must not be 0"
                       : "the port was opened by another process");
  drover_call *c = mem_calloc(1, sizeof *c);
  struct item *last = mem_calloc(1, sizeof *last + LAST_TEXT);
  if (!c || !last) {
    mem_free(c);
    mem_free(last);
    return drover_fail(err, DROVER_ENOMEM, "no memory for a call");
  }
  *c = (drover_call){ .refs = 2, .number = number, .done = p->done,
                      .ops = ops, .impl = impl, .port = p, .next = p->calls,
                      .last = last };
  net_done_ref(c->done);
  if (p->calls)
    p->calls->prev = c;
  p->calls = c;
  *out = c;
  return DROVER_OK;
}


/* Once a call: close, leave and abandon each end the consumer's handle. */
static void leave_port(drover_call *c) {
  if (c->prev)
    c->prev->next = c->next;
  else
    c->port->calls = c->next;
  if (c->next)
    c->next->prev = c->prev;
}


void port_call_abandon(drover_call *c) {
  leave_port(c);
  port_call_unref(c);
  port_call_unref(c);
}


/* Nothing follows from seeing it early or late but work that is wasted: what
 * decides is drover_port_next(), on the thread that closes. */
int port_call_closed(const drover_call *c) {
  return __atomic_load_n(&c->closed, __ATOMIC_RELAXED);
}


/* Relaxed: a count read late is corrected by the resume that follows it, see
 * resume() in net/turn.c. */
int port_call_full(const drover_call *c) {
  return __atomic_load_n(&c->unread, __ATOMIC_RELAXED) >= PORT_UNREAD_MAX;
}


/* The last item is the call's own memory, and goes with it. */
static void free_item(struct item *it) {
  drover_call *c = it->call;
  if (it != c->last)
    mem_free(it);
  port_call_unref(c);
}


static int is_last(const drover_event *ev) {
  return ev->type == DROVER_EVENT_END || ev->type == DROVER_EVENT_FAIL;
}


static int is_queued_by_consumers(const drover_event *ev) {
  return ev->type == DROVER_EVENT_SSE || ev->type == DROVER_EVENT_TEXT;
}


/* Memory for an event, or the call's own for the last one, once: the exchange
 * decides between two ends. An end gets through to a closed call too, for
 * drover_port_next() to drop. */
static int take_item(drover_call *c, const drover_event *ev,
                     struct item **out) {
  if (is_last(ev)) {
    *out = c->last;
    return __atomic_exchange_n(&c->ended, 1, __ATOMIC_ACQ_REL)
           ? DROVER_ECLOSED : DROVER_OK;
  }
  if (port_call_closed(c))
    return DROVER_ECLOSED;
  if (ev->data_size > SIZE_MAX / 4 || ev->name_size > SIZE_MAX / 4
      || ev->logprobs_size > SIZE_MAX / 4)
    return DROVER_ENOMEM;
  *out = mem_alloc(sizeof **out + ev->data_size + ev->name_size
                   + ev->logprobs_size);
  return *out ? DROVER_OK : DROVER_ENOMEM;
}


/* The spans are set to the copies behind the item: data, name, logprobs. */
static void fill_item(struct item *it, drover_call *c,
                      const drover_event *ev) {
  it->call = c;
  it->ev = *ev;
  it->ev.call = c->number;
  if (ev->at == 0)
    it->ev.at = clock_seconds(clock_now_ns());
  if (is_last(ev)) {
    it->ev.name_size = it->ev.logprobs_size = 0;
    if (ev->data_size >= LAST_TEXT)
      it->ev.data_size = LAST_TEXT - 1;
  }
  it->ev.data = it->bytes;
  it->ev.name = it->bytes + it->ev.data_size;
  if (it->ev.data_size)
    memcpy(it->bytes, ev->data, it->ev.data_size);
  if (it->ev.name_size)
    memcpy(it->bytes + it->ev.data_size, ev->name, it->ev.name_size);
  it->ev.logprobs = it->ev.name + it->ev.name_size;
  if (it->ev.logprobs_size)
    memcpy(it->bytes + it->ev.data_size + it->ev.name_size, ev->logprobs,
           it->ev.logprobs_size);
}


/* Counted and referenced before it is in the stack: from the push on the
 * consumer may take and free it, so `it` is not looked at again. */
int port_push(drover_call *c, const drover_event *ev, int wake_now) {
  struct item *it;
  int rc = take_item(c, ev, &it);
  if (rc)
    return rc;
  fill_item(it, c, ev);
  size_t size = sizeof *it + it->ev.name_size + it->ev.data_size
    + it->ev.logprobs_size;
  it->counted = size - (is_queued_by_consumers(ev) ? ev->data_size : 0);
  __atomic_add_fetch(&c->unread, size, __ATOMIC_RELAXED);
  port_call_ref(c);
  rc = net_stack_push(&c->done->stack, &it->link);
  if (rc < 0) {
    free_item(it);                  /* the port is closed, and so is the call */
    return DROVER_ECLOSED;
  }
  if (rc > 0 && wake_now) {
    port_wake(c);
    rc = 0;
  }
  return rc;
}


void port_wake(drover_call *c) {
  net_done_wake(c->done);
}


/* ---- the port ---- */

int drover_port_open(drover_port **out, drover_err *err) {
  drover_port *p = mem_calloc(1, sizeof *p);
  if (!p)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a port");
  int rc = net_done_new(&p->done, err);
  if (rc) {
    mem_free(p);
    return rc;
  }
  p->pid = process_pid();
  *out = p;
  return DROVER_OK;
}


static void free_items(struct item *it) {
  while (it) {
    struct item *next = (struct item *)it->link.next;
    free_item(it);
    it = next;
  }
}


/* Calls first, so that nothing new is asked for; then what is queued; the
 * stack's close refuses the pushes that still come from producers, who hold
 * `done` through their calls. */
void drover_port_close(drover_port *p) {
  if (!p)
    return;
  while (p->calls)
    drover_call_close(p->calls);
  if (p->given)
    free_item(p->given);
  free_items(p->ready);
  free_items((struct item *)net_stack_close(&p->done->stack));
  if (p->pid != process_pid())
    p->done->path[0] = '\0';        /* the parent's to unlink */
  net_done_unref(p->done);
  mem_free(p);
}


int drover_port_fd(drover_port *p) {
  return p->done->fd;
}


int drover_port_listen(drover_port *p, const char *dir, char *path, size_t cap,
                       drover_err *err) {
  int rc = net_done_listen(p->done, dir, err);
  if (rc)
    return rc;
  size_t size = strlen(p->done->path) + 1;
  if (size > cap)
    return drover_fail(err, DROVER_EINVAL, "no room for the socket's path");
  memcpy(path, p->done->path, size);
  return DROVER_OK;
}


int drover_port_accept(drover_port *p, drover_err *err) {
  return net_done_accept(p->done, err);
}


void drover_port_poke(drover_port *p) {
  net_done_wake(p->done);
}


/* Take `bytes` off what is unread; at the half a paused call goes on, not at
 * the first byte below: each pause and resume costs two turns. More than there
 * is counts as all. */
static void give_back(drover_call *c, size_t bytes) {
  size_t old = __atomic_load_n(&c->unread, __ATOMIC_RELAXED), left;
  do
    left = old > bytes ? old - bytes : 0;
  while (!__atomic_compare_exchange_n(&c->unread, &old, left, 1,
                                      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
  if (old > PORT_UNREAD_MAX / 2 && left <= PORT_UNREAD_MAX / 2
      && c->ops->resume && !__atomic_load_n(&c->ended, __ATOMIC_RELAXED))
    c->ops->resume(c->impl);
}


/* One take for a whole burst: the stack is emptied, `ready` is served first. */
static struct item *next_item(drover_port *p) {
  if (!p->ready)
    p->ready = (struct item *)net_done_take(p->done);
  struct item *it = p->ready;
  if (it)
    p->ready = (struct item *)it->link.next;
  return it;
}


/* The event given last is freed here, which is why its spans hold till now.
 * What is left of a closed call is dropped without being seen. */
int drover_port_next(drover_port *p, drover_event *ev) {
  struct item *it;
  if (p->given)
    free_item(p->given);
  p->given = NULL;
  while ((it = next_item(p))) {
    if (!port_call_closed(it->call)) {
      give_back(it->call, it->counted);
      p->given = it;
      *ev = it->ev;
      return 1;
    }
    free_item(it);
  }
  return 0;
}


int drover_port_wait(drover_port *p, double seconds) {
  return p->ready
         || net_done_wait(p->done, seconds < 0 ? -1 : clock_ns(seconds));
}


/* ---- calls over HTTP: the types of port.h to those of net/ ---- */

static int push(void *user, const drover_event *ev) {
  return port_push(user, ev, 0);
}


static int full(const void *user) {
  return port_call_full(user);
}


static void retain(void *user) {
  port_call_ref(user);
}


static void release(void *user) {
  port_call_unref(user);
}


static void http_cancel(void *impl) {
  net_http_cancel(impl);
}


static void http_leave(void *impl) {
  net_http_leave(impl);
}


static void http_commit(void *impl) {
  net_http_commit(impl);
}


static void http_resume(void *impl) {
  net_http_resume(impl);
}


static void http_free(void *impl) {
  net_http_free(impl);
}


static const struct net_sink sink = { push, full, retain, release };
static const struct call_ops http_ops = {
  .cancel = http_cancel, .leave = http_leave, .commit = http_commit,
  .resume = http_resume, .free = http_free,
};


/* Each step owns what the one before has made: after port_call_new() the
 * request is freed with the call. */
int drover_call_http(drover_call **out, drover_port *p,
                     const drover_call_config *c, drover_err *err) {
  struct net_call *http;
  drover_call *call;
  int rc = net_http_new(&http, c, err);
  if (rc)
    return rc;
  rc = port_call_new(&call, p, c->call, &http_ops, http, err);
  if (rc) {
    net_http_free(http);
    return rc;
  }
  rc = net_http_start(http, &sink, call, call->done, err);
  if (rc) {
    port_call_abandon(call);
    return rc;
  }
  *out = call;
  return DROVER_OK;
}


void drover_call_commit(drover_call *c) {
  if (c->ops->commit)
    c->ops->commit(c->impl);
}


void drover_call_consumed(drover_call *c, size_t bytes) {
  give_back(c, bytes);
}


/* Out of the port's list first, for a close of the port goes through it; the
 * mark before the ask, so that the producer's next push is refused. */
static void close_call(drover_call *c, void (*how)(void *impl)) {
  leave_port(c);
  __atomic_store_n(&c->closed, 1, __ATOMIC_RELAXED);
  how(c->impl);
  port_call_unref(c);
}


void drover_call_close(drover_call *c) {
  if (c)
    close_call(c, c->ops->cancel);
}


void drover_call_leave(drover_call *c) {
  if (c)
    close_call(c, c->ops->leave ? c->ops->leave : c->ops->cancel);
}


/* ---- checks, and the way out of the process ---- */

int drover_url_check(const char *url, size_t size, drover_url *out,
                     drover_err *err) {
  return net_url_node(url, size, out, err);
}


int drover_header_check(const char *name, size_t name_size, const char *value,
                        size_t value_size, drover_err *err) {
  return net_header_check_caller(name, name_size, value, value_size, err);
}


/* The transport is joined first: its connections are closed as TLS wants it,
 * not cut. Descriptors close by the exec itself, so they still work in this
 * process when it fails. */
int drover_exec(char *const argv[], drover_err *err) {
  if (!argv || !argv[0])
    return drover_fail(err, DROVER_EINVAL, "no program to run");
  net_loop_stop();
  close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
  execvp(argv[0], argv);
  return drover_fail(err, errno == ENOENT ? DROVER_ENOTFOUND : DROVER_ERESOURCE,
                     "%s: %s", argv[0], strerror(errno));
}
