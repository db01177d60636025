/* Fails each allocation of a request that waits in turn, once and from there
 * on: it enters the queue, is called by one that ends, claims and leaves; and
 * a second one is left when the port closes. Wanted: it waits or is refused
 * for want of memory, an event that found no memory comes again, the queue is
 * empty at the end, nothing leaks and no descriptor stays open.
 *
 * Prints `N passed, N failed`.
 *
 * SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "drover.h"
#include "net/loop.h"

enum { MOST = 1000, TICKS = 40 };

static int passed, failed;


static void check(int ok, const char *what, long nth) {
  ok ? passed++ : failed++;
  if (!ok)
    printf("not ok: %s at allocation %ld\n", what, nth);
}


static int count_fds(void) {
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}


/* Ring after ring, on a clock that runs ahead, until the event comes; without
 * one (all memory is gone) the queue itself says that it is called. */
static int wait_for(drover_router *r, drover_port *port, drover_wait *w,
                    double now) {
  drover_event ev;
  for (int i = 0; i < TICKS; i++) {
    if (drover_port_next(port, &ev))
      break;
    drover_port_wait(port, 0.005);
    drover_tick(r, now += 0.02);
  }
  return drover_wait_called(r, w) == 1 ? DROVER_OK : DROVER_EINTERNAL;
}


/* DROVER_OK or the code that ended it early. */
static int turns(drover_router *r, drover_port *port) {
  drover_outcome o = { .first_token_ms = NAN, .token_ms = NAN };
  drover_wait a = { .call = 1, .deadline = INFINITY };
  drover_wait b = { .call = 2, .deadline = INFINITY };
  drover_pick held, p;
  memset(&held, 0, sizeof held);
  memset(&p, 0, sizeof p);
  int rc = drover_pick_node(r, &held, 1, 0.5, NULL);
  if (rc)
    return rc;
  rc = drover_pick_node(r, &p, 1, 0.5, NULL) == DROVER_EOVERLOADED
       ? drover_wait_begin(r, port, &p, &a, 1, NULL) : DROVER_EINTERNAL;
  if (rc) {
    drover_ticket_done(r, &held, &o, 1);
    return rc;
  }
  rc = drover_wait_begin(r, port, &p, &b, 1, NULL);
  drover_ticket_done(r, &held, &o, 1);
  int was = wait_for(r, port, &a, 1);
  p.called = 1;
  if (!was)
    was = drover_pick_node(r, &p, 2, 0.5, NULL);
  drover_wait_end(r, &a, 2);
  if (!was)
    drover_ticket_done(r, &p, &o, 2);
  return rc ? rc : was;
}


static int live(void) {
  drover_router *r = NULL;
  drover_port *port = NULL;
  drover_router_config c = { .name = "torture", .create = 1, .nodes_max = 4,
                             .members_max = 4, .tickets_max = 8,
                             .queue_max = 4 };
  drover_node_config n = { .id = "n", .url = "http://n", .capacity = 1,
                           .weight = 1, .memory_gb = NAN };
  int rc = drover_router_open(&r, &c, NULL);
  if (rc)
    return rc;
  rc = drover_node_add(r, &n, 1, NULL) == 1 ? DROVER_OK : DROVER_EINTERNAL;
  if (!rc)
    rc = drover_port_open(&port, NULL);
  if (!rc)
    rc = turns(r, port);
  drover_port_close(port);
  if (drover_inflight(r, 0) != 0)
    rc = DROVER_EINTERNAL;
  drover_router_close(r);
  net_loop_stop();
  return rc;
}


static void sweep(int on) {
  check(live() == DROVER_OK, "the first one works", 0);
  long before = mem_live();
  int fds = count_fds();
  for (long nth = 1; nth < MOST; nth++) {
    mem_fail_at(nth, on);
    int rc = live();
    int hit = mem_asked() >= nth;
    mem_fail_at(0, 0);
    check(rc == DROVER_OK || (hit && rc == DROVER_ENOMEM), "the code", nth);
    check(mem_live() == before, "nothing is leaked", nth);
    check(count_fds() == fds, "descriptors are closed", nth);
    if (!hit)
      return;
  }
}


int main(void) {
  sweep(0);
  sweep(1);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
