/* easy: see easy.h.
 *
 * Not used, on purpose: redirects (keys would follow), netrc, cookies,
 * alt-svc, HSTS, proxies of the environment, libcurl's own authentication,
 * decoding of compressed replies, CURLOPT_ERRORBUFFER (it quotes what nodes
 * send), low-speed limits (a long prompt is silent for a minute). A node's
 * address comes from the operator, so one of the own network is no offence.
 *
 * SPDX-License-Identifier: MIT */
#include "easy.h"

#include <sys/socket.h>
#include <unistd.h>

#include "../base/clock.h"

enum {
  IDLE_CONNECTION_S = 30,           /* below the keep-alive of usual servers */
  CONNECTION_LIFE_S = 600,          /* certificates and addresses change */
  BACKSTOP_MS = 1000                /* libcurl's timeouts behind our own */
};

/* Set, and remember the first failure. */
#define SET(option, value) \
  (rc = rc ? rc : curl_easy_setopt(easy, option, value))


/* ---- libcurl's callbacks ---- */

/* At most one send a call: libcurl repeats a request by itself when a reused
 * connection dies before the reply's first byte. Measured on 7.88.1: two
 * bodies at the server without this, one with it. */
static int before_send(void *user, char *ip, char *local_ip, int port,
                       int local_port) {
  struct net_call *call = user;
  (void)ip;
  (void)local_ip;
  (void)port;
  (void)local_port;
  return call->sends++ ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}


static curl_socket_t open_socket(void *user, curlsocktype purpose,
                                 struct curl_sockaddr *at) {
  int fd = socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
  (void)purpose;
  net_watch_opened(user, fd);
  return fd;
}


static int close_socket(void *user, curl_socket_t fd) {
  net_watch_closing(user, fd);
  return close(fd);
}


static size_t take_line(char *line, size_t one, size_t size, void *user) {
  struct net_call *call = user;
  size *= one;
  return net_reply_line(&call->reply, line, size) ? 0 : size;
}


/* A consumer that does not keep up pauses the transfer; libcurl then gives
 * the same bytes again. Only streams grow at the consumer while they run. */
static size_t take_bytes(char *bytes, size_t one, size_t size, void *user) {
  struct net_call *call = user;
  size *= one;
  if (call->reply.streaming && !call->paused && call->sink->full(call->user)) {
    call->paused = 1;
    return CURL_WRITEFUNC_PAUSE;
  }
  int first = !call->reply.event_ns;
  int64_t now = clock_now_ns();
  if (net_reply_bytes(&call->reply, bytes, size, now))
    return 0;
  if (first && call->reply.event_ns)
    net_call_look(call, now);   /* idleness begins to count */
  return size;
}


/* ---- options ---- */

CURL *net_easy_new(struct net_watch *watch) {
  CURL *easy = curl_easy_init();
  CURLcode rc = easy ? CURLE_OK : CURLE_OUT_OF_MEMORY;
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_QUICK_EXIT, 1L);                  /* no wait for a resolver */
  SET(CURLOPT_FOLLOWLOCATION, 0L);
  SET(CURLOPT_MAXREDIRS, 0L);
  SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
  SET(CURLOPT_UNRESTRICTED_AUTH, 0L);
  SET(CURLOPT_AUTOREFERER, 0L);
  SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  SET(CURLOPT_PROXY, "");
  SET(CURLOPT_NOPROXY, "*");
  SET(CURLOPT_HTTP09_ALLOWED, 0L);
  SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  SET(CURLOPT_PATH_AS_IS, 1L);
  SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(CURLOPT_ACCEPT_ENCODING, NULL);
  SET(CURLOPT_TRANSFER_ENCODING, 0L);
  SET(CURLOPT_SSL_VERIFYPEER, 1L);
  SET(CURLOPT_SSL_VERIFYHOST, 2L);
  SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  SET(CURLOPT_CAPATH, NULL);        /* else the bundle is read anew each time */
  SET(CURLOPT_MAXAGE_CONN, (long)IDLE_CONNECTION_S);
  SET(CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_LIFE_S);
  SET(CURLOPT_TCP_NODELAY, 1L);
  SET(CURLOPT_VERBOSE, 0L);
  SET(CURLOPT_NOPROGRESS, 1L);
  SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
  SET(CURLOPT_OPENSOCKETDATA, watch);
  SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
  SET(CURLOPT_CLOSESOCKETDATA, watch);
  SET(CURLOPT_PREREQFUNCTION, before_send);
  SET(CURLOPT_HEADERFUNCTION, take_line);
  SET(CURLOPT_WRITEFUNCTION, take_bytes);
  if (rc == CURLE_OK)
    return easy;
  curl_easy_cleanup(easy);
  return NULL;
}


/* Milliseconds behind one of our deadlines; 0 (libcurl's default) for none. */
static long backstop(int64_t ns) {
  int64_t ms = ns / 1000000;
  return ns <= 0 ? 0 : ms > INT32_MAX ? INT32_MAX : (long)ms + BACKSTOP_MS;
}


int net_easy_set(CURL *easy, struct net_call *call) {
  const struct net_request *r = &call->request;
  const char *bundle = r->ca_file;
  if (r->https && !bundle)
    bundle = curl_version_info(CURLVERSION_NOW)->cainfo;
  CURLcode rc = CURLE_OK;
  SET(CURLOPT_PRIVATE, call);
  SET(CURLOPT_PREREQDATA, call);
  SET(CURLOPT_HEADERDATA, call);
  SET(CURLOPT_WRITEDATA, call);
  SET(CURLOPT_PROTOCOLS_STR, r->https ? "https" : "http");
  SET(CURLOPT_URL, r->url);
  SET(CURLOPT_UNIX_SOCKET_PATH, r->unix_path);
  SET(CURLOPT_CAINFO, bundle);
  SET(CURLOPT_HTTPHEADER, r->headers);
  SET(CURLOPT_CONNECTTIMEOUT_MS, backstop(r->connect_ns));
  SET(CURLOPT_TIMEOUT_MS, backstop(r->total_ns));
  SET(CURLOPT_MAXFILESIZE_LARGE,
      (curl_off_t)(r->body_max ? r->body_max : NET_STREAM_MAX));
  if (r->post) {
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_POSTFIELDS, r->body);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_size);
  } else {
    SET(CURLOPT_HTTPGET, 1L);
  }
  return rc ? DROVER_ENOMEM : DROVER_OK;
}


void net_easy_clear(CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, NULL);
  curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, NULL);
}
