/* upstream: an OpenAI-shaped server for benchmarks and gateway specs.
 *
 * One thread, one epoll. It answers POSTs with 1,000 bytes of JSON, or with
 * a paced SSE stream when the body asks for one; each chunk's text is
 * "N@CLOCK ", its number and the sender's monotonic clock. It counts the
 * bodies that arrived whole. Steps at the head of a path change the answer:
 *   /status-503/… /delay-200/… /hang/… /close/… /cut-3/… /error-3/…
 *   /chunks-20/… /gap-5/… /stall-2/… /nodone/… /interim/…
 * or the name of a fault of upstream_plan.h. A body may ask as well, for
 * itself: "user":"canary-7.once.close" (`once`: only the first body of that
 * canary). A canary comes back in the reply and counts its bodies.
 * GET /count, /last (the last POST as it came), /canaries-N (bodies of each
 * canary from N on, a digit each), /drop (closes what is idle), /v1/models.
 * It prints "port N" when it listens, and ends after --life seconds.
 *
 * SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

#include "upstream_plan.h"

enum { CONNS_MAX = 8192, IN_MAX = 65536, EVENTS_MAX = 256, REPLY_BYTES = 1000,
       CANARIES_MAX = 1 << 20, CANARIES_PAGE = 16384 };

struct conn {
  int     fd;
  int     sent;                     /* chunks of the running stream */
  int     busy;                     /* a reply is due */
  int     asked;                    /* it has had a GET */
  int64_t born_ns;
  size_t  used;
  int64_t due_ns;                   /* of the next write; 0: none */
  struct plan plan;
  struct conn *next_timed, *prev_timed;
  char    in[IN_MAX];
};

struct server {
  int ep, listener, gap_ms, chunks;
  int64_t until_ns;
  uint64_t bodies, gone, open, random;
  struct conn *timed;               /* conns whose due_ns is set */
  struct conn *conns[CONNS_MAX];    /* by fd */
  char   json[REPLY_BYTES + 256];
  size_t json_size, content_at, last_size;
  char   last[IN_MAX];
  unsigned char canaries[CANARIES_MAX];         /* bodies of each */
};


static int64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}


static void make_json(struct server *s) {
  static const char head[] = "{\"id\":\"chatcmpl-bench\",\"object\":"
    "\"chat.completion\",\"created\":1700000000,\"model\":\"bench\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
    "\"content\":\"";
  static const char tail[] = "\"},\"finish_reason\":\"stop\"}],\"usage\":"
    "{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}";
  size_t fill = REPLY_BYTES - strlen(head) - strlen(tail);
  int n = sprintf(s->json, "HTTP/1.1 200 OK\r\nContent-Type: application/json"
                  "\r\nContent-Length: %d\r\n\r\n%s", REPLY_BYTES, head);
  s->content_at = (size_t)n;
  memset(s->json + n, 'x', fill);
  strcpy(s->json + n + fill, tail);
  s->json_size = (size_t)n + fill + strlen(tail);
}


static void untime(struct server *s, struct conn *c) {
  if (!c->due_ns)
    return;
  if (c->prev_timed) c->prev_timed->next_timed = c->next_timed;
  else s->timed = c->next_timed;
  if (c->next_timed) c->next_timed->prev_timed = c->prev_timed;
  c->due_ns = 0;
}


static void time_at(struct server *s, struct conn *c, int64_t due_ns) {
  untime(s, c);
  c->due_ns = due_ns;
  c->prev_timed = NULL;
  c->next_timed = s->timed;
  if (s->timed) s->timed->prev_timed = c;
  s->timed = c;
}


static void drop(struct server *s, struct conn *c) {
  untime(s, c);
  s->gone += c->busy != 0;
  s->open--;
  s->conns[c->fd] = NULL;
  close(c->fd);
  free(c);
}


/* Small writes into an empty socket: what does not fit counts as a fault. */
static int put(struct conn *c, const char *bytes, size_t size) {
  return send(c->fd, bytes, size, MSG_NOSIGNAL) == (ssize_t)size ? 0 : -1;
}


static int put_reply(struct conn *c, int status, const char *body,
                     size_t size) {
  char head[256];
  int n = snprintf(head, sizeof head, "HTTP/1.1 %d Answer\r\nContent-Type: "
                   "application/json\r\nContent-Length: %zu\r\n\r\n",
                   status, size);
  return put(c, head, (size_t)n) || put(c, body, size);
}


static int put_chunk(struct conn *c, const char *sse, int size) {
  char out[1024];
  int n = snprintf(out, sizeof out, "%x\r\n%.*s\r\n", (unsigned)size, size,
                   sse);
  return put(c, out, (size_t)n);
}


/* One piece of the stream; 1 when that was the last. */
static int put_piece(struct conn *c) {
  static const char shape[] = "data: {\"id\":\"chatcmpl-bench\",\"object\":"
    "\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\","
    "\"choices\":%s}\n\n";
  static const char fault[] =
    "data: {\"error\":{\"message\":\"the model fell over\"}}\n\n";
  char piece[512], sse[768], canary[16] = "";
  int n;
  if (c->plan.canary)
    snprintf(canary, sizeof canary, "c%u:", c->plan.canary);
  if (c->plan.error && c->sent >= c->plan.error)
    return put_chunk(c, fault, sizeof fault - 1)
           || put(c, "0\r\n\r\n", 5) ? -1 : 1;
  if (c->sent < c->plan.chunks) {
    snprintf(piece, sizeof piece, "[{\"index\":0,\"delta\":{\"content\":"
             "\"%s%d@%019lld \"},\"finish_reason\":null}]", canary, c->sent++,
             (long long)clock_ns());
    n = snprintf(sse, sizeof sse, shape, piece);
    return put_chunk(c, sse, n);
  }
  n = snprintf(sse, sizeof sse, shape,
               "[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]");
  if (put_chunk(c, sse, n))
    return -1;
  snprintf(piece, sizeof piece, "[],\"usage\":{\"prompt_tokens\":9,"
           "\"completion_tokens\":%d,\"total_tokens\":%d}",
           c->plan.chunks, c->plan.chunks + 9);
  n = snprintf(sse, sizeof sse, shape, piece);
  if (c->plan.usage && put_chunk(c, sse, n))
    return -1;
  if (c->plan.nodone)
    return put(c, "0\r\n\r\n", 5) ? -1 : 1;
  return put(c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24) ? -1 : 1;
}


static int begin_stream(struct server *s, struct conn *c) {
  static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: "
    "text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
  s->random = s->random * 6364136223846793005ULL + 1442695040888963407ULL;
  int64_t phase = c->plan.gap_ns
                ? (int64_t)((s->random >> 33) % (uint64_t)c->plan.gap_ns) : 0;
  c->sent = 0;
  if (put(c, head, sizeof head - 1))
    return -1;
  time_at(s, c, clock_ns() + phase);
  return 0;
}


static int put_fault(struct conn *c, const struct fault *f) {
  struct linger at_once = { 1, 0 };
  c->busy = f->then != FAULT_KEEP;
  if (f->then == FAULT_RESET)
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  return put(c, f->bytes, strlen(f->bytes)) || c->busy ? -1 : 0;
}


/* A whole reply; with a canary its text begins with that. */
static int put_json(struct server *s, struct conn *c) {
  char own[sizeof s->json], canary[16];
  if (!c->plan.canary)
    return put(c, s->json, s->json_size);
  int n = snprintf(canary, sizeof canary, "c%u:", c->plan.canary);
  memcpy(own, s->json, s->json_size);
  memcpy(own + s->content_at, canary, (size_t)n);
  return put(c, own, s->json_size);
}


/* Answer a POST whose plan is made and whose delay is over; -1: close. */
static int answer(struct server *s, struct conn *c) {
  static const char sorry[] = "{\"error\":{\"message\":\"asked for\","
    "\"type\":\"server_error\",\"param\":null,\"code\":null}}";
  static const char early[] = "HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n";
  if (c->plan.close)
    return -1;
  if (c->plan.fault)
    return put_fault(c, c->plan.fault);
  if (c->plan.interim && put(c, early, sizeof early - 1))
    return -1;
  if (c->plan.stream && c->plan.status == 200)
    return begin_stream(s, c);
  c->busy = 0;
  if (c->plan.status != 200)
    return put_reply(c, c->plan.status, sorry, sizeof sorry - 1);
  return put_json(s, c);
}


static struct plan plain_plan(const struct server *s) {
  return (struct plan){ .status = 200, .chunks = s->chunks,
                        .gap_ns = s->gap_ms * 1000000LL };
}


/* What a body asks for itself; it counts for its canary. */
static void plan_of_body(struct server *s, struct plan *p, const char *body) {
  const char *user = strstr(body, "\"user\":\"");
  if (!user)
    return;
  read_steps(p, user + 8, "\"", '.');
  if (!p->canary || p->canary >= CANARIES_MAX)
    return;
  unsigned char *count = &s->canaries[p->canary];
  *count += *count < 9;
  if (p->once && *count > 1) {
    uint32_t canary = p->canary;
    *p = plain_plan(s);
    p->canary = canary;
  }
}


static void make_plan(struct server *s, struct conn *c, const char *body) {
  struct plan *p = &c->plan;
  *p = plain_plan(s);
  const char *path = strchr(c->in, ' ');
  if (path)
    read_steps(p, path + 1 + strspn(path + 1, "/"), " ", '/');
  plan_of_body(s, p, body);
  p->stream = strstr(body, "\"stream\":true")
           || strstr(body, "\"stream\": true");
  p->usage = strstr(body, "\"include_usage\":true")
          || strstr(body, "\"include_usage\": true");
}


static int answer_canaries(struct server *s, struct conn *c) {
  char text[CANARIES_PAGE];
  size_t from = strtoul(c->in + 14, NULL, 10), n = 0;
  for (; n < sizeof text && from + n < CANARIES_MAX; n++)
    text[n] = (char)('0' + s->canaries[from + n]);
  return put_reply(c, 200, text, n);
}


/* Close the connections that wait for a POST. One that has just come may be
 * about to GET. */
static void drop_idle(struct server *s) {
  int64_t old = clock_ns() - 500000000;
  for (int fd = 0; fd < CONNS_MAX; fd++) {
    struct conn *c = s->conns[fd];
    if (c && !c->asked && !c->busy && !c->used && c->born_ns < old)
      drop(s, c);
  }
}


static int answer_get(struct server *s, struct conn *c) {
  static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":"
    "\"bench\",\"object\":\"model\",\"created\":1700000000,\"owned_by\":"
    "\"bench\"}]}";
  char text[128];
  if (!strncmp(c->in, "GET /last ", 10))
    return put_reply(c, 200, s->last, s->last_size);
  if (!strncmp(c->in, "GET /canaries-", 14))
    return answer_canaries(s, c);
  if (!strncmp(c->in, "GET /drop ", 10))
    drop_idle(s);
  else if (strncmp(c->in, "GET /count ", 11))
    return put_reply(c, 200, models, sizeof models - 1);
  int n = snprintf(text, sizeof text,
                   "{\"bodies\":%llu,\"gone\":%llu,\"open\":%llu}",
                   (unsigned long long)s->bodies, (unsigned long long)s->gone,
                   (unsigned long long)s->open);
  return put_reply(c, 200, text, (size_t)n);
}


/* One whole request lies in c->in[0..size). -1: close. */
static int take_request(struct server *s, struct conn *c, size_t body,
                        size_t size) {
  char kept = c->in[size];
  c->in[size] = 0;
  int rc = 0;
  if (!strncmp(c->in, "GET ", 4)) {
    c->asked = 1;
    rc = answer_get(s, c);
  } else {
    s->bodies++;
    memcpy(s->last, c->in, size);
    s->last_size = size;
    c->busy = 1;
    make_plan(s, c, c->in + body);
    if (c->plan.delay_ns) time_at(s, c, clock_ns() + c->plan.delay_ns);
    else if (!c->plan.hang) rc = answer(s, c);
  }
  c->in[size] = kept;
  return rc;
}


/* Requests in the buffer, one after the other; -1: close. */
static int take_input(struct server *s, struct conn *c) {
  while (c->used && !c->busy) {
    c->in[c->used] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end)
      return 0;
    size_t body = (size_t)(end - c->in) + 4, length = 0;
    char *field = strcasestr(c->in, "\r\ncontent-length:");
    if (field && field < end) length = strtoul(field + 17, NULL, 10);
    if (body + length >= IN_MAX)
      return -1;
    if (c->used < body + length)
      return 0;
    if (take_request(s, c, body, body + length))
      return -1;
    c->used -= body + length;
    memmove(c->in, c->in + body + length, c->used);
  }
  return 0;
}


static void read_conn(struct server *s, struct conn *c) {
  ssize_t n = recv(c->fd, c->in + c->used, IN_MAX - 1 - c->used, 0);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n > 0) c->used += (size_t)n;
  if (n <= 0 || c->used == IN_MAX - 1 || take_input(s, c))
    drop(s, c);
}


/* The conn's time has come: a delayed answer, or the next piece. */
static void fire(struct server *s, struct conn *c, int64_t now) {
  int64_t due = c->due_ns;
  int rc;
  untime(s, c);
  if (c->plan.delay_ns) {
    c->plan.delay_ns = 0;
    rc = c->plan.hang ? 0 : answer(s, c);
  } else if (c->plan.cut && c->sent >= c->plan.cut) {
    rc = -1;
  } else if (c->plan.stall && c->sent >= c->plan.stall) {
    rc = 0;                         /* and nothing more is due */
  } else {
    rc = put_piece(c);
    int64_t next = due + c->plan.gap_ns;
    if (rc == 0) time_at(s, c, next > now ? next : now + 1);
    if (rc == 1) c->busy = rc = 0;
  }
  if (rc < 0 || take_input(s, c))
    drop(s, c);
}


static void accept_all(struct server *s) {
  for (;;) {
    int one = 1, flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = accept4(s->listener, NULL, NULL, flags);
    if (fd < 0)
      return;
    struct conn *c = fd < CONNS_MAX ? calloc(1, sizeof *c) : NULL;
    if (!c) {
      close(fd);
      continue;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fd = fd;
    c->born_ns = clock_ns();
    s->conns[fd] = c;
    s->open++;
    struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP, .data.fd = fd };
    epoll_ctl(s->ep, EPOLL_CTL_ADD, fd, &ev);
  }
}


static int64_t fire_due(struct server *s) {
  int64_t now = clock_ns(), next = s->until_ns;
  for (struct conn *c = s->timed, *after; c; c = after) {
    after = c->next_timed;
    if (c->due_ns <= now)
      fire(s, c, now);
  }
  for (struct conn *c = s->timed; c; c = c->next_timed)
    if (c->due_ns < next) next = c->due_ns;
  return next;
}


static void serve(struct server *s) {
  struct epoll_event ready[EVENTS_MAX];
  for (int64_t now = clock_ns(); now < s->until_ns; now = clock_ns()) {
    int64_t wait = fire_due(s) - clock_ns();
    if (wait < 0) wait = 0;
    struct timespec t = { wait / 1000000000, wait % 1000000000 };
    int n = epoll_pwait2(s->ep, ready, EVENTS_MAX, &t, NULL);
    for (int i = 0; i < n; i++) {
      int fd = ready[i].data.fd;
      struct conn *c = s->conns[fd];
      if (fd == s->listener) accept_all(s);
      else if (c) read_conn(s, c);            /* also what came last of all */
      if (c && (ready[i].events & EPOLLRDHUP) && s->conns[fd] == c) drop(s, c);
    }
  }
}


static int listen_at(int port) {
  struct sockaddr_in a = { .sin_family = AF_INET,
                           .sin_port = htons((uint16_t)port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  socklen_t size = sizeof a;
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&a, size) || listen(fd, 4096))
    return -1;
  getsockname(fd, (struct sockaddr *)&a, &size);
  printf("port %d\n", ntohs(a.sin_port));
  fflush(stdout);
  return fd;
}


int main(int argc, char **argv) {
  int port = 0, life = 600;
  struct server *s = calloc(1, sizeof *s);
  if (!s)
    return 1;
  s->chunks = 200;
  s->gap_ms = 5;
  for (int i = 1; i + 1 < argc; i += 2) {
    int value = atoi(argv[i + 1]);
    if (!strcmp(argv[i], "--port")) port = value;
    else if (!strcmp(argv[i], "--life")) life = value;
    else if (!strcmp(argv[i], "--chunks")) s->chunks = value;
    else if (!strcmp(argv[i], "--gap")) s->gap_ms = value;
    else return fprintf(stderr, "upstream: unknown option %s\n", argv[i]), 2;
  }
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files = { CONNS_MAX, CONNS_MAX };
  setrlimit(RLIMIT_NOFILE, &files);
  make_json(s);
  s->until_ns = clock_ns() + life * 1000000000LL;
  s->ep = epoll_create1(EPOLL_CLOEXEC);
  s->listener = listen_at(port);
  if (s->listener < 0)
    return fprintf(stderr, "upstream: %s\n", strerror(errno)), 1;
  struct epoll_event ev = { .events = EPOLLIN, .data.fd = s->listener };
  epoll_ctl(s->ep, EPOLL_CTL_ADD, s->listener, &ev);
  serve(s);
  return 0;
}
