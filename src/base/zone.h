/* zone: one anonymous shared mapping with a stamped first line and spans
 * behind it, found again by name (base/process keeps the names). It knows no
 * span's inside. Numbers and offsets only, no pointers: a process forked
 * later may see it elsewhere.
 *
 *   | magic stamp size id salt | offsets of the spans | span 0 | span 1 | …
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_BASE_ZONE_H
#define DROVER_BASE_ZONE_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"

enum { ZONE_SPANS_MAX = 16 };

struct zone {                       /* the head of the mapping */
  uint64_t magic;
  uint64_t stamp;                   /* the build's layout: sizes and ABI */
  uint64_t size;                    /* of the whole mapping, bytes */
  uint64_t id;                      /* random: names what hangs on this zone */
  uint64_t salt;                    /* random: identities are hashed with it */
  uint64_t count;                   /* of the spans */
  uint64_t offset[ZONE_SPANS_MAX];  /* from the head, cache-line aligned */
};


/* Map `count` spans of the sizes given, all zero: the caller's, to be given
 * back with zone_drop() or published. Any thread. */
int zone_make(struct zone **out, uint64_t stamp, const size_t *sizes, int count,
              drover_err *err);


/* Remember a zone that is filled in by its name, for the life of the process
 * and of its children. When another thread was first with that name, the
 * caller's zone is dropped and *z is that one's. On an error it is dropped
 * too. Any thread. */
int zone_publish(struct zone **z, const char *name, drover_err *err);


/* The zone of that name, and the pid that made it. DROVER_ENOTFOUND when
 * there is none, DROVER_EFORMAT when it is of another layout. Any thread. */
int zone_find(struct zone **out, const char *name, uint64_t stamp, int *maker,
              drover_err *err);


/* Where span `index` begins in this process. */
void *zone_span(struct zone *z, int index);


/* Unmap a zone that was not published. Takes NULL. */
void zone_drop(struct zone *z);

#endif
