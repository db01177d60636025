/* zone: every allocation of a router's life fails in turn, once and from
 * there on: each call says DROVER_ENOMEM or works, nothing is leaked, and the
 * next run works.
 *
 * Prints `N passed, N failed`.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "drover.h"

enum { MOST = 1000 };

static int passed, failed;


static void check(int ok, const char *what, long nth) {
  ok ? passed++ : failed++;
  if (!ok)
    printf("not ok: %s at allocation %ld\n", what, nth);
}


/* A router's life. DROVER_OK or the code that ended it early. */
static int live(int shared) {
  static const drover_limit l = { .rpm = 60000, .tpm = 60000, .concurrent = 1,
                                  .dollars_per_day = 1,
                                  .dollars_per_month = 9, .flags = 1 };
  static char page[1 << 16];
  drover_router *r = NULL;
  drover_pick p;
  drover_outcome ok = { .first_token_ms = NAN, .token_ms = NAN };
  drover_router_config c = { .name = "torture", .shared = (uint32_t)shared,
                             .create = 1, .nodes_max = 4, .members_max = 4,
                             .tickets_max = 8 };
  drover_node_config n = { .id = "n", .url = "http://n", .capacity = 2,
                           .weight = 1, .memory_gb = NAN, .limit_node = l,
                           .limit_key = l };
  memset(&p, 0, sizeof p);
  p.limits[0] = p.limits[1] = p.limits[2] = &l;
  p.key = p.max_tokens = 1;
  int rc = drover_router_open(&r, &c, NULL);
  if (rc)
    return rc;
  rc = drover_node_add(r, &n, 1, NULL) == 1 ? DROVER_OK : DROVER_EINTERNAL;
  if (!rc)
    rc = drover_pick_node(r, &p, 1, 0.5, NULL);
  if (!rc)
    rc = drover_ticket_sent(r, &p);
  if (!rc)
    rc = drover_ticket_done(r, &p, &ok, 2);
  drover_retry_take(r, 2);
  drover_share_set(r, 0, 0.5, 9);
  drover_tick(r, 3);
  drover_expose(r, page, sizeof page);
  if (drover_inflight(r, 0) != 0)
    rc = DROVER_EINTERNAL;
  drover_router_close(r);
  return rc;
}


static void sweep(int shared, int on) {
  long before = mem_live();
  for (long nth = 1; nth < MOST; nth++) {
    mem_fail_at(nth, on);
    int rc = live(shared);
    int hit = mem_asked() >= nth;
    mem_fail_at(0, 0);
    check(rc == (hit ? DROVER_ENOMEM : DROVER_OK), "the code", nth);
    check(mem_live() == before, "nothing is leaked", nth);
    check(live(shared) == DROVER_OK, "the next one works", nth);
    if (!hit)
      return;
  }
}


int main(void) {
  for (int shared = 0; shared < 2; shared++)
    for (int on = 0; on < 2; on++)
      sweep(shared, on);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
