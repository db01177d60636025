/* cells: the kill proof of limits and tickets, over real processes.
 *
 *   1. Four processes admit requests at limit 8, each wants up to four at a
 *      time, 5 million admissions in all (1 million with --short). A counter
 *      beside the zone says how many are inside: never more than 8.
 *   2. 1,000 kill -9 of such processes at random points. Two ticks later
 *      nothing is in flight, no ticket is open, and the books agree:
 *      attempts - lost <= bodies sent <= attempts.
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

enum { PROCESSES = 4, LIMIT = 8, HELD = 4, KILLS = 1000, NODES = 3 };

struct seen {                       /* shared, outside the zone */
  uint32_t inside;                  /* between claim and settle */
  uint32_t most;
  uint64_t admitted, bodies;
};

static int passed, failed;


static void check(int ok, const char *what) {
  ok ? passed++ : failed++;
  if (!ok)
    printf("not ok: %s\n", what);
}


static drover_router *open_router(uint32_t capacity) {
  drover_router *r = NULL;
  drover_err err;
  drover_router_config c = { .name = "kill", .create = 1, .concurrent = LIMIT,
                             .members_max = 16, .tickets_max = 64 };
  if (drover_router_open(&r, &c, &err)) {
    printf("%s\n", err.text);
    exit(1);
  }
  for (int i = 0; i < NODES; i++) {
    char id[16], url[32];
    snprintf(id, sizeof id, "n%d", i);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", 9000 + i);
    drover_node_config n = { .id = id, .url = url, .capacity = capacity,
                             .weight = 1, .memory_gb = NAN };
    if (drover_node_add(r, &n, 1, &err) < 1)
      exit(1);
  }
  return r;
}


static void enter(struct seen *s) {
  uint32_t now = __atomic_add_fetch(&s->inside, 1, __ATOMIC_RELAXED);
  uint32_t most = __atomic_load_n(&s->most, __ATOMIC_RELAXED);
  while (now > most && !__atomic_compare_exchange_n(&s->most, &most, now, 0,
                         __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    ;
  __atomic_add_fetch(&s->admitted, 1, __ATOMIC_RELAXED);
}


/* Admit and settle in random order until `quota` are admitted (never, when it
 * is 0). */
static void work(drover_router *r, struct seen *s, uint64_t quota,
                 uint64_t seed) {
  struct rand_state rnd = { seed };
  drover_pick held[HELD];
  drover_outcome ok = { .first_token_ms = 5, .token_ms = 1 };
  memset(held, 0, sizeof held);
  for (uint64_t done = 0; quota == 0 || done < quota;) {
    drover_pick *p = &held[rand_next(&rnd) % HELD];
    if (p->ticket) {
      __atomic_sub_fetch(&s->inside, 1, __ATOMIC_RELAXED);
      drover_ticket_done(r, p, &ok, 1);
      drover_pick_reset(p);
    } else if (drover_pick_node(r, p, 1, rand_unit(&rnd), NULL) == 0) {
      enter(s);
      done++;
      drover_ticket_sent(r, p);
      __atomic_add_fetch(&s->bodies, 1, __ATOMIC_RELAXED);
    }
  }
  for (int i = 0; i < HELD; i++)
    if (held[i].ticket) {
      __atomic_sub_fetch(&s->inside, 1, __ATOMIC_RELAXED);
      drover_ticket_done(r, &held[i], &ok, 1);
    }
}


static pid_t spawn(drover_router *r, struct seen *s, uint64_t quota,
                   uint64_t seed) {
  pid_t pid = fork();
  if (pid != 0)
    return pid;
  work(r, s, quota, seed);
  drover_router_close(r);
  _exit(0);
}


static void admissions(struct seen *s, uint64_t total) {
  drover_router *r = open_router(50);
  for (uint64_t i = 0; i < PROCESSES; i++)
    spawn(r, s, total / PROCESSES, i + 1);
  int status, clean = 0;
  while (wait(&status) > 0)
    clean += status == 0;
  check(clean == PROCESSES, "every process ended by itself");
  check(s->admitted == total, "all were admitted");
  check(s->most <= LIMIT, "the limit was never passed");
  check(s->most == LIMIT, "the limit was reached");
  check(drover_inflight(r, 0) == 0, "nothing is in flight at the end");
  printf("%llu admissions by %d processes, %u at most inside\n",
         (unsigned long long)s->admitted, PROCESSES, s->most);
  drover_router_close(r);
}


/* The sum of a counter's series whose line holds `part`. */
static double sum_of(drover_router *r, const char *metric, const char *part) {
  static char text[1 << 20];
  double sum = 0;
  drover_expose(r, text, sizeof text);
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
    if (strncmp(line, metric, strlen(metric)) == 0 && strstr(line, part))
      sum += strtod(strrchr(line, ' '), NULL);
  return sum;
}


static int clean(drover_router *r) {
  uint32_t left = drover_inflight(r, 0);
  for (uint32_t i = 1; i <= NODES; i++)
    left += drover_inflight(r, i) + drover_nodes(r)[i].inflight +
            drover_nodes(r)[i].inflight_tokens;
  return left == 0;
}


static void kills(struct seen *s) {
  drover_router *r = open_router(3);
  struct rand_state rnd = { 20 };
  int left = 0, lost_any = 0;
  for (int n = 0; n < KILLS; n += PROCESSES) {
    pid_t pid[PROCESSES];
    for (int i = 0; i < PROCESSES; i++)
      pid[i] = spawn(r, s, 0, rand_next(&rnd));
    usleep((useconds_t)(500 + rand_next(&rnd) % 2500));
    for (int i = 0; i < PROCESSES; i++) {
      kill(pid[i], SIGKILL);
      usleep((useconds_t)(rand_next(&rnd) % 200));
    }
    for (int i = 0; i < PROCESSES; i++)
      waitpid(pid[i], NULL, 0);
    lost_any += drover_inflight(r, 0) > 0;
    drover_tick(r, 2);
    drover_tick(r, 2);
    left += !clean(r);
  }
  double attempts = sum_of(r, "drover_attempts_total", "");
  double lost = sum_of(r, "drover_attempts_total", "kind=\"lost\"");
  check(lost_any > KILLS / PROCESSES / 4, "kills hit requests in flight");
  check(left == 0, "nothing was left by the second tick");
  check((double)s->bodies <= attempts, "no body without an attempt");
  check(attempts - lost <= (double)s->bodies, "no attempt without a body");
  printf("%d kills, %llu admissions, %llu bodies, %.0f attempts, %.0f lost\n",
         KILLS, (unsigned long long)s->admitted,
         (unsigned long long)s->bodies, attempts, lost);
  drover_router_close(r);
}


int main(int argc, char **argv) {
  int brief = argc > 1 && strcmp(argv[1], "--short") == 0;
  struct seen *s = mmap(NULL, 2 * sizeof *s, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s == MAP_FAILED)
    return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  admissions(&s[0], brief ? 1000000 : 5000000);
  kills(&s[1]);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
