/* Fails each allocation of the engine in turn, once and from there on: a
 * model is opened, two requests are made on it, it is closed. Wanted: an
 * error or the whole scenario; each accepted request ends exactly once;
 * nothing leaks.
 *
 * SPDX-License-Identifier: MIT */
#include "../support/tiny.h"
#include "base/mem.h"
#include "engine/engine.h"

enum { RUNS_MAX = 5000 };


static void count_end(void *ctx, const drover_event *ev) {
  *(int *)ctx += ev->type == DROVER_EVENT_END || ev->type == DROVER_EVENT_FAIL;
}


/* 1 when all that was accepted ended once. */
static int generate(struct engine *e) {
  drover_text stop[] = { { "xyz", 3 }, { "\0\0", 2 } };
  drover_message messages[] = { { { "system", 6 }, { "a b", 3 } },
                                { { "user", 4 }, { "abc <|im_end|>", 14 } } };
  drover_generate a = { .call = 1, .messages = messages, .messages_count = 2,
                        .top_p = 1, .stop = stop, .stop_count = 2,
                        .max_tokens = 5 };
  drover_bias bias = { 7, 2.5f };
  drover_generate b = { .call = 2, .prompt = { "abcabc", 6 }, .max_tokens = 8,
                        .temperature = 1, .top_k = 9, .top_p = 0.9f,
                        .repetition = 1.1f, .bias = &bias, .bias_count = 1,
                        .stop_id = &bias.token, .stop_id_count = 1, .n = 2,
                        .logprobs = 1, .top_logprobs = 2 };
  static const char schema[] = "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/n\"},"
    "\"b\":{\"enum\":[1,12,null]}},\"$defs\":{\"n\":{\"type\":[\"string\","
    "\"array\"],\"maxLength\":4}}}";
  drover_generate c = { .call = 3, .prompt = { "ab", 2 }, .max_tokens = 6,
                        .temperature = 1, .top_p = 1, .echo = 1,
                        .format = DROVER_FORMAT_SCHEMA,
                        .schema = { schema, sizeof schema - 1 } };
  int ends[3] = { 0, 0, 0 };
  uint64_t id;
  int want_a = !engine_queue(e, &a, count_end, &ends[0], &id, NULL);
  int want_b = !engine_queue(e, &b, count_end, &ends[1], &id, NULL);
  for (int i = 0; i < 20; i++)
    engine_turn(e, 1);
  int want_c = !engine_queue(e, &c, count_end, &ends[2], &id, NULL);
  for (int i = 0; i < 10; i++)
    engine_turn(e, 1);
  return ends[0] == want_a && ends[1] == want_b && ends[2] == want_c;
}


/* Sets `whole` when nothing failed on the way. */
static int scenario(const char *path, int *whole) {
  drover_engine_config c = { .path = path, .batch = 2, .queue = 2 };
  drover_err err = { 0 };
  struct engine *e;
  int rc = engine_open(&e, &c, &err);
  *whole = !rc;
  if (rc)
    return rc == err.code && !e;
  int right = generate(e);
  engine_close(e);
  return right;
}


static int walk(const char *path, int on) {
  int failed = 0;
  for (long n = 1; n < RUNS_MAX; n++) {
    long before = mem_live();
    mem_fail_at(n, on);
    int whole, right = scenario(path, &whole);
    long asked = mem_asked();
    mem_fail_at(0, 0);
    if (!right || mem_live() != before) {
      printf("allocation %ld%s: %s\n", n, on ? " and on" : "",
             right ? "leaks" : "ends wrongly");
      failed++;
    }
    if (asked < n) {
      printf("%ld allocations%s\n", n - 1, on ? ", from each on" : "");
      return failed + !whole;
    }
  }
  return failed + 1;
}


int main(void) {
  static struct tiny t;
  char path[64];
  int failed = 0, runs = 0;
  for (int bpe = 0; bpe < 2; bpe++) {
    tiny_build(&t, bpe);
    int fd = tiny_file(t.bytes, t.size, path);
    for (int on = 0; on < 2; on++, runs++)
      failed += walk(path, on) != 0;
    close(fd);
  }
  printf("%d passed, %d failed\n", runs - failed, failed);
  return failed != 0;
}
