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

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../base/clock.h"
#include "../base/mem.h"

enum {
  IDLE_CONNECTION_S = 30,           /* below the keep-alive of usual servers */
  CONNECTION_LIFE_S = 600,          /* certificates and addresses change */
  BACKSTOP_MS = 1000                /* libcurl's timeouts behind our own, so
                                     * that ours names the deadline */
};

/* What is kept beside a handle. A pooled one mostly goes to the same URL
 * again: libcurl then copies its parts instead of reading it anew (measured:
 * 1.5 us a request). */
struct kept {
  struct net_call *call;            /* set for; NULL in the pool */
  struct net_watch *watch;
  CURLU *parts;                     /* read, of `url` */
  char *url;                        /* what they are of; NULL: of nothing */
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


/* SOCK_CLOEXEC, which libcurl 7.88 leaves out: a program that the application
 * starts would hold a node's connection open. A -1 is CURL_SOCKET_BAD, and
 * libcurl forgets why. */
static curl_socket_t open_socket(void *user, curlsocktype purpose,
                                 struct curl_sockaddr *at) {
  struct kept *kept = user;
  int fd = socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
  (void)purpose;
  if (fd < 0 && kept->call)
    kept->call->no_socket = errno;
  net_watch_opened(kept->watch, fd);
  return fd;
}


/* Told before the close: the number may be another thread's right after. */
static int close_socket(void *user, curl_socket_t fd) {
  net_watch_closing(user, fd);
  return close(fd);
}


/* One header line a call, whole, of interim replies and trailers as well.
 * Another count than `size` ends the transfer with CURLE_WRITE_ERROR; why is
 * in reply.err. */
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
    net_call_look(call, now);       /* idleness begins to count */
  return size;
}


/* ---- a handle and what is kept beside it ---- */

/* CURLINFO_PRIVATE writes a `char *`, whatever was set. */
static struct kept *kept_of(CURL *easy) {
  char *kept = NULL;
  curl_easy_getinfo(easy, CURLINFO_PRIVATE, &kept);
  return (struct kept *)(void *)kept;
}


struct net_call *net_easy_call(CURL *easy) {
  return kept_of(easy)->call;
}


/* The handle goes first: libcurl reads `parts` as long as it has them. */
void net_easy_free(CURL *easy) {
  struct kept *kept = easy ? kept_of(easy) : NULL;
  curl_easy_cleanup(easy);
  if (!kept)
    return;
  curl_url_cleanup(kept->parts);
  mem_free(kept->url);
  mem_free(kept);
}


/* A handle that has its struct kept, and no other option. */
static CURL *new_kept(struct net_watch *watch) {
  CURL *easy = curl_easy_init();
  struct kept *kept = mem_calloc(1, sizeof *kept);
  if (easy && kept && (kept->parts = curl_url())
      && !curl_easy_setopt(easy, CURLOPT_PRIVATE, kept)) {
    kept->watch = watch;
    return easy;
  }
  if (kept)
    curl_url_cleanup(kept->parts);
  mem_free(kept);
  curl_easy_cleanup(easy);
  return NULL;
}


/* A URL whose parts cannot be had is libcurl's to refuse, in its words. */
static CURLcode set_url(CURL *easy, struct kept *kept, const char *url) {
  if (kept->url && strcmp(kept->url, url) == 0)
    return CURLE_OK;
  size_t size = strlen(url) + 1;
  char *copy = mem_realloc(kept->url, size);
  CURLcode rc = copy ? CURLE_OK : CURLE_OUT_OF_MEMORY;
  if (!copy)
    return rc;
  memcpy(copy, url, size);
  kept->url = copy;
  CURLUcode bad = curl_url_set(kept->parts, CURLUPART_URL, url,
                               CURLU_PATH_AS_IS | CURLU_DISALLOW_USER);
  SET(CURLOPT_URL, url);
  SET(CURLOPT_CURLU, bad ? NULL : kept->parts);
  if (rc || bad) {
    mem_free(kept->url);            /* next time it is read again */
    kept->url = NULL;
  }
  return rc;
}


/* ---- options ---- */

/* Some of these are libcurl's defaults: said because they are what the head
 * of this file promises, and a build may have others. HTTP/1.1 alone: with h2
 * over TLS a small reply took 1.5 times the CPU, and 7.88 fails the second
 * request of a kept h2c connection (curl issue 10634). QUICK_EXIT: without it
 * the end of a call whose name is being looked up joins the resolver's
 * thread, 2.9 s measured, and all other calls stand still. */
CURL *net_easy_new(struct net_watch *watch) {
  CURL *easy = new_kept(watch);
  CURLcode rc = easy ? CURLE_OK : CURLE_OUT_OF_MEMORY;
  SET(CURLOPT_NOSIGNAL, 1L);
  SET(CURLOPT_QUICK_EXIT, 1L);      /* no wait for a resolver */
  SET(CURLOPT_FOLLOWLOCATION, 0L);
  SET(CURLOPT_MAXREDIRS, 0L);
  SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
  SET(CURLOPT_UNRESTRICTED_AUTH, 0L);
  SET(CURLOPT_AUTOREFERER, 0L);
  SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  SET(CURLOPT_PROXY, "");           /* not NULL: that reads the environment */
  SET(CURLOPT_NOPROXY, "*");
  SET(CURLOPT_HTTP09_ALLOWED, 0L);
  SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  SET(CURLOPT_PATH_AS_IS, 1L);
  SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  SET(CURLOPT_ACCEPT_ENCODING, NULL);           /* not "": that is all */
  SET(CURLOPT_TRANSFER_ENCODING, 0L);
  SET(CURLOPT_SSL_VERIFYPEER, 1L);
  SET(CURLOPT_SSL_VERIFYHOST, 2L);  /* 2: the name must match */
  SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  SET(CURLOPT_CAPATH, NULL);        /* else the bundle is read anew each time */
  SET(CURLOPT_MAXAGE_CONN, (long)IDLE_CONNECTION_S);
  SET(CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_LIFE_S);
  SET(CURLOPT_TCP_NODELAY, 1L);
  SET(CURLOPT_VERBOSE, 0L);
  SET(CURLOPT_NOPROGRESS, 1L);
  SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
  SET(CURLOPT_OPENSOCKETDATA, easy ? kept_of(easy) : NULL);
  SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
  SET(CURLOPT_CLOSESOCKETDATA, watch);
  SET(CURLOPT_PREREQFUNCTION, before_send);
  SET(CURLOPT_HEADERFUNCTION, take_line);
  SET(CURLOPT_WRITEFUNCTION, take_bytes);
  if (rc == CURLE_OK)
    return easy;
  net_easy_free(easy);
  return NULL;
}


/* Milliseconds behind one of our deadlines; 0 (libcurl's default) for none. */
static long backstop(int64_t ns) {
  int64_t ms = ns / 1000000;
  return ns <= 0 ? 0 : ms > INT32_MAX ? INT32_MAX : (long)ms + BACKSTOP_MS;
}


/* The body and the headers are not copied by libcurl (POSTFIELDS, HTTPHEADER);
 * texts are. `cainfo` is named since NULL takes the built-in one away.
 * MAXFILESIZE stops a reply whose Content-Length says too much already, with
 * the largest of the caps; reply.c counts what comes, against the right one. */
int net_easy_set(CURL *easy, struct net_call *call) {
  const struct net_request *r = &call->request;
  const char *bundle = r->ca_file;
  if (r->https && !bundle)
    bundle = curl_version_info(CURLVERSION_NOW)->cainfo;
  struct kept *kept = kept_of(easy);
  CURLcode rc = set_url(easy, kept, r->url);
  kept->call = call;
  SET(CURLOPT_PREREQDATA, call);
  SET(CURLOPT_HEADERDATA, call);
  SET(CURLOPT_WRITEDATA, call);
  SET(CURLOPT_PROTOCOLS_STR, r->https ? "https" : "http");
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


/* Only the pointers into the call. HTTPGET beside POSTFIELDS, for a POST with
 * none of them would read its body from standard input. */
void net_easy_clear(CURL *easy) {
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
  curl_easy_setopt(easy, CURLOPT_POSTFIELDS, NULL);
  curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
  kept_of(easy)->call = NULL;
}
