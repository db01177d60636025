/* mem: the one allocator. A counter can make the n-th allocation fail, once
 * or from there on, so that `make torture` walks through every one of them.
 * Any thread.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_MEM_H
#define DROVER_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>


/* As malloc, calloc, realloc, free. NULL when there is no memory, when the
 * hook says so, or when count * size passes SIZE_MAX. Zero bytes give a
 * pointer that may be freed. */
void *mem_alloc(size_t size);
void *mem_calloc(size_t count, size_t size);
void *mem_realloc(void *old, size_t size);
void mem_free(void *p);


/* A copy of `size` bytes with a NUL behind it; NULL when there is no memory. */
char *mem_dup(const char *text, size_t size);


/* Overwrite before the memory is given back: keys. */
void mem_wipe(void *p, size_t size);


/* Fail allocation `nth` from now (1 is the next; 0 turns the hook off), and
 * all after it when `on` is 1. Tests only. */
void mem_fail_at(long nth, int on);


/* Allocations asked for since mem_fail_at(); blocks not freed yet, and their
 * bytes as the system rounds them up. */
long mem_asked(void);
long mem_live(void);
long mem_live_bytes(void);

#endif
