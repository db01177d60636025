/* logprob: what is told of a chosen token, in OpenAI's shape. See choose.h.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>

#include "../base/mem.h"
#include "choose.h"
#include "unicode.h"

enum { LEAST = -9999 };             /* what OpenAI says for "never" */


/* The inside of a JSON string: what is no UTF-8 as U+FFFD. */
static int write_text(struct buf *out, const char *at, size_t size) {
  int rc = DROVER_OK;
  for (size_t i = 0; i < size && !rc;) {
    int n = engine_unicode_check(at + i, size - i);
    unsigned char c = (unsigned char)at[i];
    if (n <= 0)
      rc = buf_add(out, "\xef\xbf\xbd", 3);
    else if (c < 32 || c == 127)
      rc = buf_print(out, "\\u%04x", c);
    else if (c == '"' || c == '\\')
      rc = buf_print(out, "\\%c", c);
    else
      rc = buf_add(out, at + i, (size_t)n);
    i += n > 0 ? (size_t)n : n < 0 ? (size_t)-n : size - i;
  }
  return rc;
}


static int write_bytes(struct buf *out, const char *at, size_t size) {
  int rc = DROVER_OK;
  for (size_t i = 0; i < size && !rc; i++)
    rc = buf_print(out, i ? ",%d" : "%d", (unsigned char)at[i]);
  return rc;
}


/* A token without bytes of its own (a control token) has its name. */
static int write_token(struct buf *out, const struct engine_vocab *v,
                       const struct engine_logprob *l, char *piece) {
  size_t size = engine_vocab_piece(v, l->id, piece);
  const char *text = size ? piece : v->bytes + v->start[l->id];
  size_t shown = size ? size : v->start[l->id + 1] - v->start[l->id];
  double value = l->logprob > LEAST ? (double)l->logprob : LEAST;
  int rc = buf_add(out, "{\"token\":\"", 10);
  if (!rc)
    rc = write_text(out, text, shown);
  if (!rc)
    rc = buf_print(out, "\",\"logprob\":%.7g,\"bytes\":[", value);
  if (!rc)
    rc = write_bytes(out, piece, size);
  return rc ? rc : buf_add(out, "]", 1);
}


static int write_all(const struct engine_vocab *v,
                     const struct engine_logprob *l, uint32_t top,
                     char *piece, struct buf *out) {
  int rc = out->size ? buf_add(out, ",", 1) : DROVER_OK;
  if (!rc)
    rc = write_token(out, v, &l[top], piece);
  if (!rc)
    rc = buf_add(out, ",\"top_logprobs\":[", 17);
  for (uint32_t i = 0; i < top && !rc; i++) {
    if (i)
      rc = buf_add(out, ",", 1);
    if (!rc)
      rc = write_token(out, v, &l[i], piece);
    if (!rc)
      rc = buf_add(out, "}", 1);
  }
  return rc ? rc : buf_add(out, "]}", 2);
}


/* Of the raw logits, before anything that the request did to them. */
int engine_logprob_write(const struct engine_choose *c,
                         const struct engine_vocab *v,
                         const struct engine_row *row, int32_t id,
                         struct buf *out) {
  struct engine_logprob l[ENGINE_TOP_MAX + 1];
  char *piece = mem_alloc(v->longest + 1);
  if (!piece)
    return DROVER_ENOMEM;
  uint32_t count = engine_sample_logprobs(row->logits, row->count, id, c->top,
                                          l);
  int rc = write_all(v, l, count - 1, piece, out);
  mem_free(piece);
  return rc;
}
