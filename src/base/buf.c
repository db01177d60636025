/* buf: see buf.h.
 *
 * SPDX-License-Identifier: MIT */
#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "../drover.h"
#include "mem.h"


void buf_init(struct buf *b, size_t cap) {
  memset(b, 0, sizeof *b);
  b->cap = cap;
}


/* All of the room is wiped, not only the bytes in use: what buf_drop() moved
 * up is still behind them. */
void buf_deinit(struct buf *b, int secret) {
  if (secret)
    mem_wipe(b->at, b->room);
  mem_free(b->at);
  buf_init(b, b->cap);
}


/* Doubles from 128 bytes on, so that appending byte by byte costs amortised
 * constant time. `size` never passes `cap`, so the first subtraction cannot
 * wrap; the doubling goes straight to the cap before it could. */
int buf_reserve(struct buf *b, size_t more) {
  if (more > b->cap - b->size)
    return DROVER_ETOOLARGE;
  size_t need = b->size + more;
  if (need <= b->room)
    return DROVER_OK;
  size_t room = b->room < 128 ? 128 : b->room;
  while (room < need)
    room = room > b->cap / 2 ? b->cap : room * 2;
  char *at = mem_realloc(b->at, room);
  if (!at)
    return DROVER_ENOMEM;
  b->at = at;
  b->room = room;
  return DROVER_OK;
}


/* `bytes` may be NULL when `size` is 0: memcpy may not have it then. */
int buf_add(struct buf *b, const void *bytes, size_t size) {
  int rc = buf_reserve(b, size);
  if (rc || size == 0)
    return rc;
  memcpy(b->at + b->size, bytes, size);
  b->size += size;
  return DROVER_OK;
}


/* Formats twice, for the size and for the bytes. The NUL that vsnprintf
 * writes needs room behind the text but is not counted into `size`. */
int buf_print(struct buf *b, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  int size = vsnprintf(NULL, 0, fmt, args);
  va_end(args);
  int rc = size < 0 ? DROVER_EINVAL : buf_reserve(b, (size_t)size + 1);
  if (!rc) {
    vsnprintf(b->at + b->size, (size_t)size + 1, fmt, again);
    b->size += (size_t)size;
  }
  va_end(again);
  return rc;
}


/* Moves the rest to the front: cheap for the few bytes that readers leave
 * behind, and no second offset to keep. */
void buf_drop(struct buf *b, size_t count) {
  if (count >= b->size) {
    b->size = 0;
    return;
  }
  memmove(b->at, b->at + count, b->size - count);
  b->size -= count;
}
