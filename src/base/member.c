/* member: see member.h.
 *
 * SPDX-License-Identifier: MIT */
#include "member.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../drover.h"
#include "atom.h"
#include "process.h"

enum { FREE, USED, REAPED };        /* the two low bits of a word */
enum { PID_SHIFT = 2, PID_BITS = 22, START_SHIFT = 24 };
/* A lock is held for a few stores, so a yield or two is the usual wait;
 * after each LOCK_LOOK of them the holder is looked for, which takes
 * system calls (member_alive()). */
enum { LOCK_TRIES = 600, LOCK_LOOK = 200 };

struct proc_stat {
  char     state;                   /* 'Z': dead, its parent has not waited */
  long     threads;
  uint64_t start;                   /* clock ticks since boot */
};


static uint64_t word_of(int pid, uint64_t start, int state) {
  uint64_t bits = (uint64_t)pid & ((1u << PID_BITS) - 1);
  return start << START_SHIFT | bits << PID_SHIFT | (uint64_t)state;
}


static int pid_of(uint64_t word) {
  return (int)(word >> PID_SHIFT & ((1u << PID_BITS) - 1));
}


/* Fields 3, 20 and 22 of /proc/PID/stat; the name in field 2 may hold spaces
 * and parentheses, so they are counted from the last one. */
static int read_stat(int pid, struct proc_stat *out) {
  char path[32], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0)
    return -1;
  text[got] = '\0';
  char *at = strrchr(text, ')');
  if (!at || at[1] != ' ')
    return -1;
  out->state = at[2];
  at += 2;
  for (int field = 3; field < 22 && at; field++) {
    if (field == 20)
      out->threads = strtol(at, NULL, 10);
    at = strchr(at, ' ');
    at = at ? at + 1 : NULL;
  }
  if (!at)
    return -1;
  out->start = strtoull(at, NULL, 10);
  return 0;
}


/* The kernel's start time makes the word unique: a pid alone comes back
 * when the kernel's numbers wrap, and a restarted worker would be taken for
 * its dead predecessor. */
uint64_t member_self(void) {
  struct proc_stat s = { 0 };
  int pid = process_pid();
  if (read_stat(pid, &s) != 0)
    s.start = 0;                    /* no /proc: the pid alone has to do */
  return word_of(pid, s.start, USED);
}


/* ESRCH from kill() is the cheap answer and comes first. Where /proc is
 * hidden (hidepid) the pid alone decides: then a reused pid reads as alive,
 * which delays the reaping and never reaps the living. The start time is
 * compared as far as a word keeps it, 40 bits. */
int member_alive(uint64_t word, uint64_t self) {
  int pid = pid_of(word);
  uint64_t start = word >> START_SHIFT;
  if (pid == pid_of(self))
    return start == self >> START_SHIFT;
  if (kill(pid, 0) != 0 && errno == ESRCH)
    return 0;
  struct proc_stat s = { 0 };
  if (read_stat(pid, &s) != 0)
    return kill(pid, 0) == 0 || errno != ESRCH;
  /* A first thread that ended while others go on reads as Z too. */
  if ((s.state == 'Z' || s.state == 'X') && s.threads <= 1)
    return 0;
  return start == 0 || word_of(0, s.start, 0) == word_of(0, start, 0);
}


/* Acquire pairs with the release in member_leave(): who gets a slot sees what
 * the last owner, or its reaper, left there. */
static int swap(uint64_t *word, uint64_t from, uint64_t to) {
  return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED);
}


/* Slots are taken from the low end, so that `top`, and with it the length of
 * each sum over the members, stays near the number really in use. The winner
 * raises `top` before its first claim: see limit/cells.h. */
int member_claim(const struct member_table *t, uint64_t self) {
  for (uint32_t i = 0; i < t->count; i++)
    if (atom_get_u64(&t->words[i]) == 0 && swap(&t->words[i], 0, self)) {
      atom_raise_u32(t->top, i + 1);
      return (int)i;
    }
  return DROVER_ERESOURCE;
}


void member_leave(const struct member_table *t, int slot) {
  __atomic_store_n(&t->words[slot], 0, __ATOMIC_RELEASE);
}


/* The word is swapped for the reaper's own with the state REAPED, not for 0:
 * nobody may claim the slot until its cells and tickets are taken back, and
 * if the reaper dies on the way its own death hands the slot to the next. */
int member_reap(const struct member_table *t, uint64_t self, uint32_t from) {
  uint32_t top = atom_get_u32(t->top);
  uint64_t mine = (self & ~(uint64_t)3) | REAPED;
  for (uint32_t i = from; i < top; i++) {
    uint64_t word = atom_get_u64(&t->words[i]);
    if (word && !member_alive(word, self) && swap(&t->words[i], word, mine))
      return (int)i;
  }
  return MEMBER_NONE;
}


/* Slots that are being reaped count too: something still hangs on them. */
uint32_t member_count(const struct member_table *t) {
  uint32_t used = 0, top = atom_get_u32(t->top);
  for (uint32_t i = 0; i < top; i++)
    used += atom_get_u64(&t->words[i]) != 0;
  return used;
}


/* 0 after LOCK_TRIES: the holder lives and is slow (stopped, swapped out),
 * and the caller must be able to say so rather than wait for it. Taking over
 * compares against the dead holder's word, so of two who see it dead one
 * gets the lock. Acquire (of the swap) pairs with member_unlock(). */
int member_lock(uint64_t *word, uint64_t self) {
  for (int i = 1; i <= LOCK_TRIES; i++) {
    if (swap(word, 0, self))
      return 1;
    uint64_t holder = atom_get_u64(word);
    if (i % LOCK_LOOK == 0 && holder && !member_alive(holder, self) &&
        swap(word, holder, self))
      return 1;
    sched_yield();
  }
  return 0;
}


void member_unlock(uint64_t *word) {
  __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}
