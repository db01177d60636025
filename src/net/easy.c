/* easy: see easy.h.
 *
 * Not used, on purpose: redirects (keys would follow), netrc, cookies, alt-svc,
 * HSTS, proxies of the environment, libcurl's own authentication, decoding of
 * compressed replies, CURLOPT_ERRORBUFFER (it quotes what nodes send), low-speed
 * limits (a long prompt is silent for a minute). A node's address comes from
 * the operator, so an address of the own network is no offence.
 *
 * SPDX-License-Identifier: MIT */
#include "easy.h"

#include <errno.h>
#include <sys/socket.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "loop.h"

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
  (void)user;
  (void)purpose;
  return socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
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
    net_loop_look(call->loop, call, now);
  return size;
}


/* ---- options ---- */

CURL *net_easy_new(void) {
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


/* ---- failures ---- */

struct fault { CURLcode rc; int code; const char *text; };

static const struct fault faults[] = {
  { CURLE_COULDNT_RESOLVE_HOST, DROVER_EUNREACHABLE, "its name does not resolve" },
  { CURLE_COULDNT_CONNECT, DROVER_EUNREACHABLE, "no connection" },
  { CURLE_INTERFACE_FAILED, DROVER_EUNREACHABLE, "no connection" },
  { CURLE_SSL_CONNECT_ERROR, DROVER_ETLS, "the TLS handshake failed" },
  { CURLE_PEER_FAILED_VERIFICATION, DROVER_ETLS, "its certificate is not trusted" },
  { CURLE_SSL_CACERT_BADFILE, DROVER_ETLS, "the CA bundle cannot be read" },
  { CURLE_SSL_CERTPROBLEM, DROVER_ETLS, "TLS: a certificate cannot be used" },
  { CURLE_SSL_CIPHER, DROVER_ETLS, "TLS: no cipher in common" },
  { CURLE_SSL_ISSUER_ERROR, DROVER_ETLS, "TLS: the issuer is not trusted" },
  { CURLE_SSL_INVALIDCERTSTATUS, DROVER_ETLS, "TLS: the certificate's status" },
  { CURLE_OPERATION_TIMEDOUT, DROVER_ETIMEOUT, "the transport gave up waiting" },
  { CURLE_GOT_NOTHING, DROVER_ERESET, "the connection closed before a reply" },
  { CURLE_SEND_ERROR, DROVER_ERESET, "the connection was lost while sending" },
  { CURLE_SEND_FAIL_REWIND, DROVER_ERESET, "the connection was lost while sending" },
  { CURLE_PARTIAL_FILE, DROVER_ETRUNCATED, "the reply was cut short" },
  { CURLE_WEIRD_SERVER_REPLY, DROVER_EMALFORMED, "the reply is not HTTP" },
  { CURLE_UNSUPPORTED_PROTOCOL, DROVER_EMALFORMED, "the reply is not HTTP" },
  { CURLE_BAD_CONTENT_ENCODING, DROVER_EMALFORMED, "the reply's encoding" },
  { CURLE_FILESIZE_EXCEEDED, DROVER_ETOOLARGE, "the reply is too large" },
  { CURLE_URL_MALFORMAT, DROVER_EINVAL, "a url that the transport refuses" },
  { CURLE_OUT_OF_MEMORY, DROVER_ENOMEM, "no memory in the transport" },
};


/* What the system says when a connection breaks under a reader. (The errno
 * that libcurl remembers may also be of the connect: EINPROGRESS.) */
static int is_loss(long os) {
  return os == ECONNRESET || os == EPIPE || os == ETIMEDOUT
         || os == ENETUNREACH || os == EHOSTUNREACH || os == ECONNABORTED;
}


/* A chunk that cannot be read and a connection that breaks have one code in
 * libcurl. Over TLS both may come without an error of the system's. */
static int received_badly(const struct net_call *call, drover_err *text) {
  long os = 0;
  curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &os);
  if (!call->reply.heard)
    return drover_fail(text, DROVER_ERESET,
                       "the connection was lost before a reply");
  if (!is_loss(os) && !call->request.https)
    return drover_fail(text, DROVER_EMALFORMED, "the reply's framing is broken");
  return drover_fail(text, DROVER_ERESET,
                     "the connection was lost in the reply");
}


int net_easy_fault(const struct net_call *call, CURLcode rc,
                   drover_err *text) {
  if (rc == CURLE_ABORTED_BY_CALLBACK && call->sends > 1)
    return drover_fail(text, DROVER_ERESET, "the connection was lost before a"
                       " reply; the request was not sent again");
  if (rc == CURLE_RECV_ERROR)
    return received_badly(call, text);
  if (rc == CURLE_OUT_OF_MEMORY && call->sends && !call->reply.head_done)
    return drover_fail(text, DROVER_ETOOLARGE,  /* so 7.88 says of such a line */
                       "the reply's headers are too large");
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    if (faults[i].rc == rc)
      return drover_fail(text, faults[i].code, "%s", faults[i].text);
  return drover_fail(text, DROVER_EINTERNAL, "transport error %d", (int)rc);
}
