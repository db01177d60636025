/* fault_server: an HTTP server on loopback that fails as it is told, for
 * specs. The fault is in the path: /f/NAME, /f/NAME=N, with ;KEY=VALUE behind;
 * what may follow (/v1/…) is no part of it. What a request gets that names no
 * fault is good: a chat completion, or a stream when its body says
 * "stream":true. fault/faults.h has the names; docs/FAULTS.md says which row
 * of the matrix is which.
 *
 *   whole answers   ok;delay=MS;shut  echo  seen (the request's head)  html
 *                   gzip;five  junk  short  long  length=±N  whole  lines=N
 *                   status=S;ra=TEXT;code=;type=;body=HEX  error200=S
 *                   redirect=PORT;status=S  huge=N  endless  interim=N  raw=HEX
 *                   badchunk=zz|ext|max  die;rst  drip=MS
 *                   json=NAME (odd bodies)  usage=NAME (odd usage)
 *   cut at byte K   reset=K  close=K  stall=K (K may be `turn`)
 *   streams         n=N;size=B;gap=MS  nofinish  nodone  nozero  sse=N (one
 *                   without role and usage, whatever was asked); and after
 *                   ;after=N events: hold cut rst ping=MS badjson error=S
 *                   badchunk half flood json=NAME
 *   any             hex=HEX (header lines)  say=HEX (the text)  first=N
 *                   flap=N  every=N  share=PERCENT
 *
 * Standard output: "port N" first, then "body SIZE PATH" for each complete
 * request, and "gone PATH" when the client left before the reply's end. Lines
 * on standard input: "log" prints the log (fault/log.h) as JSON, "totals" the
 * same without its requests, "reset" empties it; GET /log, /totals, /reset
 * are the same over HTTP. It ends when its input does, and after LIFE_S at
 * most. Options: --quiet (no lines of its own), --shut (close each connection
 * at its first byte), --dns-drop, -empty, -once, -nx (fault/dns.h), a unix
 * socket's path. One thread.
 *
 * SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fault/conn.h"
#include "fault/dns.h"
#include "fault/faults.h"
#include "fault/log.h"

enum { LIFE_S = 300, HEAD_MAX = 1 << 20, BODY_MAX = 64 << 20, EVENTS = 64 };

static struct {
  int epoll, listener, quiet, shut;
  int dns;                          /* its socket */
  enum dns_mode dns_mode;
  uint32_t last_id;
  struct conn *all;
} server;


static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}


static void pause_ms(struct conn *c, long ms) {
  if (ms > 0)
    c->due_ns = now_ns() + ms * 1000000;
}


/* ---- a connection's life ---- */

static void watch(struct conn *c, uint32_t events) {
  struct epoll_event e = { .events = events, .data.ptr = c };
  epoll_ctl(server.epoll, EPOLL_CTL_MOD, c->fd, &e);
}


static void open_conn(int fd) {
  int on = 1;
  struct conn *c = calloc(1, sizeof *c);
  struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = c };
  c->fd = fd;
  c->id = ++server.last_id;
  c->record = -1;
  c->next = server.all;
  server.all = c;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &e);
  seen.connections++;
  seen.open++;
}


/* Takes it out of the list; the memory is freed by sweep(). */
static void close_conn(struct conn *c) {
  if (c->fd < 0)
    return;
  close(c->fd);
  c->fd = -1;
  seen.open--;
}


static void sweep(void) {
  for (struct conn **at = &server.all, *c; (c = *at); ) {
    if (c->fd >= 0) {
      at = &c->next;
      continue;
    }
    *at = c->next;
    free(c->in.data);
    free(c->out.data);
    free(c->whole.data);
    free(c);
  }
}


static void left(struct conn *c) {
  if (c->step) {
    seen.gone++;
    log_end(c, "gone");
    if (!server.quiet) {
      printf("gone %s\n", c->path);
      fflush(stdout);
    }
  }
  close_conn(c);
}


static void reset_conn(struct conn *c) {
  struct linger l = { 1, 0 };
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
  close_conn(c);
}


/* Forget the request that has been answered; what is behind it stays. */
static void next_request(struct conn *c) {
  size_t used = c->head_size + c->body_size;
  memmove(c->in.data, c->in.data + used, c->in.size - used);
  c->in.size -= used;
  free(c->whole.data);
  memset(&c->whole, 0, sizeof c->whole);
  c->out.size = c->out_at = 0;
  c->head_size = c->body_size = 0;
  c->step = NULL;
  c->verdict = MORE;
  c->events = 0;
  c->record = -1;
  c->i = 0;
}


/* ---- answering ---- */

/* 1: all is out; 0: the socket is full; -1: the client left. */
static int flush_out(struct conn *c) {
  while (c->out_at < c->out.size) {
    ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.size - c->out_at,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
      return 0;
    if (n < 0)
      return -1;
    c->out_at += (size_t)n;
    log_sent(c, (size_t)n);
  }
  c->out.size = c->out_at = 0;
  return 1;
}


/* The answer is out and its last step has spoken. */
static void conclude(struct conn *c) {
  static const char *const ends[] = { "", "kept", "shut", "reset", "held" };
  log_end(c, ends[c->verdict]);
  if (c->verdict == KEEP) {
    next_request(c);
    watch(c, EPOLLIN | EPOLLRDHUP);
  } else if (c->verdict == SHUT) {
    c->step = NULL;
    close_conn(c);
  } else if (c->verdict == RESET) {
    c->step = NULL;
    reset_conn(c);
  }
}


static void answer(struct conn *c) {
  while (c->fd >= 0 && c->step && !c->due_ns) {
    int rc = flush_out(c);
    if (rc < 0) {
      left(c);
      return;
    }
    if (rc == 0) {
      watch(c, EPOLLOUT | EPOLLRDHUP);
      return;
    }
    if (c->verdict != MORE) {
      conclude(c);
      return;
    }
    c->verdict = c->step(c);
  }
}


/* ---- reading ---- */

static int step_control(struct conn *c) {
  struct bytes b = { 0 };
  if (strcmp(c->path, "/reset") == 0)
    log_reset(server.all);
  log_say(&b, strcmp(c->path, "/log") == 0);
  reply(c, 200, json_head, b.data, b.size);
  free(b.data);
  return KEEP;
}


static int is_control(const struct conn *c) {
  return strcmp(c->path, "/log") == 0 || strcmp(c->path, "/totals") == 0
         || strcmp(c->path, "/reset") == 0;
}


static void begin(struct conn *c) {
  const char *body = c->in.data + c->head_size;
  c->requests++;
  c->verdict = MORE;
  c->record = -1;
  watch(c, EPOLLRDHUP);
  if (is_control(c)) {
    c->step = step_control;
    return;
  }
  c->stream = memmem(body, c->body_size, "\"stream\":true", 13) != NULL;
  log_body(c);
  if (!server.quiet) {
    printf("body %zu %s\n", c->body_size, c->path);
    fflush(stdout);
  }
  c->turn = log_turn(c->path);
  c->step = fault_step(c, c->turn);
}


/* 1: a request is whole; 0: more must come; -1: it is none. */
static int parse(struct conn *c) {
  if (!c->in.data)
    return 0;
  if (!c->head_size) {
    char *end = memmem(c->in.data, c->in.size, "\r\n\r\n", 4);
    if (!end)
      return c->in.size > HEAD_MAX ? -1 : 0;
    *end = '\0';
    const char *length = strcasestr(c->in.data, "\r\nContent-Length:");
    int ok = sscanf(c->in.data, "%*s %4095s", c->path) == 1;
    c->body_size = length ? (size_t)atol(length + 17) : 0;
    *end = '\r';
    c->head_size = (size_t)(end - c->in.data) + 4;
    if (!ok || c->body_size > BODY_MAX)
      return -1;
  }
  return c->in.size >= c->head_size + c->body_size;
}


static void read_some(struct conn *c) {
  static char piece[PIECE];
  ssize_t n = recv(c->fd, piece, sizeof piece, MSG_DONTWAIT);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n <= 0 || server.shut) {
    left(c);
    return;
  }
  seen.bytes_in += n;
  put(&c->in, piece, (size_t)n);
}


static void serve(struct conn *c, uint32_t events) {
  if (c->fd < 0)
    return;
  if (c->step && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
    left(c);
    return;
  }
  if (!c->step)
    read_some(c);
  for (;;) {
    int whole = c->fd >= 0 && !c->step ? parse(c) : 0;
    if (whole < 0)
      left(c);
    if (whole > 0)
      begin(c);
    answer(c);
    if (whole <= 0 || c->fd < 0 || c->step)
      return;
  }
}


/* ---- the loop ---- */

static void accept_all(void) {
  int fd;
  while ((fd = accept4(server.listener, NULL, NULL,
                       SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
    open_conn(fd);
}


/* Goes on with whoever waited long enough; the wait until the next, in ms. */
static int run_timers(void) {
  int64_t now = now_ns(), next = INT64_MAX;
  for (struct conn *c = server.all; c; c = c->next) {
    if (c->fd < 0 || !c->due_ns)
      continue;
    if (c->due_ns <= now) {
      c->due_ns = 0;
      answer(c);
    }
    if (c->fd >= 0 && c->due_ns && c->due_ns < next)
      next = c->due_ns;
  }
  return next == INT64_MAX ? -1 : (int)((next - now) / 1000000) + (next > now);
}


/* Lines of standard input; at its end the server ends. */
static void take_command(void) {
  static char line[256];
  static size_t have;
  ssize_t n = read(0, line + have, sizeof line - 1 - have);
  if (n <= 0)
    _exit(0);
  have += (size_t)n;
  line[have] = '\0';
  for (char *end; (end = strchr(line, '\n')); ) {
    struct bytes b = { 0 };
    *end = '\0';
    if (strcmp(line, "reset") == 0)
      log_reset(server.all);
    log_say(&b, strcmp(line, "log") == 0);
    printf("log %s\n", b.data);
    fflush(stdout);
    free(b.data);
    have -= (size_t)(end + 1 - line);
    memmove(line, end + 1, have + 1);
  }
}


static int listen_on(const char *path) {
  struct sockaddr_in in = { .sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  struct sockaddr_un un = { .sun_family = AF_UNIX };
  int fd = socket(path ? AF_UNIX : AF_INET,
                  SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (path)
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
  if (fd < 0 || bind(fd, path ? (void *)&un : (void *)&in,
                     path ? sizeof un : sizeof in) || listen(fd, 4096))
    return -1;
  socklen_t size = sizeof in;
  if (!path && getsockname(fd, (void *)&in, &size))
    return -1;
  printf("port %d\n", path ? 0 : ntohs(in.sin_port));
  fflush(stdout);
  return fd;
}


static void loop(void) {
  struct epoll_event events[EVENTS];
  for (;;) {
    int wait = run_timers();
    sweep();
    int n = epoll_wait(server.epoll, events, EVENTS, wait);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr == &server.listener)
        accept_all();
      else if (events[i].data.ptr == &server)
        take_command();
      else if (events[i].data.ptr == &server.dns)
        dns_serve(server.dns, server.dns_mode);
      else
        serve(events[i].data.ptr, events[i].events);
    }
  }
}


/* The path of a unix socket, or NULL. */
static const char *read_words(char **argv) {
  static const char *const dns[] = { "", "--dns-drop", "--dns-empty",
                                     "--dns-once", "--dns-nx" };
  const char *path = NULL;
  while (*++argv) {
    if (strcmp(*argv, "--quiet") == 0)
      server.quiet = 1;
    else if (strcmp(*argv, "--shut") == 0)
      server.shut = 1;
    else if ((*argv)[0] != '-')
      path = *argv;
    for (int mode = DNS_DROP; mode <= DNS_NX; mode++)
      if (strcmp(*argv, dns[mode]) == 0)
        server.dns_mode = mode;
  }
  return path;
}


static int add(int fd, void *what) {
  struct epoll_event e = { .events = EPOLLIN, .data.ptr = what };
  return fd < 0 || epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &e) ? -1 : 0;
}


int main(int argc, char **argv) {
  const char *path = read_words(argv);
  (void)argc;
  signal(SIGPIPE, SIG_IGN);
  alarm(LIFE_S);
  server.epoll = epoll_create1(EPOLL_CLOEXEC);
  server.dns = server.dns_mode ? dns_listen() : -1;
  server.listener = listen_on(path);
  if (add(server.listener, &server.listener) || add(0, &server)
      || (server.dns_mode && add(server.dns, &server.dns))) {
    perror("fault_server");
    return 1;
  }
  loop();
}
