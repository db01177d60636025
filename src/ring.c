/* ring: see ring.h. Who takes the token out of the bell gives back the
 * producer's reference of the call: ring_close(), or the port's end.
 *
 * SPDX-License-Identifier: MIT */
#include "ring.h"

#include "base/err.h"
#include "base/mem.h"
#include "base/process.h"
#include "net/loop.h"
#include "port.h"

struct ring {
  struct net_loop *loop;            /* a reference; its bell lives as long */
  uint64_t token;
  drover_call *call;
};


static void retain(void *user) {
  port_call_ref(user);
}


static void release(void *user) {
  port_call_unref(user);
}


/* Lost for want of memory, it is rung again. */
static void push(void *user) {
  drover_event ev = { .type = DROVER_EVENT_SLOT };
  port_push(user, &ev, 1);
}


static void cancel(void *impl) {
  struct ring *ring = impl;
  if (net_bell_drop(net_loop_has_bell(ring->loop), ring->token))
    port_call_unref(ring->call);
}


static void free_ring(void *impl) {
  struct ring *ring = impl;
  net_loop_unref(ring->loop);
  mem_free(ring);
}


static const struct net_ring rung = { retain, push, release };
static const struct call_ops ops = { .cancel = cancel, .free = free_ring };


int ring_open(drover_port *port, uint32_t number, uint64_t *bell,
              uint64_t *token, drover_err *err) {
  struct ring *ring = mem_calloc(1, sizeof *ring);
  struct net_bell *b;
  int rc = ring ? net_loop_get(&ring->loop, err)
                : drover_fail(err, DROVER_ENOMEM, "no memory to wait");
  if (!rc)
    rc = net_loop_bell(ring->loop, &b, err);
  if (!rc)
    rc = port_call_new(&ring->call, port, number, &ops, ring, err);
  if (rc) {
    if (ring)
      free_ring(ring);
    return rc;
  }
  rc = net_bell_add(b, &rung, ring->call, &ring->token, err);
  if (rc) {
    port_call_abandon(ring->call);
    return rc;
  }
  *bell = net_bell_id(b);
  *token = ring->token;
  return DROVER_OK;
}


void ring_close(uint64_t token) {
  struct net_bell *bell = net_loop_has_bell(process_transport());
  drover_call *call = bell ? net_bell_drop(bell, token) : NULL;
  if (!call)
    return;
  drover_call_close(call);
  port_call_unref(call);
}
