/* load: a bounded HTTP load generator for benchmarks and the kill test.
 *
 *   load --port P [--path /v1/chat/completions] [--body FILE] [-n 10000]
 *        [-c 32] [--warm 400] [--rate R] [--seconds 60] [--stream]
 *        [--close] [--log FILE] [--pids P,P]
 *
 * Closed loop: each of -c connections sends its next request when the last
 * is answered. With --rate: Poisson arrivals, latency from the intended
 * start. With --stream, `N@CLOCK` in each chunk gives its transit time, and
 * a stream counts only if it ends in [DONE]. With --close, one connection a
 * request, and --log writes "port status start end" for each (monotonic
 * seconds). After --seconds no new request begins. It prints one line of
 * figures; CPU is that of --pids, from /proc/PID/task/<each>/schedstat,
 * after the warm-up.
 *
 * SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNS_MAX = 4096, IN_MAX = 16384, PIDS_MAX = 16, WAIT_MAX = 1 << 20 };

#define DRAIN_NS 10000000000LL      /* for what runs when --seconds are over */

struct conn {
  int     fd;                       /* -1: closed */
  int     port, status, chunked, streaming, ended;
  long    missing;                  /* bytes of the body to come; -1: head */
  int64_t start_ns;                 /* intended */
  size_t  used;
  char    in[IN_MAX];
};

struct samples { double *us; size_t count, cap; };

struct load {
  int ep, port, conns, stream, close_each, pids[PIDS_MAX], pid_count;
  long total, warm, begun, ended, errors, chunks, waiting;
  double rate, seconds;
  const char *path;
  char  *request;
  size_t request_size, idle_count;
  int64_t next_ns, measured_ns, *arrivals;
  uint64_t cpu_ns, random;
  FILE  *log;
  struct conn *all, **idle;
  struct samples replies, transits;
};


static int64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}


static void add_sample(struct samples *s, double us) {
  if (s->count == s->cap) {
    s->cap = s->cap ? s->cap * 2 : 4096;
    s->us = realloc(s->us, s->cap * sizeof *s->us);
    if (!s->us) abort();
  }
  s->us[s->count++] = us;
}


static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}


static double quantile(struct samples *s, double q) {
  if (!s->count)
    return 0;
  qsort(s->us, s->count, sizeof *s->us, by_value);
  return s->us[(size_t)(q * (double)(s->count - 1))];
}


/* On-CPU nanoseconds of all threads of the pids. */
static uint64_t cpu_now(const struct load *l) {
  uint64_t sum = 0;
  for (int i = 0; i < l->pid_count; i++) {
    char path[320];
    snprintf(path, sizeof path, "/proc/%d/task", l->pids[i]);
    DIR *dir = opendir(path);
    for (struct dirent *d; dir && (d = readdir(dir));) {
      unsigned long long ns = 0;
      snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", l->pids[i],
               d->d_name);
      FILE *f = d->d_name[0] == '.' ? NULL : fopen(path, "r");
      if (f && fscanf(f, "%llu", &ns) == 1) sum += ns;
      if (f) fclose(f);
    }
    if (dir) closedir(dir);
  }
  return sum;
}


static int connect_conn(struct load *l, struct conn *c) {
  struct sockaddr_in a = { .sin_family = AF_INET,
                           .sin_port = htons((uint16_t)l->port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  socklen_t size = sizeof a;
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (struct sockaddr *)&a, size) && errno != EINPROGRESS)
    return -1;
  getsockname(c->fd, (struct sockaddr *)&a, &size);
  c->port = ntohs(a.sin_port);
  struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
  return epoll_ctl(l->ep, EPOLL_CTL_ADD, c->fd, &ev);
}


static void close_conn(struct conn *c) {
  if (c->fd >= 0) close(c->fd);
  c->fd = -1;
}


static void finish(struct load *l, struct conn *c, int ok);


static void begin(struct load *l, struct conn *c, int64_t start_ns) {
  c->start_ns = start_ns;
  c->status = c->chunked = c->streaming = c->ended = 0;
  c->missing = -1;
  c->used = 0;
  l->begun++;
  if (c->fd < 0 && connect_conn(l, c)) {
    finish(l, c, 0);
    return;
  }
  ssize_t n = send(c->fd, l->request, l->request_size, MSG_NOSIGNAL);
  if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) {   /* connecting */
    struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT, .data.ptr = c };
    epoll_ctl(l->ep, EPOLL_CTL_MOD, c->fd, &ev);
  } else if (n != (ssize_t)l->request_size) {
    finish(l, c, 0);
  }
}


/* The request of `c` has ended: note it; the conn is idle. */
static void finish(struct load *l, struct conn *c, int ok) {
  int64_t now = clock_ns();
  ok = ok && c->status == 200 && (!l->stream || c->ended);
  l->ended++;
  if (l->ended > l->warm) {
    l->errors += !ok;
    if (ok) add_sample(&l->replies, (double)(now - c->start_ns) / 1e3);
  }
  if (l->log)
    fprintf(l->log, "%d %d %.6f %.6f\n", c->port,
            ok ? 200 : c->status == 200 ? -1 : c->status,
            (double)c->start_ns / 1e9, (double)now / 1e9);
  if (l->ended == l->warm) {
    l->measured_ns = now;
    l->cpu_ns = cpu_now(l);
    l->chunks = 0;
  }
  if (!ok || l->close_each) close_conn(c);
  l->idle[l->idle_count++] = c;
}


/* Bytes of a stream: transit of each chunk whose clock lies in them. */
static void read_chunks(struct load *l, struct conn *c, char *from,
                        size_t size) {
  int64_t now = clock_ns();
  char kept = from[size], *at = from;
  from[size] = 0;
  while ((at = strchr(at, '@'))) {
    l->chunks++;
    if (l->ended >= l->warm)
      add_sample(&l->transits, (double)(now - atoll(at + 1)) / 1e3);
    at++;
  }
  if (strstr(from, "[DONE]")) c->ended = 1;
  from[size] = kept;
}


/* The head is in: how the body is framed. Returns its size, or -1. */
static long read_head(struct conn *c) {
  char *end = strstr(c->in, "\r\n\r\n");
  if (!end)
    return -1;
  c->status = atoi(c->in + 9);
  char *length = strcasestr(c->in, "\r\ncontent-length:");
  char *chunked = strcasestr(c->in, "\r\ntransfer-encoding: chunked");
  c->chunked = chunked && chunked < end;
  c->missing = length && length < end ? atol(length + 17) : 0;
  return end + 4 - c->in;
}


/* What has come; 1 when the reply is whole. A chunked body is whole at the
 * last-chunk line, which is looked for in the tail. */
static int take(struct load *l, struct conn *c) {
  size_t from = 0;
  c->in[c->used] = 0;
  if (c->missing < 0) {
    long head = read_head(c);
    if (head < 0)
      return 0;
    from = (size_t)head;
  }
  if (c->chunked) {
    char *end = c->in + c->used;
    int last = c->used >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5);
    char *cut = last ? end : memrchr(c->in + from, '\n', c->used - from);
    size_t whole = cut ? (size_t)(cut - c->in) : from;
    if (l->stream && whole > from)
      read_chunks(l, c, c->in + from, whole - from);
    c->used -= whole;
    memmove(c->in, c->in + whole, c->used);
    return last;
  }
  c->missing -= (long)(c->used - from);
  c->used = 0;
  return c->missing <= 0;
}


static void on_ready(struct load *l, struct conn *c, uint32_t events) {
  if (events & EPOLLOUT) {
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    epoll_ctl(l->ep, EPOLL_CTL_MOD, c->fd, &ev);
    if (send(c->fd, l->request, l->request_size, MSG_NOSIGNAL)
        != (ssize_t)l->request_size) {
      finish(l, c, 0);
      return;
    }
    if (!(events & EPOLLIN))
      return;
  }
  ssize_t n = recv(c->fd, c->in + c->used, IN_MAX - 1 - c->used, 0);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n <= 0) {
    finish(l, c, 0);
    return;
  }
  c->used += (size_t)n;
  if (take(l, c)) finish(l, c, 1);
  else if (c->used == IN_MAX - 1) finish(l, c, 0);
}


/* Start what is due; returns the nanoseconds to wait. */
static int64_t start_due(struct load *l) {
  int64_t now = clock_ns();
  while (!(l->rate > 0) && l->idle_count && l->begun < l->total)
    begin(l, l->idle[--l->idle_count], clock_ns());
  if (!(l->rate > 0))
    return 1000000000;
  while (l->next_ns <= now && l->begun + l->waiting < l->total) {
    l->random = l->random * 6364136223846793005ULL + 1442695040888963407ULL;
    l->arrivals[(l->begun + l->waiting++) % WAIT_MAX] = l->next_ns;
    double u = (double)((l->random >> 11) + 1) / 9007199254740993.0;
    l->next_ns += (int64_t)(-log(u) / l->rate * 1e9);
  }
  while (l->waiting && l->idle_count) {
    int64_t start = l->arrivals[l->begun % WAIT_MAX];
    l->waiting--;
    begin(l, l->idle[--l->idle_count], start);
  }
  int64_t left = l->next_ns - clock_ns();
  return l->begun + l->waiting >= l->total ? 1000000000 : left > 0 ? left : 0;
}


static void run(struct load *l) {
  struct epoll_event ready[256];
  l->measured_ns = l->next_ns = clock_ns();
  int64_t until = l->next_ns + (int64_t)(l->seconds * 1e9);
  l->cpu_ns = cpu_now(l);
  while (l->ended < l->total && clock_ns() < until + DRAIN_NS) {
    if (clock_ns() >= until) l->total = l->begun;
    int64_t wait = start_due(l);
    struct timespec t = { wait / 1000000000, wait % 1000000000 };
    int n = epoll_pwait2(l->ep, ready, 256, &t, NULL);
    for (int i = 0; i < n; i++) {
      struct conn *c = ready[i].data.ptr;
      if (c->fd >= 0) on_ready(l, c, ready[i].events);
    }
  }
}


static void report(struct load *l) {
  double took = (double)(clock_ns() - l->measured_ns) / 1e9;
  double cpu = (double)(cpu_now(l) - l->cpu_ns) / 1e3;
  long n = l->ended - l->warm, unanswered = l->begun - l->ended;
  printf("n=%ld err=%ld unanswered=%ld rps=%.0f cpu_us=%.2f p50=%.0f p99=%.0f",
         n, l->errors, unanswered, (double)n / took,
         n > 0 ? cpu / (double)n : 0,
         quantile(&l->replies, 0.5), quantile(&l->replies, 0.99));
  if (l->stream)
    printf(" chunks=%ld chunk_us=%.2f transit_p50=%.0f transit_p99=%.0f",
           l->chunks, l->chunks ? cpu / (double)l->chunks : 0,
           quantile(&l->transits, 0.5), quantile(&l->transits, 0.99));
  printf("\n");
}


/* The request's bytes, made once. */
static int make_request(struct load *l, const char *body_path) {
  static const char plain[] = "{\"model\":\"bench\",\"messages\":[{\"role\":"
    "\"user\",\"content\":\"How many roads must a router walk down, before you "
    "call it a router? Answer in one sentence, and be kind to it, please; it "
    "has had a long day of proxying.\"}],\"max_tokens\":64}";
  static const char streamed[] = "{\"model\":\"bench\",\"stream\":true,"
    "\"messages\":[{\"role\":\"user\",\"content\":\"Count.\"}]}";
  char file[16384];
  const char *body = l->stream ? streamed : plain;
  size_t size = strlen(body);
  if (body_path) {
    FILE *f = fopen(body_path, "r");
    if (!f)
      return -1;
    size = fread(file, 1, sizeof file, f);
    fclose(f);
    body = file;
  }
  l->request = malloc(size + 1024);
  if (!l->request)
    return -1;
  int n = snprintf(l->request, 1024,
                   "POST %.512s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
                   "application/json\r\n%sContent-Length: %zu\r\n\r\n", l->path,
                   l->close_each ? "Connection: close\r\n" : "", size);
  memcpy(l->request + n, body, size);
  l->request_size = (size_t)n + size;
  return 0;
}


static int option(struct load *l, const char *name, char *value) {
  if (!strcmp(name, "--port")) l->port = atoi(value);
  else if (!strcmp(name, "--path")) l->path = value;
  else if (!strcmp(name, "-n")) l->total = atol(value);
  else if (!strcmp(name, "-c")) l->conns = atoi(value);
  else if (!strcmp(name, "--warm")) l->warm = atol(value);
  else if (!strcmp(name, "--rate")) l->rate = atof(value);
  else if (!strcmp(name, "--seconds")) l->seconds = atof(value);
  else if (!strcmp(name, "--log")) return (l->log = fopen(value, "w")) ? 0 : -1;
  else if (!strcmp(name, "--pids")) {
    for (char *p = strtok(value, ","); p; p = strtok(NULL, ","))
      if (l->pid_count < PIDS_MAX) l->pids[l->pid_count++] = atoi(p);
  } else return -1;
  return 0;
}


static int parse(struct load *l, int argc, char **argv) {
  const char *body = NULL;
  *l = (struct load){ .conns = 32, .total = 10000, .warm = 400, .seconds = 60,
                      .path = "/v1/chat/completions", .random = 42 };
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--stream")) l->stream = 1;
    else if (!strcmp(argv[i], "--close")) l->close_each = 1;
    else if (i + 1 < argc && !strcmp(argv[i], "--body")) body = argv[++i];
    else if (i + 1 >= argc || option(l, argv[i], argv[i + 1])) return -1;
    else i++;
  }
  if (l->conns < 1 || l->conns > CONNS_MAX || l->port < 1)
    return -1;
  l->total += l->warm;
  return make_request(l, body);
}


int main(int argc, char **argv) {
  struct load *l = calloc(1, sizeof *l);
  if (!l || parse(l, argc, argv))
    return fprintf(stderr, "load: bad options; see the head of load.c\n"), 2;
  struct rlimit files = { CONNS_MAX + 64, CONNS_MAX + 64 };
  setrlimit(RLIMIT_NOFILE, &files);
  signal(SIGPIPE, SIG_IGN);
  l->ep = epoll_create1(EPOLL_CLOEXEC);
  l->all = calloc((size_t)l->conns, sizeof *l->all);
  l->idle = calloc((size_t)l->conns, sizeof *l->idle);
  l->arrivals = calloc(WAIT_MAX, sizeof *l->arrivals);
  if (!l->all || !l->idle || !l->arrivals)
    return 1;
  for (int i = 0; i < l->conns; i++) {
    l->all[i].fd = -1;
    l->idle[l->idle_count++] = &l->all[i];
  }
  run(l);
  report(l);
  if (l->log) fclose(l->log);
  return l->ended < l->total;
}
