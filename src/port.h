/* port: the completion port, and the call that HTTP and the local engine
 * share. Private to the hall.
 *
 *   producer thread --port_push--> lock-free stack --drover_port_next--> Lua
 *
 * A call has one consumer (the thread of its port) and one producer (the
 * transport's thread, or an engine's). Each holds a reference, and so does
 * each event on its way. What a producer may rely on: its `impl` lives until
 * ops->free, which comes when the last reference is gone.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_PORT_H
#define DROVER_PORT_H

#include "drover.h"

/* Bytes a call may have unread; port_call_full(). About a thousand chunks
 * of a usual stream: a consumer that is merely slow is not paused at each. */
enum { PORT_UNREAD_MAX = 256 * 1024 };

/* What the consumer asks of a producer. Each but `free` comes from the
 * consumer's thread, at any time until `free`, also after the end (then it
 * is to do nothing); none may block. */
struct call_ops {
  void (*cancel)(void *impl);       /* closed: stop, push no more; comes once */
  void (*leave)(void *impl);        /* in its place: end soon; or NULL */
  void (*commit)(void *impl);       /* the first content was seen; or NULL */
  void (*resume)(void *impl);       /* unread fell to half; or NULL */
  void (*free)(void *impl);         /* any thread; the last thing */
};


/* Make a call on the port. It is born with two references: the consumer's,
 * which drover_call_close() gives back, and the producer's, which the
 * producer gives back by port_call_unref() when it is done with the call
 * (after its END or FAIL, or after cancel). DROVER_ENOMEM, DROVER_EINVAL
 * (number 0, or a port of another process): then `impl` is still the
 * caller's. The port's thread. */
int port_call_new(drover_call **out, drover_port *p, uint32_t number,
                  const struct call_ops *ops, void *impl, drover_err *err);


/* Undo port_call_new() when the work could not begin: both references go, no
 * event comes, and ops->free(impl) is called. The port's thread. */
void port_call_abandon(drover_call *c);


/* A reference more, or less: the last one frees the call. Any thread. */
void port_call_ref(drover_call *c);
void port_call_unref(drover_call *c);


/* Queue an event: `data` and `name` are copied; `call` and, when it is 0,
 * `at` are filled in. The first END or FAIL always gets through (its text is
 * cut at 255 bytes); what comes after it is dropped.
 * Returns 0, or 1 when wake_now was 0 and the queue was empty: then a
 * port_wake() is owed at the end of the turn. DROVER_ENOMEM: not queued, the
 * producer should end the call. DROVER_ECLOSED: nobody will read it, stop.
 * The producer's thread. */
int port_push(drover_call *c, const drover_event *ev, int wake_now);


/* Wake the consumer. Any thread. */
void port_wake(drover_call *c);


/* 1 when the consumer has closed the call (or its port). Any thread. */
int port_call_closed(const drover_call *c);


/* 1 when PORT_UNREAD_MAX bytes are unread: stop producing until resume. Any
 * thread. */
int port_call_full(const drover_call *c);

#endif
