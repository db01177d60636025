/* fault_server: an HTTP server on loopback that fails as it is told, for
 * specs. The fault is in the path: /f/NAME, /f/NAME=N, with ;KEY=VALUE behind.
 *
 *   ok  echo  seen (the request's head)  html  gzip  stall  junk  short  long
 *   status=S;ra=SECONDS   redirect=PORT   huge=N   endless   badchunk
 *   sse=N;gap=MS;size=B;cut;nodone;hold;ping=MS
 *   reset=K  close=K (of the reply's bytes)   drip=MS   lines=N;size=B
 *   interim=N (1xx before the reply)   raw=HEX;rst;hold
 *   die (a connection's first request is answered, the second is read and
 *   the connection closed)
 *
 * Standard output: "port N" first, then "body SIZE PATH" for each complete
 * request, and "gone PATH" when the client left before the reply's end.
 * It ends when its standard input does, and after LIFE_S seconds at most.
 * Options: [unix socket path]. One thread a connection; memory bounded.
 *
 * SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LIFE_S = 300, HEAD_MAX = 1 << 19, BODY_MAX = 64 << 20, PIECE = 4096 };

struct client {
  int  fd;
  int  requests;                    /* on this connection */
  char head[HEAD_MAX];
  size_t have;                      /* bytes in head */
  size_t head_size;
  char path[4096];
  char *body;
  size_t body_size;
};


/* ---- bytes ---- */

static int write_all(struct client *c, const char *p, size_t size) {
  while (size) {
    ssize_t n = send(c->fd, p, size, MSG_NOSIGNAL);
    if (n <= 0)
      return -1;
    p += n;
    size -= (size_t)n;
  }
  return 0;
}


static int write_text(struct client *c, const char *text) {
  return write_all(c, text, strlen(text));
}


/* Wait `ms` (negative: for ever) while the client stays; -1 when it left. */
static int linger(struct client *c, int ms) {
  char byte;
  struct pollfd p = { .fd = c->fd, .events = POLLIN | POLLRDHUP };
  if (ms == 0)
    return 0;
  if (poll(&p, 1, ms) == 0)
    return 0;
  return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0
         && !(p.revents & POLLRDHUP) ? 0 : -1;
}


/* Close with a reset instead of an end. */
static void reset(struct client *c) {
  struct linger l = { 1, 0 };
  setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}


/* ---- what the path asks for ---- */

/* The value of ";key=" or "/key=" in the path; "" when it stands alone; NULL
 * when it is not there. */
static const char *option(const struct client *c, const char *key) {
  size_t n = strlen(key);
  for (const char *p = c->path; (p = strpbrk(p, "/;")); ) {
    p++;
    if (strncmp(p, key, n) == 0 && strchr("=@;?", p[n]))
      return p[n] == '=' || p[n] == '@' ? p + n + 1 : p + n;
  }
  return NULL;
}


static long number(const struct client *c, const char *key, long otherwise) {
  const char *v = option(c, key);
  return v && *v >= '0' && *v <= '9' ? atol(v) : otherwise;
}


/* ---- replies ---- */

static int reply(struct client *c, int status, const char *headers,
                 const char *body, size_t size) {
  char head[1024];
  int n = snprintf(head, sizeof head,
                   "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\n%s\r\n",
                   status, size, headers);
  return write_all(c, head, (size_t)n) || write_all(c, body, size);
}


static const char json[] = "Content-Type: application/json\r\n"
  "X-Request-Id: req_1\r\nX-Secret: no\r\n";
static const char chat[] =
  "{\"id\":\"chat_1\",\"object\":\"chat.completion\",\"created\":1,"
  "\"model\":\"fault\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
  "\"assistant\",\"content\":\"hello from the fault server\"},"
  "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,"
  "\"completion_tokens\":5,\"total_tokens\":8}}";


static int chunk(struct client *c, const char *text, size_t size) {
  char line[32];
  int n = snprintf(line, sizeof line, "%zx\r\n", size);
  return write_all(c, line, (size_t)n) || write_all(c, text, size)
         || write_text(c, "\r\n");
}


static int event(struct client *c, long i, long size) {
  static const char front[] =
    "data: {\"id\":\"chat_1\",\"object\":\"chat.completion.chunk\","
    "\"created\":1,\"model\":\"fault\",\"choices\":[{\"index\":0,"
    "\"delta\":{\"content\":\"";
  size_t room = sizeof front + (size_t)size + 64;
  char *text = malloc(room);
  int n = snprintf(text, room, "%sw%ld ", front, i);
  while (n < (int)sizeof front + size)
    text[n++] = 'x';
  n += snprintf(text + n, room - (size_t)n, "\"}}]}\n\n");
  int rc = chunk(c, text, (size_t)n);
  free(text);
  return rc;
}


static int sse(struct client *c) {
  static const char finish[] =
    "data: {\"id\":\"chat_1\",\"object\":\"chat.completion.chunk\","
    "\"created\":1,\"model\":\"fault\",\"choices\":[{\"index\":0,\"delta\":{},"
    "\"finish_reason\":\"stop\"}]}\n\n";
  static const char done[] = "data: [DONE]\n\n";
  long count = number(c, "sse", 3), gap = number(c, "gap", 0);
  long ping = number(c, "ping", 0);
  if (write_text(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n"))
    return -1;
  for (long i = 1; i <= count; i++)
    if ((i > 1 && linger(c, (int)gap)) || event(c, i, number(c, "size", 0)))
      return -1;
  while (ping)
    if (linger(c, (int)ping) || chunk(c, ": ping\n\n", 8))
      return -1;
  if (option(c, "hold"))
    return linger(c, -1);
  if (option(c, "cut"))
    return 1;
  if (!option(c, "nodone") && (chunk(c, finish, sizeof finish - 1)
                               || chunk(c, done, sizeof done - 1)))
    return -1;
  return write_text(c, "0\r\n\r\n");
}


/* The first `keep` bytes of a good reply, then close or reset. */
static int part(struct client *c, long keep, int with_reset) {
  char whole[1024];
  int n = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\n"
                   "Content-Length: %zu\r\n%s\r\n%s", sizeof chat - 1, json,
                   chat);
  if (keep > n)
    keep = n;
  write_all(c, whole, (size_t)keep);
  if (with_reset)
    reset(c);
  return 1;
}


static int drip(struct client *c, long ms) {
  char whole[1024];
  int n = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\n"
                   "Content-Length: %zu\r\n%s\r\n%s", sizeof chat - 1, json,
                   chat);
  for (int i = 0; i < n; i++)
    if (linger(c, (int)ms) || write_all(c, whole + i, 1))
      return -1;
  return 0;
}


static int fill(struct client *c, const char *front, long count) {
  char piece[PIECE];
  memset(piece, 'x', sizeof piece);
  if (write_text(c, front))
    return -1;
  for (; count > 0; count -= PIECE)
    if (write_all(c, piece, count < PIECE ? (size_t)count : PIECE))
      return -1;
  return 0;
}


static int huge(struct client *c, long size) {
  char head[256];
  snprintf(head, sizeof head, "HTTP/1.1 %ld OK\r\nContent-Type: text/plain\r\n"
           "%s\r\n", number(c, "status", 200),
           option(c, "close") ? "" : "Connection: close\r\n");
  return fill(c, head, size) ? -1 : 1;
}


static int lines(struct client *c, long count) {
  long size = number(c, "size", 8);
  if (write_text(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"))
    return -1;
  for (long i = 0; i < count; i++)
    if (fill(c, "X-Fill: ", size) || write_text(c, "\r\n"))
      return -1;
  return write_text(c, "\r\n");
}


static int interim(struct client *c, long count) {
  for (long i = 0; i < count; i++)
    if (write_text(c, "HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n"))
      return -1;
  return reply(c, 200, json, chat, sizeof chat - 1);
}


static int raw(struct client *c, const char *hex) {
  unsigned byte;
  for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
    char one = (char)byte;
    if (write_all(c, &one, 1))
      return -1;
  }
  if (option(c, "rst"))
    reset(c);
  return option(c, "hold") ? linger(c, -1) : 1;
}


static int status(struct client *c, long code) {
  char headers[256], body[256];
  const char *after = option(c, "ra");
  int n = after ? (int)strcspn(after, ";") : 0;
  snprintf(headers, sizeof headers, "%s%s%.*s%s", json,
           after ? "Retry-After: " : "", n < 64 ? n : 64, after ? after : "",
           after ? "\r\n" : "");
  n = snprintf(body, sizeof body, "{\"error\":{\"message\":\"fault %ld\","
               "\"type\":\"fault\",\"code\":\"fault\"}}", code);
  return reply(c, (int)code, headers, body, (size_t)n);
}


static int redirect(struct client *c, long port) {
  char headers[128];
  snprintf(headers, sizeof headers,
           "Location: http://127.0.0.1:%ld/stolen\r\n", port);
  return reply(c, 307, headers, "", 0);
}


/* 0: the connection goes on; 1: close it; -1: the client left. */
static int answer(struct client *c) {
  long n = 0;
  const char *text;
#define IS(key) ((n = number(c, key, 0)), option(c, key))
  if (IS("echo")) return reply(c, 200, json, c->body, c->body_size);
  if (IS("seen")) return reply(c, 200, json, c->head, c->head_size);
  if (IS("huge")) return huge(c, n);
  if (IS("status")) return status(c, n);
  if (IS("sse")) return sse(c);
  if (IS("reset")) return part(c, n, 1);
  if (IS("raw")) return raw(c, option(c, "raw"));
  if (IS("close")) return part(c, n, 0);
  if (IS("stall")) return linger(c, -1);
  if (IS("drip")) return drip(c, n);
  if (IS("lines")) return lines(c, n);
  if (IS("interim")) return interim(c, n);
  if (IS("redirect")) return redirect(c, n);
  if (IS("die")) return c->requests > 1 ? 1 : reply(c, 200, json, chat,
                                                    sizeof chat - 1);
  if (IS("junk")) return write_text(c, "SSH-2.0-junk\r\n") ? -1 : 1;
  if (IS("html")) return reply(c, 200, "Content-Type: text/html\r\n",
                               "<html>", 6);
  if (IS("gzip")) return reply(c, 200, "Content-Encoding: gzip\r\n", "\x1f", 1);
  if (IS("short")) text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour";
  else if (IS("long"))
    text = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour+";
  else if (IS("badchunk")) text = "HTTP/1.1 200 OK\r\nContent-Type: text/event-"
    "stream\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx";
  else if (IS("endless"))
    return fill(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                "data: ", 256L << 20);
  else return reply(c, 200, json, chat, sizeof chat - 1);
  return write_text(c, text) ? -1 : 1;
#undef IS
}


/* ---- requests ---- */

static size_t content_length(const char *head) {
  const char *p = strcasestr(head, "\r\nContent-Length:");
  return p ? (size_t)atol(p + 17) : 0;
}


static int read_body(struct client *c) {
  size_t extra = c->have - c->head_size;
  c->body_size = content_length(c->head);
  if (c->body_size > BODY_MAX)
    return -1;
  c->body = malloc(c->body_size + 1);
  if (extra > c->body_size)
    extra = c->body_size;
  memcpy(c->body, c->head + c->head_size, extra);
  for (size_t n = extra; n < c->body_size; ) {
    ssize_t got = recv(c->fd, c->body + n, c->body_size - n, 0);
    if (got <= 0)
      return -1;
    n += (size_t)got;
  }
  c->have -= extra;
  memmove(c->head + c->head_size, c->head + c->head_size + extra,
          c->have - c->head_size);
  return 0;
}


static int read_request(struct client *c) {
  char *end;
  while (c->head[c->have] = '\0', !(end = strstr(c->head, "\r\n\r\n"))) {
    if (c->have + 1 >= sizeof c->head)
      return -1;
    ssize_t n = recv(c->fd, c->head + c->have, sizeof c->head - 1 - c->have, 0);
    if (n <= 0)
      return -1;
    c->have += (size_t)n;
  }
  c->head_size = (size_t)(end - c->head) + 4;
  if (sscanf(c->head, "%*s %4095s", c->path) != 1)
    return -1;
  return read_body(c);
}


static void *serve(void *user) {
  struct client *c = user;
  while (read_request(c) == 0) {
    c->requests++;
    printf("body %zu %s\n", c->body_size, c->path);
    fflush(stdout);
    int rc = answer(c);
    free(c->body);
    c->body = NULL;
    if (rc < 0)
      printf("gone %s\n", c->path);
    fflush(stdout);
    if (rc != 0)
      break;
    c->have -= c->head_size;
    memmove(c->head, c->head + c->head_size, c->have);
  }
  free(c->body);
  close(c->fd);
  free(c);
  return NULL;
}


/* ---- start ---- */

static int listen_on(const char *path) {
  struct sockaddr_in in = { .sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  struct sockaddr_un un = { .sun_family = AF_UNIX };
  int fd = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (path)
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
  if (fd < 0 || bind(fd, path ? (void *)&un : (void *)&in,
                     path ? sizeof un : sizeof in) || listen(fd, 512))
    return -1;
  socklen_t size = sizeof in;
  if (!path && getsockname(fd, (void *)&in, &size))
    return -1;
  printf("port %d\n", path ? 0 : ntohs(in.sin_port));
  fflush(stdout);
  return fd;
}


static void *end_with_input(void *user) {
  char byte;
  (void)user;
  while (read(0, &byte, 1) > 0)
    ;
  _exit(0);
}


int main(int argc, char **argv) {
  pthread_t t;
  pthread_attr_t attr;
  signal(SIGPIPE, SIG_IGN);
  alarm(LIFE_S);
  int fd = listen_on(argc > 1 ? argv[1] : NULL);
  if (fd < 0) {
    perror("fault_server");
    return 1;
  }
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attr, 256 * 1024);
  pthread_create(&t, &attr, end_with_input, NULL);
  for (;;) {
    struct client *c = calloc(1, sizeof *c);
    c->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (c->fd < 0 || pthread_create(&t, &attr, serve, c)) {
      if (c->fd >= 0)
        close(c->fd);
      free(c);
    }
  }
}
