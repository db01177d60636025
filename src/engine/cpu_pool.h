/* cpu_pool: threads that share the chunks of one phase of a step.
 *
 * The caller is one of them. Between steps the others sleep; inside a step
 * they look for the next phase for 20 us at most before they sleep again, so a
 * host that wants its cores back gets them. Chunks are taken by an atomic
 * counter: where one core is stolen, the others do its part. Never pinned.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CPU_POOL_H
#define DROVER_ENGINE_CPU_POOL_H

#include <stdint.h>

#include "../drover.h"

enum { ENGINE_THREADS_MAX = 64 };

struct engine_pool;

/* One chunk's work; `thread` is below engine_pool_threads(), and no two run
 * with the same at once. */
typedef void (*engine_chunk_fn)(void *ctx, uint32_t chunk, uint32_t thread);


/* How many threads `wanted` means: 0 is all cores that this process may use. */
uint32_t engine_pool_count(uint32_t wanted);


/* For `threads` threads, the caller included. None is started yet: the first
 * run does, in the process that runs. */
int engine_pool_new(struct engine_pool **out, uint32_t threads,
                    drover_err *err);


/* Join. In a forked child of the process whose threads they are, memory is
 * given back and nobody is waited for. Takes NULL. */
void engine_pool_free(struct engine_pool *p);


uint32_t engine_pool_threads(const struct engine_pool *p);


/* Call fn for each chunk 0 .. chunks-1, in any order and thread; returns when
 * all are done. One caller at a time. */
void engine_pool_run(struct engine_pool *p, uint32_t chunks,
                     engine_chunk_fn fn, void *ctx);

#endif
