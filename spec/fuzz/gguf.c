/* Fuzzes model files, whole: open, generate, close. The input edits a small
 * good model, or (first byte odd) is the file itself. Wanted: an error or a
 * model that runs; each request ends once; nothing leaks.
 *
 *   edit = offset (2 bytes), count (1), that many bytes; 0xffff cuts the file
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../support/tiny.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "engine/gguf.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


static void count_end(void *ctx, const drover_event *ev) {
  int *ends = ctx;
  must(*ends == 0);
  *ends += ev->type != DROVER_EVENT_TEXT;
}


static void generate(struct engine *e) {
  drover_err err;
  uint64_t id;
  int ends = 0;
  drover_message message = { { "user", 4 }, { "ab\xff<tool>", 9 } };
  drover_generate g = { .call = 1, .prompt = { "abc", 3 }, .max_tokens = 3,
                        .temperature = 1, .top_p = 0.9f };
  int rc = engine_queue(e, &g, count_end, &ends, &id, &err);
  for (int i = 0; i < 8 && !rc && !ends; i++)
    engine_turn(e, 1);
  must(rc || ends == 1);
  g.messages = &message;
  g.messages_count = 1;
  g.temperature = 0;
  ends = 0;
  rc = engine_queue(e, &g, count_end, &ends, &id, &err);
  for (int i = 0; i < 8 && !rc && !ends; i++)
    engine_turn(e, 1);
  must(rc || ends == 1);
}


static void open_file(const unsigned char *bytes, size_t size) {
  char path[64];
  drover_err err = { 0 };
  struct engine *e;
  int fd = tiny_file(bytes, size, path);
  drover_engine_config c = { .path = path, .memory_cap_bytes = 8 << 20,
                             .batch = 2, .queue = 2 };
  if (fd < 0)
    return;
  int rc = engine_open(&e, &c, &err);
  must(rc == 0 || (rc == err.code && err.text[0] && !e));
  if (!rc)
    generate(e);
  engine_close(e);
  close(fd);
}


/* The parser alone, over a heap block of just that size. */
static void parse(const unsigned char *bytes, size_t size) {
  struct engine_gguf *g;
  unsigned char *block = malloc(size ? size : 1);
  must(block != NULL);
  memcpy(block, bytes, size);
  int rc = engine_gguf_parse(&g, block, size, NULL);
  must((rc == 0) == (g != NULL));
  engine_gguf_close(g);
  free(block);
}


static void edit(struct tiny *t, const unsigned char *data, size_t size) {
  while (size >= 3) {
    size_t at = (size_t)data[0] << 8 | data[1], count = data[2];
    data += 3;
    size -= 3;
    if (at == 0xffff) {
      t->size = t->size * (count + 1) / 256;
      continue;
    }
    count = count < size ? count : size;
    at %= t->size ? t->size : 1;
    if (count > t->size - at)
      count = t->size - at;
    memcpy(t->bytes + at, data, count);
    data += count;
    size -= count;
  }
}


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static struct tiny t;
  long before = mem_live();
  if (!size)
    return 0;
  if (data[0] & 1) {
    parse(data + 1, size - 1);
    open_file(data + 1, size - 1);
  } else {
    tiny_build(&t, data[0] >> 1 & 1);
    edit(&t, data + 1, size - 1);
    parse(t.bytes, t.size);
    open_file(t.bytes, t.size);
  }
  must(mem_live() == before);
  return 0;
}
