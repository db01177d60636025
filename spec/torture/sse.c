/* Fails each allocation of the event parser in turn, once and from there on:
 * the parser says DROVER_ENOMEM and stays failed, or gives all events; nothing
 * leaks.
 *
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "drover.h"
#include "net/sse.h"

enum { PIECE = 11, EVENTS = 3, RUNS_MAX = 10000 };

static const char stream[] =
  "\xEF\xBB\xBF: comment\nid: 7\nevent: first\ndata: a\xFF b\ndata: c\n\n"
  "data: a line that is cut over several reads, so that it must be kept\r\n\r\n"
  "event: long enough\rid: \xE2\x80\xA6\rdata: {\"no\":\"blank line\"}\r";


/* Events given, or the parser's error. */
static int scenario(void) {
  struct net_sse p;
  struct net_event ev;
  int events = 0, rc = 0;
  net_sse_init(&p);
  for (size_t at = 0; at < sizeof stream - 1 && !rc; ) {
    size_t n = sizeof stream - 1 - at;
    long used = net_sse_feed(&p, stream + at, n < PIECE ? n : PIECE, &ev);
    if (used < 0)
      rc = (int)used;
    else
      at += (size_t)used;
    events += used >= 0 && ev.ready;
  }
  if (!rc)
    rc = net_sse_end(&p, &ev);
  events += !rc && ev.ready;
  if (rc && (net_sse_feed(&p, "x", 1, &ev) != rc || ev.ready))
    rc = 1;                         /* it must stay failed */
  net_sse_deinit(&p);
  return rc ? rc : events;
}


int main(void) {
  int passed = 0, failed = 0;
  for (int on = 0; on < 2; on++) {
    for (long n = 1; n < RUNS_MAX; n++) {
      long live = mem_live();
      mem_fail_at(n, on);
      int got = scenario();
      int harmed = mem_asked() >= n;
      mem_fail_at(0, 0);
      int right = mem_live() == live
                  && (got == EVENTS || (harmed && got == DROVER_ENOMEM));
      passed += right;
      failed += !right;
      if (!right)
        printf("allocation %ld%s: %d\n", n, on ? " and on" : "", got);
      if (!harmed)
        break;
    }
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
