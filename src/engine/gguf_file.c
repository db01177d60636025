/* gguf_file: model files as bytes: opening, the head in growing pieces, reads
 * at a place. See gguf.h.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "gguf.h"

enum { HEAD_FIRST = 1 << 16 };      /* bytes of the head read at first */


/* pread keeps no position in the file, so loading needs no lock. A file that
 * was cut since gives 0 bytes here, where a mapping would give SIGBUS. */
int engine_gguf_bytes(const struct engine_gguf *g, uint64_t at, void *to,
                      size_t size, drover_err *err) {
  char *p = to;
  if (g->fd < 0) {
    memcpy(p, g->bytes + at, size);
    return DROVER_OK;
  }
  while (size) {
    ssize_t n = pread(g->fd, p, size, (off_t)at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return drover_fail(err, DROVER_EFORMAT, "cannot read byte %" PRIu64
                         " of the file: %s", at,
                         n ? strerror(errno) : "it became shorter");
    p += n;
    at += (uint64_t)n;
    size -= (size_t)n;
  }
  return DROVER_OK;
}


/* A range out of the tensor is a mistake of ours: the table was checked
 * against the file. */
int engine_gguf_read(const struct engine_gguf *g,
                     const struct engine_gguf_tensor *t, uint64_t from,
                     void *to, size_t size, drover_err *err) {
  if (from > t->bytes || size > t->bytes - from)
    return drover_fail(err, DROVER_EINTERNAL, "tensor %s: byte %" PRIu64
                       " of %" PRIu64, engine_gguf_show(t->name,
                       t->name_size).text, from, t->bytes);
  return engine_gguf_bytes(g, t->at + from, to, size, err);
}


/* Read bytes `have` to `want` of the file into the head. */
static int grow_head(struct engine_gguf *g, size_t want, drover_err *err) {
  unsigned char *head = mem_realloc(g->head, want);
  if (!head)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a model's head");
  g->head = head;
  g->bytes = head;
  int rc = engine_gguf_bytes(g, g->have, head + g->have, want - g->have, err);
  if (!rc)
    g->have = want;
  return rc;
}


/* Most heads are a few MiB (the vocabulary); doubling from 64 KiB reads a
 * small one at once and no more than twice a large one. */
static int parse_file(struct engine_gguf *g, drover_err *err) {
  size_t want = HEAD_FIRST;
  for (;;) {
    if (want > g->file_bytes)
      want = (size_t)g->file_bytes;
    int rc = grow_head(g, want, err);
    if (rc)
      return rc;
    int more;
    rc = engine_gguf_head(g, &more, err);
    if (!more)
      return rc;
    mem_free(g->key);
    mem_free(g->tensor);
    g->key = NULL;
    g->tensor = NULL;
    want = want > SIZE_MAX / 2 ? SIZE_MAX : want * 2;
  }
}


/* O_NONBLOCK: opening a FIFO by mistake must not wait for its writer; it is
 * refused as no regular file right after. */
static int open_file(struct engine_gguf *g, const char *path,
                     drover_err *err) {
  struct stat st;
  g->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (g->fd < 0)
    return drover_fail(err, errno == ENOENT ? DROVER_ENOTFOUND : DROVER_EINVAL,
                       "cannot open %s: %s", path, strerror(errno));
  if (fstat(g->fd, &st) || !S_ISREG(st.st_mode))
    return drover_fail(err, DROVER_EINVAL, "%s is no regular file", path);
  g->file_bytes = (uint64_t)st.st_size;
  return parse_file(g, err);
}


/* The host's byte order is looked at where files are opened: everything
 * behind it copies numbers as they are. */
static int new_reader(struct engine_gguf **out, drover_err *err) {
  const uint16_t one = 1;
  unsigned char first;
  memcpy(&first, &one, 1);
  if (first != 1)
    return drover_fail(err, DROVER_ERESOURCE,
                       "model files are not read on big-endian machines");
  *out = mem_calloc(1, sizeof **out);
  if (!*out)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a model file");
  (*out)->fd = -1;
  return DROVER_OK;
}


/* The path is the operator's; ENOENT has a code of its own because a missing
 * model is the usual mistake. */
int engine_gguf_open(struct engine_gguf **out, const char *path,
                     drover_err *err) {
  struct engine_gguf *g = NULL;
  int rc = new_reader(&g, err);
  if (!rc)
    rc = open_file(g, path, err);
  if (rc) {
    engine_gguf_close(g);
    g = NULL;
  }
  *out = g;
  return rc;
}


/* For bytes that are all there: nothing is read later, so `more` cannot be
 * set (take() compares with the file's size first). */
int engine_gguf_parse(struct engine_gguf **out, const void *bytes, size_t size,
                      drover_err *err) {
  struct engine_gguf *g = NULL;
  int rc = new_reader(&g, err);
  if (!rc) {
    g->bytes = bytes;
    g->have = size;
    g->file_bytes = size;
    int more;
    rc = engine_gguf_head(g, &more, err);
  }
  if (rc) {
    engine_gguf_close(g);
    g = NULL;
  }
  *out = g;
  return rc;
}


/* Keys and tensors point into the head: none may be kept past this. */
void engine_gguf_close(struct engine_gguf *g) {
  if (!g)
    return;
  if (g->fd >= 0)
    close(g->fd);
  mem_free(g->key);
  mem_free(g->tensor);
  mem_free(g->head);
  mem_free(g);
}
