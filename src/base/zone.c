/* zone: see zone.h. The mapping is made with MAP_NORESERVE: it is sized for
 * the most that may ever be used (no mapping can grow under workers that hold
 * it), and pages that nobody touches cost nothing.
 *
 * SPDX-License-Identifier: MIT */
#include "zone.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "err.h"
#include "process.h"
#include "rand.h"

#define MAGIC 0x31656e6f5a767244u   /* "DrvZone1" */

enum { LINE = 64 };


static size_t aligned(size_t size) {
  return (size + LINE - 1) & ~(size_t)(LINE - 1);
}


/* The size of the whole mapping; offsets go to `offset`. 0: it overflows. */
static size_t plan(const size_t *sizes, int count, uint64_t *offset) {
  size_t at = aligned(sizeof(struct zone));
  for (int i = 0; i < count; i++) {
    offset[i] = at;
    if (sizes[i] > SIZE_MAX / 2 - at - LINE)
      return 0;
    at += aligned(sizes[i]);
  }
  return at;
}


/* The magic says that the memory is a zone at all, the stamp that this build
 * and the one that made it agree on every struct inside: after an upgrade a
 * reloaded worker must not read old rows with new offsets. */
static int check(const struct zone *z, const char *name, size_t size,
                 uint64_t stamp, drover_err *err) {
  if (z->magic != MAGIC || z->size != size)
    return drover_fail(err, DROVER_EFORMAT, "zone \"%s\" is damaged", name);
  if (z->stamp != stamp)
    return drover_fail(err, DROVER_EFORMAT, "zone \"%s\" was made by another "
                       "build of the library: restart", name);
  return DROVER_OK;
}


/* Fresh anonymous pages are zero, and every span is made so that zero is its
 * right first state. The magic is written last, though nobody else can see
 * the zone yet: a half-made one never looks whole. */
int zone_make(struct zone **out, uint64_t stamp, const size_t *sizes, int count,
              drover_err *err) {
  uint64_t offset[ZONE_SPANS_MAX] = { 0 };
  size_t size = count <= ZONE_SPANS_MAX ? plan(sizes, count, offset) : 0;
  if (!size)
    return drover_fail(err, DROVER_ETOOLARGE, "a zone of that size cannot be");
  struct zone *z = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (z == MAP_FAILED)
    return drover_fail(err, DROVER_ENOMEM, "cannot map a zone of %zu bytes: %s",
                       size, strerror(errno));
  z->stamp = stamp;
  z->size = size;
  z->id = rand_entropy();
  z->salt = rand_entropy();
  z->count = (uint64_t)count;
  memcpy(z->offset, offset, sizeof offset);
  z->magic = MAGIC;
  *out = z;
  return DROVER_OK;
}


/* Adding and looking again is enough without a lock over both: the table
 * gives the first entry of the name to everybody, also to the loser of a
 * race, whose zone has no second user yet and can be dropped. */
int zone_publish(struct zone **z, const char *name, drover_err *err) {
  struct zone *made = *z;
  uint64_t stamp = made->stamp;
  int rc = process_zone_add(name, made, made->size);
  if (rc) {
    zone_drop(made);
    return drover_fail(err, rc, "zone \"%s\": a process has %d zones at most",
                       name, PROCESS_ZONES_MAX);
  }
  struct zone *first = process_zone_find(name, NULL, NULL);
  if (first == made)
    return DROVER_OK;
  process_zone_drop(made);
  zone_drop(made);
  *z = first;
  return check(first, name, first->size, stamp, err);
}


/* `size` is what this process remembered when it mapped the zone; the head
 * in shared memory must agree, or something has written over it. */
int zone_find(struct zone **out, const char *name, uint64_t stamp, int *maker,
              drover_err *err) {
  size_t size = 0;
  struct zone *z = process_zone_find(name, &size, maker);
  if (!z)
    return drover_fail(err, DROVER_ENOTFOUND, "no zone \"%s\" was made", name);
  *out = z;
  return check(z, name, size, stamp, err);
}


/* `index` is the hall's enum, never out of a file or the network: unchecked. */
void *zone_span(struct zone *z, int index) {
  return (char *)z + z->offset[index];
}


void zone_drop(struct zone *z) {
  if (z)
    munmap(z, z->size);
}
