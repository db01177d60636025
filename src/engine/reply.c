/* reply: see reply.h. Stop strings are matched by Knuth, Morris and Pratt's
 * automaton, one a string, so a byte costs no more than the strings' number.
 *
 * SPDX-License-Identifier: MIT */
#include "reply.h"

#include <inttypes.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "unicode.h"

enum {
  OUT_MAX = 1 << 20,                /* bytes of one token, thrice and more */
  LOGPROBS_MAX = 4 << 20,           /* of tokens that are held back */
  ECHO_MAX = 64 << 20
};

static const char replacement[] = "\xef\xbf\xbd";


/* fall[i] is the length of the longest proper prefix of text[0..i] that also
 * ends there: where the automaton goes on after a mismatch. */
static void make_stop(struct engine_stop *s, drover_text text) {
  s->size = (uint32_t)text.size;
  memcpy(s->text, text.data, text.size);
  for (uint32_t i = 1, k = 0; i < s->size; i++) {
    while (k && s->text[i] != s->text[k])
      k = s->fall[k - 1];
    k += s->text[i] == s->text[k];
    s->fall[i] = (uint16_t)k;
  }
}


/* Everything is set before anything is refused: the caller's deinit may
 * follow whatever is returned. */
int engine_reply_init(struct engine_reply *r, const drover_text *stop,
                      uint32_t count, drover_err *err) {
  memset(r, 0, sizeof *r);
  buf_init(&r->held, ENGINE_STOP_MAX + 1);
  buf_init(&r->out, OUT_MAX);
  buf_init(&r->logprobs, LOGPROBS_MAX);
  if (count > ENGINE_STOPS_MAX)
    return drover_fail(err, DROVER_EINVAL, "stop: %" PRIu32
                       " strings, at most %d", count, ENGINE_STOPS_MAX);
  for (uint32_t i = 0; i < count; i++)
    if (stop[i].size == 0 || stop[i].size > ENGINE_STOP_MAX)
      return drover_fail(err, DROVER_EINVAL, "stop[%" PRIu32
                         "]: %zu bytes, 1 to %d expected", i, stop[i].size,
                         ENGINE_STOP_MAX);
  if (!count)
    return DROVER_OK;
  r->stop = mem_calloc(count, sizeof *r->stop);
  if (!r->stop)
    return drover_fail(err, DROVER_ENOMEM, "no memory for stop strings");
  for (uint32_t i = 0; i < count; i++)
    make_stop(&r->stop[i], stop[i]);
  r->stops = count;
  return DROVER_OK;
}


/* Takes one whose init has failed. */
void engine_reply_deinit(struct engine_reply *r) {
  mem_free(r->stop);
  buf_deinit(&r->held, 0);
  buf_deinit(&r->out, 0);
  buf_deinit(&r->logprobs, 0);
  r->stop = NULL;
  r->stops = 0;
}


/* One byte towards the output: sequences go out whole. */
static int put(struct engine_reply *r, char byte) {
  r->part[r->parts++] = byte;
  while (r->parts) {
    int n = engine_unicode_check(r->part, r->parts);
    if (n == 0)
      return DROVER_OK;             /* unfinished */
    int rc = n > 0 ? buf_add(&r->out, r->part, (size_t)n)
                   : buf_add(&r->out, replacement, 3);
    if (rc)
      return rc;
    uint32_t used = (uint32_t)(n > 0 ? n : -n);
    memmove(r->part, r->part + used, r->parts - used);
    r->parts -= used;
  }
  return DROVER_OK;
}


/* The cap grows by what a wrong byte may become. A prompt that ends inside a
 * sequence is closed there: the reply begins anew. */
int engine_reply_echo(struct engine_reply *r, drover_text text) {
  int rc = text.size <= ECHO_MAX ? DROVER_OK : DROVER_ETOOLARGE;
  r->out.cap = OUT_MAX + (rc ? 0 : 3 * text.size);
  for (size_t i = 0; i < text.size && !rc; i++)
    rc = put(r, text.data[i]);
  if (!rc && r->parts) {
    r->parts = 0;
    rc = buf_add(&r->out, replacement, 3);
  }
  return rc;
}


/* Let the first `count` held bytes go. */
static int release(struct engine_reply *r, size_t count) {
  int rc = DROVER_OK;
  for (size_t i = 0; i < count && !rc; i++)
    rc = put(r, r->held.at[i]);
  buf_drop(&r->held, count);
  return rc;
}


/* Feed a byte to the automata. Sets the bytes at the end that may belong to a
 * stop string; returns the size of one that is complete, the longest, or 0. */
static size_t match(struct engine_reply *r, unsigned char byte, size_t *keep) {
  size_t done = 0;
  *keep = 0;
  for (uint32_t i = 0; i < r->stops; i++) {
    struct engine_stop *s = &r->stop[i];
    while (s->matched && s->text[s->matched] != byte)
      s->matched = s->fall[s->matched - 1];
    s->matched += s->text[s->matched] == byte;
    if (s->matched == s->size && s->size > done)
      done = s->size;
    if (s->matched > *keep)
      *keep = s->matched;
  }
  return done;
}


/* What is kept is the longest end that any stop string may begin with; all
 * before it is safe to show. When a string is complete, itself and what
 * follows it in the same token are dropped. */
int engine_reply_add(struct engine_reply *r, const char *bytes, size_t size) {
  int rc = DROVER_OK;
  for (size_t i = 0; i < size && !rc && !r->stopped; i++) {
    size_t keep, done = match(r, (unsigned char)bytes[i], &keep);
    rc = buf_add(&r->held, bytes + i, 1);
    if (rc)
      break;
    if (done) {
      r->stopped = 1;
      rc = release(r, r->held.size - done);
      buf_drop(&r->held, r->held.size);
    } else {
      rc = release(r, r->held.size - keep);
    }
  }
  return rc;
}


/* The end came by a token or a limit: a half stop string is text after all.
 * An unfinished sequence will never be finished. */
int engine_reply_end(struct engine_reply *r) {
  int rc = release(r, r->held.size);
  if (!rc && r->parts) {
    r->parts = 0;
    rc = buf_add(&r->out, replacement, 3);
  }
  return rc;
}
