/* process: the process record, the one mutable static of the library. It
 * knows the zones of this process by name, the transport (an opaque pointer
 * that the hall puts there), and whether the process was forked since.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_PROCESS_H
#define DROVER_BASE_PROCESS_H

#include <stddef.h>
#include <stdint.h>

enum { PROCESS_ZONES_MAX = 32, PROCESS_NAME_MAX = 64 };


/* This process's id, without a system call: renewed in a forked child. */
int process_pid(void);


/* Remember a mapping by name (1..63 bytes); it lives as long as the process.
 * DROVER_ERESOURCE when the table is full. */
int process_zone_add(const char *name, void *map, size_t size);


/* The mapping of that name, and the pid that made it; NULL when there is
 * none. A mapping made before the fork is found in the child. */
void *process_zone_find(const char *name, size_t *size, int *maker);


/* Forget a mapping (private zones), without unmapping it. */
void process_zone_drop(void *map);


/* One opaque pointer: the transport's. In a child it reads as NULL (the
 * parent's threads are not here). */
void *process_transport(void);
void process_transport_set(void *transport);


/* Put it there if none is. 1 when it was put, 0 when another was first. */
int process_transport_claim(void *transport);

#endif
