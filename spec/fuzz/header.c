/* Fuzzes the header checks. Wanted: lines that are taken have no byte that
 * ends a line but their own, name nothing that frames a message, and are as
 * many as we say; a reply's header that is read is a part of its line.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "drover.h"
#include "net/header.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


static void check_lines(const char *text, size_t size) {
  static const char *const framing[] = {
    "host:", "content-length:", "transfer-encoding:", "connection:", "expect:",
    "upgrade:", "te:", "proxy-",
  };
  size_t count, seen = 0;
  if (net_header_lines(text, size, &count, NULL) != 0)
    return;
  must(!memchr(text, '\r', size) && !memchr(text, '\0', size));
  for (size_t at = 0; at < size; seen++) {
    const char *end = memchr(text + at, '\n', size - at);
    size_t n = end ? (size_t)(end - text) - at : size - at;
    for (size_t i = 0; i < sizeof framing / sizeof *framing; i++)
      must(n < strlen(framing[i])
           || strncasecmp(text + at, framing[i], strlen(framing[i])) != 0);
    at += n + (end != NULL);
  }
  must(seen == count);
}


static void check_reply(const char *line, size_t size) {
  struct net_header h;
  if (!net_header_read(line, size, &h))
    return;
  must(h.name[0] && strlen(h.name) < sizeof h.name);
  must(h.value >= line && h.value + h.value_size <= line + size);
  must(!memchr(h.value, '\n', h.value_size));
  net_header_kept(&h);
}


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  char *exact = calloc(size ? size : 1, 1);
  must(exact != NULL);
  if (size)
    memcpy(exact, data, size);
  check_lines(exact, size);
  check_reply(exact, size);
  size_t name = size ? (unsigned char)exact[0] % size : 0;
  if (drover_header_check(exact, name, exact + name, size - name, NULL) == 0)
    must(!memchr(exact, '\n', size) && !memchr(exact, '\r', size)
         && !memchr(exact, '\0', size));
  free(exact);
  return 0;
}
