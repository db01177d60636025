/* utf8: see utf8.h.
 *
 * SPDX-License-Identifier: MIT */
#include "utf8.h"

#include <stdint.h>
#include <string.h>

#include "../drover.h"


/* Length of the sequence that `lead` opens, and the bounds of its second
 * byte; 0 when it opens none. Unicode 15, table 3-7: the narrower bounds keep
 * out overlong forms (E0, F0), surrogates (ED) and what is past U+10FFFF. */
static size_t sequence(unsigned char lead, unsigned char *low,
                       unsigned char *high) {
  *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2
       : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}


/* Bytes at `s` that belong to one sequence; *whole says if it is complete.
 * At least 1. */
static size_t step(const unsigned char *s, size_t size, int *whole) {
  unsigned char low, high;
  size_t need = sequence(s[0], &low, &high), n = 1;
  while (n < need && n < size && s[n] >= low && s[n] <= high) {
    low = 0x80;
    high = 0xBF;
    n++;
  }
  *whole = need == n;
  return n;
}


/* Eight bytes at once while all are ASCII, which replies mostly are. */
size_t net_utf8_run(const char *s, size_t size) {
  const unsigned char *u = (const unsigned char *)s;
  size_t at = 0;
  uint64_t eight;
  int whole;
  while (at < size) {
    if (size - at >= sizeof eight) {
      memcpy(&eight, u + at, sizeof eight);
      if (!(eight & 0x8080808080808080u)) {
        at += sizeof eight;
        continue;
      }
    }
    size_t n = step(u + at, size - at, &whole);
    if (!whole)
      break;
    at += n;
  }
  return at;
}


int net_utf8_add(struct buf *b, const char *s, size_t size) {
  for (;;) {                        /* a whole run, then one bad subpart */
    size_t run = net_utf8_run(s, size);
    int whole, rc = buf_add(b, s, run);
    if (rc || run == size)
      return rc;
    s += run;
    size -= run;
    size_t bad = step((const unsigned char *)s, size, &whole);
    rc = buf_add(b, "\xEF\xBF\xBD", 3);
    if (rc)
      return rc;
    s += bad;
    size -= bad;
  }
}
