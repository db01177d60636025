/* mem: see mem.h.
 *
 * SPDX-License-Identifier: MIT */
#include "mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The hook and its counters are for tests: relaxed, nothing follows from
 * their order. */
static atomic_long asked, live, fail_nth;
static atomic_int fail_on;


static int refused(void) {
  long n = atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed) + 1;
  long nth = atomic_load_explicit(&fail_nth, memory_order_relaxed);
  if (nth == 0 || n < nth)
    return 0;
  return n == nth || atomic_load_explicit(&fail_on, memory_order_relaxed);
}


static void *counted(void *p) {
  if (p)
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
  return p;
}


void *mem_alloc(size_t size) {
  return refused() ? NULL : counted(malloc(size ? size : 1));
}


void *mem_calloc(size_t count, size_t size) {
  if (refused())
    return NULL;
  return counted(count && size ? calloc(count, size) : calloc(1, 1));
}


void *mem_realloc(void *old, size_t size) {
  if (!old)
    return mem_alloc(size);
  return refused() ? NULL : realloc(old, size ? size : 1);
}


void mem_free(void *p) {
  if (p)
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
  free(p);
}


char *mem_dup(const char *text, size_t size) {
  if (size == SIZE_MAX)
    return NULL;
  char *copy = mem_alloc(size + 1);
  if (!copy)
    return NULL;
  if (size)
    memcpy(copy, text, size);
  copy[size] = '\0';
  return copy;
}


void mem_wipe(void *p, size_t size) {
  if (p && size)
    explicit_bzero(p, size);
}


void mem_fail_at(long nth, int on) {
  atomic_store_explicit(&asked, 0, memory_order_relaxed);
  atomic_store_explicit(&fail_on, on, memory_order_relaxed);
  atomic_store_explicit(&fail_nth, nth, memory_order_relaxed);
}


long mem_asked(void) {
  return atomic_load_explicit(&asked, memory_order_relaxed);
}


long mem_live(void) {
  return atomic_load_explicit(&live, memory_order_relaxed);
}
