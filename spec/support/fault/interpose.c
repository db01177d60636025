/* interpose: an LD_PRELOAD library for specs. FAULT_SYSTEM says what the
 * system does to the process:
 *
 *   short    reads and writes of sockets take one byte; one in three calls of
 *            those, and of epoll_wait and poll, is EINTR
 *   clock    the wall clock jumps: an hour ahead, an hour back, past 2038
 *
 * SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static __thread unsigned turn;          /* of this thread's calls */


static int is_mode(const char *word) {
  const char *mode = getenv("FAULT_SYSTEM");
  return mode && strcmp(mode, word) == 0;
}


/* Once in three times: interrupted. */
static int interrupted(void) {
  turn = turn * 1664525u + 1013904223u;
  if (!is_mode("short") || (turn >> 16) % 3)
    return 0;
  errno = EINTR;
  return 1;
}


static size_t one(size_t size) {
  return is_mode("short") && size > 1 ? 1 : size;
}


#define NEXT(name) (*(__typeof__(name) **)next(#name))

static void **next(const char *name) {
  static __thread void *found;
  found = dlsym(RTLD_NEXT, name);
  return &found;
}


ssize_t recv(int fd, void *to, size_t size, int flags) {
  return interrupted() ? -1 : NEXT(recv)(fd, to, one(size), flags);
}


ssize_t send(int fd, const void *from, size_t size, int flags) {
  return interrupted() ? -1 : NEXT(send)(fd, from, one(size), flags);
}


/* Of eventfds and sockets; files are left alone. */
ssize_t read(int fd, void *to, size_t size) {
  return size == 8 && interrupted() ? -1 : NEXT(read)(fd, to, size);
}


ssize_t write(int fd, const void *from, size_t size) {
  return size == 8 && interrupted() ? -1 : NEXT(write)(fd, from, size);
}


int epoll_wait(int fd, struct epoll_event *events, int count, int ms) {
  return interrupted() ? -1 : NEXT(epoll_wait)(fd, events, count, ms);
}


int poll(struct pollfd *fds, nfds_t count, int ms) {
  return interrupted() ? -1 : NEXT(poll)(fds, count, ms);
}


/* ---- the wall clock ---- */

static time_t jump(void) {
  static const time_t jumps[] = { 3600, -3600, 500000000, 0 };
  turn = turn * 1664525u + 1013904223u;
  return is_mode("clock") ? jumps[(turn >> 16) % 4] : 0;
}


int clock_gettime(clockid_t clock, struct timespec *out) {
  int rc = NEXT(clock_gettime)(clock, out);
  if (clock == CLOCK_REALTIME)
    out->tv_sec += jump();
  return rc;
}


int gettimeofday(struct timeval *restrict out, void *restrict zone) {
  struct timespec t;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &t);
  out->tv_sec = t.tv_sec;
  out->tv_usec = t.tv_nsec / 1000;
  return 0;
}


time_t time(time_t *out) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (out)
    *out = t.tv_sec;
  return t.tv_sec;
}
