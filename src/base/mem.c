/* mem: see mem.h.
 *
 * SPDX-License-Identifier: MIT */
#include "mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The hook and its counters are for tests: relaxed, nothing follows from
 * their order. */
static atomic_long asked, live, bytes, fail_nth;
static atomic_int fail_on;


/* Counts each request, also those that the hook lets through: `nth` is
 * counted from mem_fail_at(), and torture raises it until a run asks for
 * fewer. */
static int refused(void) {
  long n = atomic_fetch_add_explicit(&asked, 1, memory_order_relaxed) + 1;
  long nth = atomic_load_explicit(&fail_nth, memory_order_relaxed);
  if (nth == 0 || n < nth)
    return 0;
  return n == nth || atomic_load_explicit(&fail_on, memory_order_relaxed);
}


/* `live` counts blocks: what has not come back is a leak, whatever its size.
 * The system knows a block's bytes, so no header before it is needed. */
static void *counted(void *p) {
  if (!p)
    return NULL;
  atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&bytes, (long)malloc_usable_size(p),
                            memory_order_relaxed);
  return p;
}


void *mem_alloc(size_t size) {
  return refused() ? NULL : counted(malloc(size ? size : 1));
}


/* calloc itself refuses a product past SIZE_MAX; zero bytes become one,
 * because NULL must mean "no memory" alone. */
void *mem_calloc(size_t count, size_t size) {
  if (refused())
    return NULL;
  return counted(count && size ? calloc(count, size) : calloc(1, 1));
}


/* The block stays the same one for `live`, moved or not. On NULL the old
 * block is the caller's still. */
void *mem_realloc(void *old, size_t size) {
  if (!old)
    return mem_alloc(size);
  if (refused())
    return NULL;
  long before = (long)malloc_usable_size(old);
  void *p = realloc(old, size ? size : 1);
  if (p)
    atomic_fetch_add_explicit(&bytes, (long)malloc_usable_size(p) - before,
                              memory_order_relaxed);
  return p;
}


/* No hook here: giving back must work while allocations fail. */
void mem_free(void *p) {
  if (p) {
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&bytes, (long)malloc_usable_size(p),
                              memory_order_relaxed);
  }
  free(p);
}


/* The source needs no NUL and may hold some; the copy has one behind it for
 * C's functions. SIZE_MAX would wrap to a block of 0. */
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


/* `asked` first: a thread that allocates in between sees the new count with
 * the old `nth` at worst, which no test with threads relies on. */
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


long mem_live_bytes(void) {
  return atomic_load_explicit(&bytes, memory_order_relaxed);
}
