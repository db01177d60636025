/* queue: the kill proof of waiting, over real processes: four of them ask for
 * two slots, wait, are called, claim, settle, tick; one after the other is
 * killed at a random point, 1,000 in all (100 with --short), and replaced.
 * The others go on behind each kill. At the end all are killed: two ticks
 * later the queue is empty, nothing is in flight, and a request that waits is
 * called as ever.
 *
 * Prints `N passed, N failed`.
 *
 * SPDX-License-Identifier: MIT */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rand.h"
#include "drover.h"

enum { PROCESSES = 4, SLOTS = 2, KILLS = 1000, STEP = 20, PATIENCE = 20 };
#define TICK 0.005                  /* seconds: what a dead one keeps comes back
                                     * soon, so that kills are many */

struct seen {                       /* shared, outside the zone */
  uint64_t done, waits;
};

static int passed, failed;


static void check(int ok, const char *what) {
  ok ? passed++ : failed++;
  if (!ok)
    printf("not ok: %s\n", what);
}


static drover_router *open_router(void) {
  drover_router *r = NULL;
  drover_err err;
  drover_router_config c = { .name = "kill", .create = 1, .members_max = 16,
                             .queue_max = 16 };
  drover_node_config n = { .id = "n", .url = "http://127.0.0.1",
                           .capacity = SLOTS, .weight = 1, .memory_gb = NAN };
  if (drover_router_open(&r, &c, &err) ||
      drover_node_add(r, &n, drover_clock(), &err) < 1) {
    printf("%s\n", err.text);
    exit(1);
  }
  return r;
}


/* Until it is called and has claimed. */
static void wait_turn(drover_router *r, drover_port *port, drover_pick *p) {
  drover_wait w = { .call = 1, .deadline = INFINITY };
  drover_event ev;
  if (drover_wait_begin(r, port, p, &w, drover_clock(), NULL))
    return;
  for (;;) {
    drover_port_wait(port, TICK);
    while (drover_port_next(port, &ev))
      ;
    if (drover_wait_called(r, &w) != 1) {
      drover_tick(r, drover_clock());
      continue;
    }
    p->called = 1;
    int rc = drover_pick_node(r, p, drover_clock(), 0.5, NULL);
    p->called = 0;
    if (rc == 0)
      break;
    drover_wait_again(r, p, &w, drover_clock());
  }
  drover_wait_end(r, &w, drover_clock());
}


/* One request. 1 when it waited. */
static int request(drover_router *r, drover_port *port,
                   struct rand_state *rnd) {
  drover_outcome o = { .first_token_ms = NAN, .token_ms = NAN };
  drover_pick p;
  memset(&p, 0, sizeof p);
  p.key = rand_next(rnd) % 3;
  p.priority = (uint32_t)(rand_next(rnd) % 3);
  p.prompt_tokens = 1 + (uint32_t)(rand_next(rnd) % 50);
  int waited = drover_pick_node(r, &p, drover_clock(), 0.5, NULL) != 0;
  while (!p.ticket)                 /* again when the queue is full */
    wait_turn(r, port, &p);
  if (rand_next(rnd) % 4 == 0)
    usleep((useconds_t)(rand_next(rnd) % 300));
  drover_ticket_sent(r, &p);
  drover_ticket_done(r, &p, &o, drover_clock());
  return waited;
}


static void work(drover_router *r, struct seen *s, uint64_t seed) {
  struct rand_state rnd = { seed };
  drover_port *port;
  if (drover_port_open(&port, NULL))
    _exit(1);
  for (;;) {
    int waited = request(r, port, &rnd);
    __atomic_add_fetch(&s->waits, (uint64_t)waited, __ATOMIC_RELAXED);
    __atomic_add_fetch(&s->done, 1, __ATOMIC_RELAXED);
  }
}


static pid_t spawn(drover_router *r, struct seen *s, uint64_t seed) {
  pid_t pid = fork();
  if (pid == 0) {
    work(r, s, seed);
    _exit(0);
  }
  return pid;
}


/* 1 when so many requests more have ended before long. */
static int go_on(const struct seen *s, uint64_t more) {
  uint64_t from = __atomic_load_n(&s->done, __ATOMIC_RELAXED);
  double till = drover_clock() + PATIENCE;
  while (__atomic_load_n(&s->done, __ATOMIC_RELAXED) < from + more) {
    if (drover_clock() > till)
      return 0;
    usleep(200);
  }
  return 1;
}


static void kills(drover_router *r, struct seen *s, int count) {
  struct rand_state rnd = { 20 };
  pid_t pid[PROCESSES];
  int stuck = 0;
  for (int i = 0; i < PROCESSES; i++)
    pid[i] = spawn(r, s, rand_next(&rnd));
  for (int n = 0; n < count && !stuck; n++) {
    int i = (int)(rand_next(&rnd) % PROCESSES);
    usleep((useconds_t)(rand_next(&rnd) % 2000));
    kill(pid[i], SIGKILL);
    waitpid(pid[i], NULL, 0);
    pid[i] = spawn(r, s, rand_next(&rnd));
    stuck = !go_on(s, STEP);
  }
  check(!stuck, "the others go on behind a kill");
  for (int i = 0; i < PROCESSES; i++) {
    kill(pid[i], SIGKILL);
    waitpid(pid[i], NULL, 0);
  }
  drover_tick(r, drover_clock());
  drover_tick(r, drover_clock());
}


/* One holds each slot, another waits: does it go when one ends? */
static int works(drover_router *r) {
  drover_outcome o = { .first_token_ms = NAN, .token_ms = NAN };
  drover_wait w = { .call = 1, .deadline = INFINITY };
  drover_pick held[SLOTS], p;
  drover_port *port;
  memset(held, 0, sizeof held);
  memset(&p, 0, sizeof p);
  int right = drover_port_open(&port, NULL) == 0;
  for (int i = 0; i < SLOTS; i++)
    right = right && !drover_pick_node(r, &held[i], drover_clock(), 0.5, NULL);
  right = right && drover_pick_node(r, &p, drover_clock(), 0.5, NULL) &&
          !drover_wait_begin(r, port, &p, &w, drover_clock(), NULL) &&
          !drover_ticket_done(r, &held[0], &o, drover_clock()) &&
          drover_port_wait(port, PATIENCE) &&
          drover_wait_called(r, &w) == 1;
  drover_wait_end(r, &w, drover_clock());
  for (int i = 1; i < SLOTS; i++)
    drover_ticket_done(r, &held[i], &o, drover_clock());
  drover_port_close(port);
  return right;
}


int main(int argc, char **argv) {
  int brief = argc > 1 && strcmp(argv[1], "--short") == 0;
  struct seen *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED)
    return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  drover_router *r = open_router();
  kills(r, s, brief ? KILLS / 10 : KILLS);
  check(s->waits > s->done / 10, "many of the requests waited");
  check(drover_waiting(r) == 0, "the queue is empty by the second tick");
  check(drover_inflight(r, 0) == 0, "nothing is in flight by the second tick");
  check(works(r), "a request that waits is called");
  printf("%llu requests, %llu of them waited\n", (unsigned long long)s->done,
         (unsigned long long)s->waits);
  drover_router_close(r);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
