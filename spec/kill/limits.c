/* limits: what limits promise, over real processes at full speed.
 *
 *   1. Slots: four processes claim on rows of two nodes for three tenants and
 *      two models. Counters beside the zone say how many are inside each
 *      scope: never more than its limit.
 *   2. Rates: requests and tokens of the router and of each tenant, recorded
 *      by all processes and merged. In every window of the run, from any
 *      booking to any other: booked - given back <= rate * t + burst. And
 *      what was really used <= rate * T + burst + in flight at the end.
 *   3. Deaths: of a process that is killed with -9 the slots, and the tokens
 *      that were booked and not spent, are there again by the second tick.
 *   4. Retries: at most a fifth of the first sends and the reserve.
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
#include "window.h"

enum { PROCESSES = 4, HELD = 6, TENANTS = 3, MODELS = 2, ROWS = 3,
       RECORDS = 400000 };

#define HAIR 1.1e-6                  /* seconds: src/limit/gcra.h, its law */

/* What there is at most: router, tenants, models, nodes, keys. */
enum { ROUTER, TENANT, MODEL = TENANT + TENANTS, NODE = MODEL + MODELS,
       KEY = NODE + 2, SCOPES = KEY + ROWS };

struct inside { uint32_t now, most; };

struct shared {                     /* all processes', outside the zone */
  struct inside scopes[SCOPES];
  uint64_t admitted;
  uint32_t ready;                   /* children that hold what they should */
  uint32_t sends, retries;
  uint32_t used[PROCESSES];         /* of `of` */
  struct window_event of[PROCESSES][RECORDS];
};

struct setup {                      /* of one part */
  drover_limit router, tenant, model, node, key;
  uint64_t total;                   /* admissions of each process, or 0 */
  double   seconds;
  int      record, settles;         /* settles: more or less than booked */
};

static int passed, failed;
static const drover_outcome nothing = { .code = DROVER_ECANCELLED,
                                        .first_token_ms = NAN,
                                        .token_ms = NAN };


static void check(int ok, const char *what) {
  ok ? passed++ : failed++;
  if (!ok)
    printf("not ok: %s\n", what);
}


/* Rows 1 and 2 are one node with two keys, row 3 is another. */
static drover_router *open_router(const struct setup *setup) {
  drover_router *r = NULL;
  drover_err err;
  drover_router_config c = { .name = "limits", .create = 1, .concurrent = 1000,
                             .members_max = 32, .tickets_max = 64 };
  if (drover_router_open(&r, &c, &err)) {
    printf("%s\n", err.text);
    exit(1);
  }
  for (int i = 1; i <= ROWS; i++) {
    char id[16], url[32];
    snprintf(id, sizeof id, "n%d", i);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", 9000 + i);
    drover_node_config n = { .id = id, .url = url, .capacity = 500,
                             .weight = 1, .memory_gb = NAN,
                             .price_input = NAN, .price_output = NAN,
                             .group = i == ROWS ? 2 : 1,
                             .limit_node = setup->node,
                             .limit_key = setup->key };
    if (drover_node_add(r, &n, 1, &err) < 1)
      exit(1);
  }
  return r;
}


/* ---- inside ---- */

static void scopes_of(const drover_pick *p, uint32_t row, uint32_t out[5]) {
  out[0] = ROUTER;
  out[1] = TENANT + (uint32_t)p->key - 1;
  out[2] = MODEL + (uint32_t)p->model - 1;
  out[3] = NODE + (row == ROWS);
  out[4] = KEY + row - 1;
}


static void move(struct shared *s, const drover_pick *p, uint32_t row, int by) {
  uint32_t of[5];
  scopes_of(p, row, of);
  for (int i = 0; i < 5; i++) {
    struct inside *in = &s->scopes[of[i]];
    uint32_t now = __atomic_add_fetch(&in->now, (uint32_t)by, __ATOMIC_SEQ_CST);
    uint32_t most = __atomic_load_n(&in->most, __ATOMIC_RELAXED);
    while (by > 0 && now > most &&
           !__atomic_compare_exchange_n(&in->most, &most, now, 0,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      ;
  }
}


/* ---- a process that claims and settles ---- */

struct work {
  drover_router *r;
  struct shared *s;
  const struct setup *setup;
  struct rand_state rnd;
  drover_pick held[HELD];
  struct window_event *event[HELD]; /* of what is held; NULL: not recorded */
  uint32_t row[HELD];
  int me;
};


static void begin(struct work *w, int i) {
  drover_pick *p = &w->held[i];
  double now = drover_clock();
  drover_pick_reset(p);
  p->key = rand_next(&w->rnd) % TENANTS + 1;
  p->model = rand_next(&w->rnd) % MODELS + 1;
  p->prompt_tokens = (uint32_t)(rand_next(&w->rnd) % 100);
  p->max_tokens = (uint32_t)(rand_next(&w->rnd) % 100);
  p->paid = 0;
  p->limits[0] = &w->setup->router;
  p->limits[1] = &w->setup->tenant;
  p->limits[2] = &w->setup->model;
  if (drover_pick_node(w->r, p, now, rand_unit(&w->rnd), NULL))
    return;
  double after = drover_clock();
  w->row[i] = p->node;
  move(w->s, p, p->node, 1);
  drover_ticket_sent(w->r, p);
  __atomic_add_fetch(&w->s->admitted, 1, __ATOMIC_RELAXED);
  w->event[i] = NULL;
  uint32_t *used = &w->s->used[w->me];
  if (w->setup->record && *used < RECORDS) {
    w->event[i] = &w->s->of[w->me][(*used)++];
    *w->event[i] = (struct window_event){
      .at = now, .after = after, .tenant = (uint32_t)p->key,
      .booked = p->prompt_tokens + p->max_tokens };
  }
}


/* A third used what was booked, a third less, a third up to twice that. */
static void end(struct work *w, int i) {
  drover_pick *p = &w->held[i];
  uint32_t booked = p->prompt_tokens + p->max_tokens, real = booked;
  drover_outcome o = { .first_token_ms = 5, .token_ms = 1, .dollars = NAN };
  uint64_t draw = rand_next(&w->rnd) % 3;
  if (w->setup->settles && draw && booked)
    real = (uint32_t)(rand_next(&w->rnd) % booked) + (draw == 2 ? booked : 0);
  o.tokens = real;
  move(w->s, p, w->row[i], -1);
  double before = drover_clock();
  drover_ticket_done(w->r, p, &o, before);
  if (w->event[i]) {
    w->event[i]->settle_from = before;
    w->event[i]->settle_till = drover_clock();
    w->event[i]->real = real;
  }
}


static void work(struct work *w) {
  double until = drover_clock() + w->setup->seconds;
  uint64_t from = w->s->admitted;
  for (uint64_t turn = 0; ; turn++) {
    if (w->setup->total ? w->s->admitted - from >= w->setup->total
                        : w->setup->seconds > 0 && drover_clock() >= until)
      break;
    int i = (int)(rand_next(&w->rnd) % HELD);
    if (w->held[i].ticket)
      end(w, i);
    else
      begin(w, i);
  }
  for (int i = 0; i < HELD; i++)
    if (w->held[i].ticket)
      end(w, i);
}


static pid_t spawn(drover_router *r, struct shared *s,
                   const struct setup *setup, int me) {
  pid_t pid = fork();
  if (pid != 0)
    return pid;
  struct work *w = calloc(1, sizeof *w);
  w->r = r;
  w->s = s;
  w->setup = setup;
  w->me = me;
  w->rnd = (struct rand_state){ (uint64_t)me * 77 + 5 };
  work(w);
  drover_router_close(r);
  _exit(0);
}


static int run_all(drover_router *r, struct shared *s,
                   const struct setup *setup) {
  int status, clean = 0;
  for (int i = 0; i < PROCESSES; i++)
    spawn(r, s, setup, i);
  while (wait(&status) > 0)
    clean += status == 0;
  return clean == PROCESSES;
}


/* ---- 1. slots ---- */

static void slots(struct shared *s, uint64_t total) {
  struct setup setup = {
    .router = { .concurrent = 11 }, .tenant = { .concurrent = 5 },
    .model = { .concurrent = 7 }, .node = { .concurrent = 8 },
    .key = { .concurrent = 5 }, .total = total };
  const uint32_t limits[SCOPES] = { 11, 5, 5, 5, 7, 7, 8, 8, 5, 5, 5 };
  drover_router *r = open_router(&setup);
  check(run_all(r, s, &setup), "every process ended by itself");
  for (int i = 0; i < SCOPES; i++) {
    check(s->scopes[i].most <= limits[i], "no scope's slots were passed");
    check(s->scopes[i].now == 0, "and all are empty");
  }
  check(s->scopes[ROUTER].most == 11, "the router's were all used");
  check(drover_inflight(r, 0) == 0, "nothing is in flight");
  printf("slots: %llu admissions, most inside",
         (unsigned long long)s->admitted);
  for (int i = 0; i < SCOPES; i++)
    printf(" %u/%u%s", s->scopes[i].most, limits[i],
           i + 1 < SCOPES ? "" : "\n");
  drover_router_close(r);
}


/* ---- 2. rates ---- */

static void judge(const struct window_event *e, size_t n, uint32_t tenant,
                  const drover_limit *l) {
  struct window_sum sum = window_check(e, n, tenant, l);
  printf("rates: %s %u: %zu bookings in %.2f s; at most %.1f of %u requests "
         "and %.1f of %u tokens above the rate, real %.0f of %.0f tokens\n",
         tenant ? "tenant" : "router", tenant, sum.count, sum.seconds,
         sum.requests_above, l->burst_requests, sum.tokens_above,
         l->burst_tokens, sum.real, sum.real_max);
  check(sum.requests_above <= l->burst_requests + l->rpm / 60.0 * HAIR,
        "requests in every window: rate * t + burst");
  check(sum.tokens_above <= l->burst_tokens + l->tpm / 60.0 * HAIR,
        "tokens in every window: rate * t + burst");
  check(sum.requests_above > 0.5 * l->burst_requests
        || sum.tokens_above > 0.5 * l->burst_tokens, "the limit was met");
  check(sum.real <= sum.real_max, "what was used is paid for");
}


static void rates(struct shared *s, double seconds, int settles) {
  struct setup setup = {
    .router = { .rpm = 900000, .tpm = 60000000, .burst_requests = 150,
                .burst_tokens = 9000 },
    .tenant = { .rpm = 360000, .tpm = 30000000, .burst_requests = 61,
                .burst_tokens = 4001 },
    .seconds = seconds, .record = 1, .settles = settles };
  drover_router *r = open_router(&setup);
  memset(s->used, 0, sizeof s->used);
  check(run_all(r, s, &setup), "every process ended by itself");
  size_t n = 0;
  struct window_event *all = calloc(PROCESSES * (size_t)RECORDS, sizeof *all);
  for (int i = 0; i < PROCESSES; i++) {
    check(s->used[i] < RECORDS, "all were recorded");
    memcpy(all + n, s->of[i], s->used[i] * sizeof *all);
    n += s->used[i];
  }
  judge(all, n, 0, &setup.router);
  for (uint32_t t = 1; t <= TENANTS; t++)
    judge(all, n, t, &setup.tenant);
  free(all);
  drover_router_close(r);
}


/* ---- 3. deaths ---- */

static int claim(drover_router *r, drover_pick *p, const struct setup *setup,
                 uint32_t prompt, uint32_t most) {
  *p = (drover_pick){ .key = 1, .model = 1, .prompt_tokens = prompt,
                      .max_tokens = most };
  p->limits[0] = &setup->router;
  p->limits[1] = &setup->tenant;
  p->limits[2] = &setup->model;
  return drover_pick_node(r, p, 1000, 0.5, NULL);
}


/* Ten of 30 + 70 tokens, half of them sent, then wait to be killed. */
static pid_t holder(drover_router *r, struct shared *s,
                    const struct setup *setup) {
  pid_t pid = fork();
  if (pid != 0)
    return pid;
  drover_pick p[10];
  for (int i = 0; i < 10; i++)
    if (claim(r, &p[i], setup, 30, 70) == 0) {
      __atomic_add_fetch(&s->ready, 1, __ATOMIC_SEQ_CST);
      if (i % 2)
        drover_ticket_sent(r, &p[i]);
    }
  __atomic_add_fetch(&s->ready, 100, __ATOMIC_SEQ_CST);
  for (;;)
    pause();
}


static void kill_holder(struct shared *s, pid_t pid) {
  while (__atomic_load_n(&s->ready, __ATOMIC_SEQ_CST) < 100)
    usleep(200);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}


/* How many tokens pass now, at a time that stands still. */
static uint32_t tokens_left(drover_router *r, const struct setup *setup) {
  uint32_t low = 0, high = 1000;
  while (low < high) {
    drover_pick p;
    uint32_t middle = (low + high + 1) / 2;
    if (claim(r, &p, setup, middle, 0) == 0) {
      drover_ticket_done(r, &p, &nothing, 1000);
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}


static void deaths(struct shared *s) {
  struct setup setup = {
    .router = { .concurrent = 10, .tpm = 60, .burst_tokens = 1000 },
    .tenant = { .concurrent = 10, .tpm = 60, .burst_tokens = 1000,
                .rpm = 60, .burst_requests = 10 },
    .model = { .concurrent = 10 }, .node = { .concurrent = 10 },
    .key = { .concurrent = 10 } };
  drover_totals totals;
  drover_pick p;
  drover_router *r = open_router(&setup);
  check(tokens_left(r, &setup) == 1000, "all tokens are there at first");
  pid_t pid = holder(r, s, &setup);
  kill_holder(s, pid);
  check(s->ready == 110, "ten were held");
  check(claim(r, &p, &setup, 0, 0) != 0, "a dead one's slots are not free");
  drover_tick(r, 1000);
  drover_tick(r, 1000);
  drover_router_totals(r, &totals, 1000);
  check(drover_inflight(r, 0) == 0 && totals.reserved_tokens == 0,
        "by the second tick nothing is held");
  check(tokens_left(r, &setup) == 5 * 100 + 5 * 70, "tokens: those of what was "
        "not sent, and the output of what was");
  s->ready = 0;
  pid = holder(r, s, &setup);
  kill_holder(s, pid);
  check(s->ready == 105, "of ten slots and ten requests five are there again");
  drover_router_close(r);
}


/* How many slots there are for so many tenants and models in turn. */
static uint32_t fill(drover_router *r, const struct setup *setup,
                     uint32_t tenants, uint32_t models) {
  drover_pick p[32];
  uint32_t n = 0;
  for (int refused = 0; !refused && n < 32; n += !refused) {
    p[n] = (drover_pick){ .key = n % tenants + 1, .model = n % models + 1 };
    p[n].limits[0] = &setup->router;
    p[n].limits[1] = &setup->tenant;
    p[n].limits[2] = &setup->model;
    refused = drover_pick_node(r, &p[n], drover_clock(), 0.5, NULL) != 0;
  }
  for (uint32_t i = 0; i < n; i++)
    drover_ticket_done(r, &p[i], &nothing, drover_clock());
  return n;
}


/* Kills at random points of claims and settlings. */
static void storm(struct shared *s, int kills) {
  struct setup setup = {
    .router = { .concurrent = 11, .tpm = 4000000000 },
    .tenant = { .concurrent = 5, .tpm = 4000000000, .rpm = 60000000 },
    .model = { .concurrent = 7 }, .node = { .concurrent = 8 },
    .key = { .concurrent = 5 }, .settles = 1 };
  drover_router *r = open_router(&setup);
  struct rand_state rnd = { 4 };
  drover_totals totals;
  int left = 0, hit = 0;
  for (int n = 0; n < kills; n += PROCESSES) {
    pid_t pid[PROCESSES];
    for (int i = 0; i < PROCESSES; i++)
      pid[i] = spawn(r, s, &setup, i + n);
    usleep((useconds_t)(500 + rand_next(&rnd) % 2500));
    for (int i = 0; i < PROCESSES; i++)
      kill(pid[i], SIGKILL);
    for (int i = 0; i < PROCESSES; i++)
      waitpid(pid[i], NULL, 0);
    hit += drover_inflight(r, 0) > 0;
    drover_tick(r, drover_clock());
    drover_tick(r, drover_clock());
    drover_router_totals(r, &totals, drover_clock());
    left += drover_inflight(r, 0) != 0 || totals.reserved_tokens != 0;
  }
  check(hit > kills / PROCESSES / 4, "kills hit what was held");
  check(left == 0, "nothing was held by the second tick");
  check(fill(r, &setup, 1, 1) == 5, "a tenant has all of its slots");
  check(fill(r, &setup, TENANTS, 1) == 7, "a model has all of its slots");
  check(fill(r, &setup, TENANTS, MODELS) == 11, "and so has the router");
  printf("deaths: %d kills, %d of %d times with something held\n", kills, hit,
         kills / PROCESSES);
  drover_router_close(r);
}


/* ---- 4. retries ---- */

static void retry_all_the_time(drover_router *r, struct shared *s,
                               double seconds) {
  static const struct setup none;
  double until = drover_clock() + seconds;
  uint32_t sends = 0, retries = 0;
  while (drover_clock() < until) {
    drover_pick p;
    if (claim(r, &p, &none, 0, 0))
      continue;
    p.now = drover_clock();
    drover_ticket_sent(r, &p);
    drover_ticket_done(r, &p, &nothing, p.now);
    sends++;
    for (int i = 0; i < 2; i++)
      retries += drover_retry_take(r, drover_clock()) == 1;
  }
  __atomic_add_fetch(&s->sends, sends, __ATOMIC_SEQ_CST);
  __atomic_add_fetch(&s->retries, retries, __ATOMIC_SEQ_CST);
  _exit(0);
}


static void retries(struct shared *s, double seconds) {
  struct setup setup = { .seconds = 0 };
  drover_router *r = open_router(&setup);
  for (int i = 0; i < PROCESSES; i++)
    if (fork() == 0)
      retry_all_the_time(r, s, seconds);
  while (wait(NULL) > 0)
    ;
  printf("retries: %u sends, %u retries\n", s->sends, s->retries);
  check(s->sends > 1000, "many were sent");
  check(s->retries <= 0.2 * s->sends + 10, "attempts <= 1.2 * requests + 10");
  check(s->retries >= 0.19 * s->sends, "and as many as that are allowed");
  drover_router_close(r);
}


int main(int argc, char **argv) {
  int brief = argc > 1 && strcmp(argv[1], "--short") == 0;
  struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (s == MAP_FAILED)
    return 1;
  slots(s, brief ? 200000 : 2000000);
  rates(s, brief ? 1 : 5, 0);
  rates(s, brief ? 1.5 : 8, 1);
  deaths(s);
  storm(s, brief ? 100 : 1000);
  retries(s, brief ? 0.7 : 4);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
