/* Fuzzes the JSON door. The text lies against the end of a heap block, so an
 * over-read is seen. Wanted: scan, find and check agree on what is JSON; spans
 * lie inside the text and are JSON themselves; unescaping never grows.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "drover.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


static void try_unescape(const char *text, size_t size, int inside) {
  char *to = malloc(size ? size : 1);
  must(to != NULL);
  long wrote = drover_json_unescape(text, size, to);
  must(wrote <= (long)size);
  must(!inside || wrote >= 0);
  free(to);
}


static void try_delta(const char *text, size_t size, int good) {
  drover_delta d;
  must((drover_delta_scan(text, size, &d, NULL) == 0) == good);
  must((size_t)d.text_start + d.text_size <= size);
  must((size_t)d.finish_start + d.finish_size <= size);
  if (d.flags & DROVER_DELTA_TEXT) {
    must(text[d.text_start - 1] == '"');
    must(text[d.text_start + d.text_size] == '"');
    try_unescape(text + d.text_start, d.text_size, 1);
  }
}


static void try_find(const char *text, size_t size, int good) {
  static const struct { const char *steps; size_t size; } paths[] = {
    { "", 0 }, { "ka", 3 }, { "i1", 3 }, { "ka\0i0\0k", 8 },
    { "kchoices\0i0\0kdelta\0kcontent", 28 },
  };
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    drover_span span;
    int rc = drover_json_find(text, size, paths[i].steps, paths[i].size,
                              &span, NULL);
    must(!good || rc != DROVER_EFORMAT);
    if (rc || !good)                /* a deep text is found in, not checked */
      continue;
    must(span.start < span.stop && span.stop <= size);
    must(!drover_json_check(text + span.start, span.stop - span.start, NULL));
  }
}


static void try_members(const char *text, size_t size, int good) {
  drover_span spans[2], same;
  int rc = drover_json_members(text, size, "a\0choices", 2, spans, NULL);
  must(rc == (good ? DROVER_OK : DROVER_EFORMAT));
  for (int i = 0; i < 2 && good; i++) {
    const char *path = i ? "kchoices" : "ka";
    rc = drover_json_find(text, size, path, strlen(path) + 1, &same, NULL);
    must((rc == DROVER_OK) == (spans[i].type != 0));
    must(rc || (same.start == spans[i].start && same.stop == spans[i].stop));
  }
}


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  char *text = malloc(size ? size : 1);
  must(text != NULL);
  if (size)
    memcpy(text, data, size);
  drover_err err;
  int good = drover_json_check(text, size, &err) == 0;
  must(good || err.code == DROVER_EFORMAT);
  try_delta(text, size, good);
  try_find(text, size, good);
  try_members(text, size, good);
  try_unescape(text, size, 0);
  free(text);
  return 0;
}
