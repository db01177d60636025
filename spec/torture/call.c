/* Fails each of our allocations of a call in turn, once and from there on: a
 * port is opened, a stream, a plain reply and an error are fetched from a
 * server in this program, and all is closed again. Wanted: each call that was
 * accepted ends exactly once, nothing leaks, no descriptor stays open.
 *
 * SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "drover.h"
#include "net/loop.h"

enum { RUNS_MAX = 2000, WAIT_S = 20, LIFE_S = 300, CALLS = 3 };

static const char *const replies[CALLS] = {
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
  "\r\nevent: x\ndata: {\"a\":1}\n\ndata: [DONE]\n\n",
  "HTTP/1.1 200 OK\r\nX-Request-Id: r\r\nContent-Length: 5\r\nConnection: close"
  "\r\n\r\nhello",
  "HTTP/1.1 503 No\r\nRetry-After: 2\r\nContent-Length: 9\r\n\r\ncut",
};


/* ---- the server: reads a head, answers by the path's digit, closes ---- */

static void serve(int fd) {
  char head[4096] = "";
  size_t have = 0;
  while (!strstr(head, "\r\n\r\n{}")) {
    ssize_t n = recv(fd, head + have, sizeof head - 1 - have, 0);
    if (n <= 0)
      return;
    head[have += (size_t)n] = '\0';
  }
  const char *reply = replies[(head[6] - '0') % CALLS];
  (void)!send(fd, reply, strlen(reply), MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
  while (recv(fd, head, sizeof head, 0) > 0)
    ;
}


static void *run_server(void *user) {
  int listener = *(int *)user;
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
      return NULL;
    serve(fd);
    close(fd);
  }
}


static int start_server(int *listener) {
  struct sockaddr_in at = { .sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  socklen_t size = sizeof at;
  pthread_t t;
  *listener = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(*listener, (void *)&at, size) || listen(*listener, 16)
      || getsockname(*listener, (void *)&at, &size)
      || pthread_create(&t, NULL, run_server, listener))
    return -1;
  pthread_detach(t);
  return ntohs(at.sin_port);
}


static int open_files(void) {
  int n = 0;
  DIR *d = opendir("/proc/self/fd");
  while (d && readdir(d))
    n++;
  closedir(d);
  return n;
}


/* 1 when no more files are open than there were. The server's thread closes its
 * end when it gets a turn: waited for, since what leaks stays. */
static int files_back(int files) {
  double stop = drover_clock() + WAIT_S;
  while (open_files() > files && drover_clock() < stop)
    sched_yield();
  return open_files() <= files;
}


/* ---- the scenario ---- */

/* Read one call to its end. 1 when it ended once, 0 when not; *harmed when it
 * says that there was no memory. */
static int read_call(drover_port *p, int *harmed) {
  drover_event ev;
  int ends = 0;
  double stop = drover_clock() + WAIT_S;
  while (!ends && drover_clock() < stop) {
    while (drover_port_next(p, &ev)) {
      ends += ev.type == DROVER_EVENT_END || ev.type == DROVER_EVENT_FAIL;
      if (ev.type == DROVER_EVENT_FAIL && ev.code == DROVER_ENOMEM)
        *harmed = 1;
    }
    if (!ends)
      drover_port_wait(p, stop - drover_clock());
  }
  return ends == 1;
}


/* 1 when all calls came through, 0 when memory was missing, -1 when wrong. */
static int scenario(int port) {
  drover_port *p;
  drover_err err;
  int rc = drover_port_open(&p, &err), harmed = 0, wrong = 0;
  if (rc)
    return rc == DROVER_ENOMEM ? 0 : -1;
  for (int i = 0; i < CALLS && !wrong; i++) {
    char url[64];
    drover_call *call;
    snprintf(url, sizeof url, "http://127.0.0.1:%d/%d", port, i);
    drover_call_config c = {
      .call = 1, .stream = 1, .method = "POST", .url = url, .body = "{}",
      .body_size = 2, .headers = "A: b\n", .headers_size = 5,
      .connect = 5, .first_token = 10, .idle = 10, .total = 15,
    };
    rc = drover_call_http(&call, p, &c, &err);
    if (rc) {
      wrong = rc != DROVER_ENOMEM && rc != DROVER_ERESOURCE;
      harmed = 1;
      continue;
    }
    wrong = !read_call(p, &harmed);
    drover_call_close(call);
  }
  drover_port_close(p);
  net_loop_stop();
  return wrong ? -1 : !harmed;
}


int main(void) {
  int listener, passed = 0, failed = 0;
  alarm(LIFE_S);
  signal(SIGPIPE, SIG_IGN);
  int port = start_server(&listener);
  if (port < 0 || scenario(port) != 1) {
    printf("0 passed, 1 failed\n");
    return 1;
  }
  for (int on = 0; on < 2; on++) {
    for (long n = 1; n < RUNS_MAX; n++) {
      long live = mem_live();
      int files = open_files();
      mem_fail_at(n, on);
      int got = scenario(port), harmed = mem_asked() >= n;
      mem_fail_at(0, 0);
      int right = mem_live() == live && files_back(files)
                  && (got == 1 || (harmed && got == 0));
      passed += right;
      failed += !right;
      if (!right)
        printf("allocation %ld%s: %d, %ld blocks, %d files\n", n,
               on ? " and on" : "", got, mem_live() - live,
               open_files() - files);
      if (!harmed)
        break;
    }
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
