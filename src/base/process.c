/* process: see process.h. A lock of this process alone guards the table; it
 * is taken where routers are opened and closed, never in a request, and held
 * over a fork so that a child never finds it taken.
 *
 * SPDX-License-Identifier: MIT */
#include "process.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "../drover.h"

struct zone_entry {
  char   name[PROCESS_NAME_MAX];
  void  *map;                       /* NULL: a free entry */
  size_t size;
  int    maker;                     /* pid */
};

static struct {
  pthread_mutex_t lock;
  atomic_int pid;                   /* 0 until first asked, and after a fork */
  int hooked;                       /* the fork handlers are registered */
  struct zone_entry zones[PROCESS_ZONES_MAX];
  void *_Atomic transport;
} record = { .lock = PTHREAD_MUTEX_INITIALIZER };


/* A child gets the mutex in the state that it has at the fork, and only the
 * forking thread: taken by another one, it would stay taken for ever. */
static void before_fork(void) {
  pthread_mutex_lock(&record.lock);
}


static void after_fork(void) {
  pthread_mutex_unlock(&record.lock);
}


/* The parent's transport thread does not exist here; its memory does, and
 * stays untouched. The first call in the child starts its own. */
static void after_fork_child(void) {
  atomic_store(&record.pid, getpid());
  atomic_store(&record.transport, NULL);
  pthread_mutex_unlock(&record.lock);
}


/* pthread_atfork() cannot be undone: once a process, however many threads
 * ask first. That is also why the library is linked with -z nodelete:
 * handlers into an unmapped library would crash the next fork. */
static void hook(void) {
  pthread_mutex_lock(&record.lock);
  if (!record.hooked) {
    pthread_atfork(before_fork, after_fork, after_fork_child);
    record.hooked = 1;
  }
  atomic_store(&record.pid, getpid());
  pthread_mutex_unlock(&record.lock);
}


/* Asked in each decision (whose ticket is this?), where a system call would
 * cost more than the decision itself. Relaxed: a thread sees its own
 * process's value, because the child's handler ran before any code of the
 * child did. */
int process_pid(void) {
  int pid = atomic_load_explicit(&record.pid, memory_order_relaxed);
  if (pid)
    return pid;
  hook();
  return atomic_load_explicit(&record.pid, memory_order_relaxed);
}


/* No duplicate is looked for: zone_publish() adds first and then sees whose
 * entry comes first in the table. */
int process_zone_add(const char *name, void *map, size_t size) {
  int pid = process_pid(), rc = DROVER_ERESOURCE;
  if (strlen(name) >= PROCESS_NAME_MAX)
    return DROVER_EINVAL;
  pthread_mutex_lock(&record.lock);
  for (int i = 0; i < PROCESS_ZONES_MAX; i++) {
    struct zone_entry *z = &record.zones[i];
    if (z->map)
      continue;
    strcpy(z->name, name);
    z->map = map;
    z->size = size;
    z->maker = pid;
    rc = DROVER_OK;
    break;
  }
  pthread_mutex_unlock(&record.lock);
  return rc;
}


/* The first entry of the name counts, so that two threads which made it at
 * once agree on one. The maker tells a zone that was inherited over a fork
 * from one made here. */
void *process_zone_find(const char *name, size_t *size, int *maker) {
  void *map = NULL;
  pthread_mutex_lock(&record.lock);
  for (int i = 0; i < PROCESS_ZONES_MAX; i++) {
    const struct zone_entry *z = &record.zones[i];
    if (!z->map || strcmp(z->name, name) != 0)
      continue;
    map = z->map;
    if (size) *size = z->size;
    if (maker) *maker = z->maker;
    break;
  }
  pthread_mutex_unlock(&record.lock);
  return map;
}


/* The mapping itself may still be in use by whoever looked it up; the caller
 * knows, and unmaps. */
void process_zone_drop(void *map) {
  pthread_mutex_lock(&record.lock);
  for (int i = 0; i < PROCESS_ZONES_MAX; i++)
    if (record.zones[i].map == map)
      memset(&record.zones[i], 0, sizeof record.zones[i]);
  pthread_mutex_unlock(&record.lock);
}


void *process_transport(void) {
  return atomic_load(&record.transport);
}


void process_transport_set(void *transport) {
  process_pid();                    /* the fork handlers must be there */
  atomic_store(&record.transport, transport);
}


/* Compare-and-swap from NULL: of two threads whose first calls race, one
 * starts the transport and the other takes it. */
int process_transport_claim(void *transport) {
  void *none = NULL;
  process_pid();
  return atomic_compare_exchange_strong(&record.transport, &none, transport);
}
