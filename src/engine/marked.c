/* marked: see marked.h.
 *
 * SPDX-License-Identifier: MIT */
#include "marked.h"

#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"


/* The bytes that no mark takes, and the first that one does. */
static size_t run(const char *text, size_t size, size_t at) {
  const char *mark = memchr(text + at, ENGINE_MARK, size - at);
  return mark ? (size_t)(mark - text) : size;
}


/* Of a text without marks. Each place is looked at by itself: a token may begin
 * inside of what spells another. */
static int mark_plain(const struct engine_vocab *v, const char *text,
                      size_t size, struct buf *out) {
  static const char mark = (char)ENGINE_MARK;
  int rc = DROVER_OK;
  for (size_t at = 0; at < size && !rc; at++) {
    rc = buf_add(out, text + at, 1);
    if (!rc && engine_vocab_control_at(v, text + at, size - at))
      rc = buf_add(out, &mark, 1);
  }
  return rc;
}


/* Marks go first, or two halves of a spelling would meet where one was. */
int engine_mark(const struct engine_vocab *v, const char *text, size_t size,
                struct buf *out) {
  size_t used = 0, at = 0;
  if (run(text, size, 0) == size)
    return mark_plain(v, text, size, out);
  char *plain = mem_alloc(size);
  if (!plain)
    return DROVER_ENOMEM;
  while (at < size) {
    size_t end = run(text, size, at);
    memcpy(plain + used, text + at, end - at);
    used += end - at;
    at = end + 1;
  }
  int rc = mark_plain(v, plain, used, out);
  mem_free(plain);
  return rc;
}


static size_t count_marks(const char *text, size_t size) {
  size_t n = 0;
  for (size_t at = run(text, size, 0); at < size; at = run(text, size, at + 1))
    n++;
  return n;
}


/* Each mark ends a span: a control token ends inside its own. */
static void take_out(const char *text, size_t size, char *plain,
                     struct engine_prompt *p, struct engine_span *span) {
  for (size_t at = 0; at <= size; at++) {
    size_t end = run(text, size, at);
    memcpy(plain + p->size, text + at, end - at);
    p->size += end - at;
    span[p->spans++] = (struct engine_span){ p->size, 1 };
    at = end;
  }
}


int engine_marked_encode(const struct engine_vocab *v, const char *text,
                         size_t size, int bos, struct engine_ids *out,
                         drover_err *err) {
  size_t spans = count_marks(text, size) + 1;
  struct engine_span *span = mem_calloc(spans, sizeof *span);
  char *plain = mem_alloc(size + 1);
  struct engine_prompt p = { .text = plain, .span = span };
  int rc = DROVER_ENOMEM;
  if (span && plain) {
    take_out(text, size, plain, &p, span);
    rc = engine_vocab_encode(v, &p, bos, out, err);
  } else {
    drover_fail(err, rc, "no memory for a prompt");
  }
  mem_free(span);
  mem_free(plain);
  return rc;
}
