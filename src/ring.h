/* ring: ties a request that waits to its port: a datagram for its token at
 * this process's bell (net/bell) becomes DROVER_EVENT_SLOT there. To the port
 * it is a call like any other, which ends with the port. Private to the hall.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_RING_H
#define DROVER_RING_H

#include "drover.h"


/* Events for `number` come to the port when *token is rung at *bell. Starts
 * the transport thread if need be. DROVER_EINVAL, DROVER_ENOMEM,
 * DROVER_ERESOURCE. The port's thread. */
int ring_open(drover_port *port, uint32_t number, uint64_t *bell,
              uint64_t *token, drover_err *err);


/* No event comes any more. Nothing to do when the port was closed. The port's
 * thread. */
void ring_close(uint64_t token);

#endif
