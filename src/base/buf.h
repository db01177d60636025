/* buf: bytes that grow, born with a cap. Not shared between threads.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_BUF_H
#define DROVER_BASE_BUF_H

#include <stddef.h>

struct buf {
  char  *at;                        /* `size` bytes in use; NULL when empty */
  size_t size;
  size_t room;                      /* allocated */
  size_t cap;                       /* never more than this */
};


/* Empty, without memory: nothing is allocated before the first byte. */
void buf_init(struct buf *b, size_t cap);


/* Free, wiped first when `secret`; the buffer is empty and usable again. */
void buf_deinit(struct buf *b, int secret);


/* Append. 0, DROVER_ETOOLARGE past the cap, or DROVER_ENOMEM; on an error
 * nothing is appended. */
int buf_add(struct buf *b, const void *bytes, size_t size);
int buf_print(struct buf *b, const char *fmt, ...)
  __attribute__((format(printf, 2, 3)));


/* Make room for `more` bytes behind the end, which the caller then writes
 * and counts into `size`. Same returns. */
int buf_reserve(struct buf *b, size_t more);


/* Take `count` bytes off the front. */
void buf_drop(struct buf *b, size_t count);

#endif
