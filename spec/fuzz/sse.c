/* Fuzzes the event parser. The bytes lie in heap blocks of their own, so an
 * over-read is seen. Wanted: the same events, ids and errors whole, byte by
 * byte and cut in two; no event has a line break in its name, and what comes
 * out is UTF-8.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "drover.h"
#include "net/sse.h"
#include "net/utf8.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


static void note(struct buf *log, const char *bytes, size_t size) {
  must(net_utf8_run(bytes, size) == size);
  must(buf_add(log, bytes, size) == 0 && buf_add(log, "\xFF", 1) == 0);
}


static void note_event(struct buf *log, const struct net_event *ev) {
  must(!memchr(ev->name, '\n', ev->name_size));
  must(!memchr(ev->id, '\0', ev->id_size));
  note(log, ev->name, ev->name_size);
  note(log, ev->data, ev->data_size);
  note(log, ev->id, ev->id_size);
}


/* Feed `size` bytes in a block of exactly that size. */
static int feed(struct net_sse *p, const unsigned char *from, size_t size,
                struct buf *log) {
  struct net_event ev;
  char *block = malloc(size ? size : 1), *at = block;
  must(block != NULL);
  if (size)
    memcpy(block, from, size);
  int rc = 0;
  while (size && !rc) {
    long used = net_sse_feed(p, at, size, &ev);
    must(used <= (long)size && (used > 0 || used < 0));
    if (used < 0) {
      rc = (int)used;
      break;
    }
    must(ev.ready || used == (long)size);
    if (ev.ready)
      note_event(log, &ev);
    at += used;
    size -= (size_t)used;
  }
  free(block);
  return rc;
}


/* Parse in pieces of `piece` bytes, the first of `first`. */
static void parse(const unsigned char *data, size_t size, size_t first,
                  size_t piece, struct buf *log) {
  struct net_sse p;
  struct net_event ev;
  int rc = 0;
  net_sse_init(&p);
  buf_init(log, (size_t)64 << 20);
  for (size_t at = 0, n = first; at < size && !rc; at += n, n = piece) {
    if (n > size - at)
      n = size - at;
    rc = feed(&p, data + at, n, log);
  }
  if (!rc)
    rc = net_sse_end(&p, &ev);
  if (!rc && ev.ready)
    note_event(log, &ev);
  char code = (char)rc;
  must(buf_add(log, &code, 1) == 0);
  net_sse_deinit(&p);
}


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  struct buf whole, other;
  if (size < 1)
    return 0;
  size_t cut = data[0] % 64 + 1;
  data++;
  size--;
  parse(data, size, size ? size : 1, 1, &whole);
  const size_t ways[][2] = { { 1, 1 }, { cut, size + 1 }, { cut, 7 } };
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    parse(data, size, ways[i][0], ways[i][1], &other);
    must(other.size == whole.size
         && memcmp(other.at, whole.at, whole.size) == 0);
    buf_deinit(&other, 0);
  }
  buf_deinit(&whole, 0);
  return 0;
}
