/* outcome: see outcome.h.
 *
 * SPDX-License-Identifier: MIT */
#include "outcome.h"

#include <errno.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"

/* What is not here is a fault of ours: fault() calls it internal. Whether the
 * request may be tried elsewhere follows from `code`, in base/err.c. */
struct row { CURLcode rc; int code; const char *text; };

/* CURLE_TOO_LARGE, which libcurl says since 8.6 where fault() has what 7.88
 * says; the header that we are built with may be older. */
enum { TOO_LARGE = 100 };

static const struct row rows[] = {
  { CURLE_COULDNT_RESOLVE_HOST, DROVER_EUNREACHABLE, "its name is not found" },
  { CURLE_COULDNT_CONNECT, DROVER_EUNREACHABLE, "no connection" },
  { CURLE_INTERFACE_FAILED, DROVER_EUNREACHABLE, "no connection" },
  { CURLE_SSL_CONNECT_ERROR, DROVER_ETLS, "the TLS handshake failed" },
  { CURLE_PEER_FAILED_VERIFICATION, DROVER_ETLS,
    "its certificate is not trusted" },
  { CURLE_SSL_CACERT_BADFILE, DROVER_ETLS, "the CA bundle cannot be read" },
  { CURLE_SSL_CERTPROBLEM, DROVER_ETLS, "TLS: a certificate cannot be used" },
  { CURLE_SSL_CIPHER, DROVER_ETLS, "TLS: no cipher in common" },
  { CURLE_SSL_ISSUER_ERROR, DROVER_ETLS, "TLS: the issuer is not trusted" },
  { CURLE_SSL_INVALIDCERTSTATUS, DROVER_ETLS, "TLS: the certificate's status" },
  { CURLE_OPERATION_TIMEDOUT, DROVER_ETIMEOUT, "the transport gave up" },
  { CURLE_GOT_NOTHING, DROVER_ERESET, "the connection closed before a reply" },
  { CURLE_SEND_ERROR, DROVER_ERESET, "the connection was lost while sending" },
  { CURLE_SEND_FAIL_REWIND, DROVER_ERESET,
    "the connection was lost while sending" },
  { CURLE_PARTIAL_FILE, DROVER_ETRUNCATED, "the reply was cut short" },
  { CURLE_WEIRD_SERVER_REPLY, DROVER_EMALFORMED, "the reply is not HTTP" },
  { CURLE_UNSUPPORTED_PROTOCOL, DROVER_EMALFORMED, "the reply is not HTTP" },
  { CURLE_BAD_CONTENT_ENCODING, DROVER_EMALFORMED, "the reply's encoding" },
  { (CURLcode)TOO_LARGE, DROVER_EMALFORMED,
    "the reply's headers are too large" },
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
    return drover_fail(text, DROVER_EMALFORMED,
                       "the reply's framing is broken");
  return drover_fail(text, DROVER_ERESET,
                     "the connection was lost in the reply");
}


/* No connection because this machine has no descriptor or no port for one
 * more. */
static int is_ours(const struct net_call *call) {
  long os = 0;
  curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &os);
  os = call->no_socket ? call->no_socket : os;
  return os == EMFILE || os == ENFILE || os == ENOBUFS || os == ENOMEM
         || os == EADDRNOTAVAIL;
}


/* What 7.88 says in other words than it means comes before the table:
 * ABORTED_BY_CALLBACK with two sends is our own refusal in before_send();
 * RECV_ERROR has two meanings; and so have COULDNT_CONNECT and OUT_OF_MEMORY. */
static int fault(const struct net_call *call, CURLcode rc, drover_err *text) {
  if (rc == CURLE_ABORTED_BY_CALLBACK && call->sends > 1)
    return drover_fail(text, DROVER_ERESET, "the connection was lost before a"
                       " reply; the request was not sent again");
  if (rc == CURLE_RECV_ERROR)
    return received_badly(call, text);
  if (rc == CURLE_COULDNT_CONNECT && is_ours(call))
    return drover_fail(text, DROVER_ERESOURCE,
                       "no descriptor or port left for a connection");
  /* So 7.88 calls a header line of more than 100 KiB. */
  if (rc == CURLE_OUT_OF_MEMORY && call->sends && !call->reply.head_done)
    return drover_fail(text, DROVER_EMALFORMED,
                       "the reply's headers are too large");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].rc == rc)
      return drover_fail(text, rows[i].code, "%s", rows[i].text);
  return drover_fail(text, DROVER_EINTERNAL, "transport error %d", (int)rc);
}


/* The event's span is the caller's `text`, which must outlive the push. */
static void fill_fail(struct net_call *call, drover_event *ev,
                      const drover_err *text, enum drover_phase phase) {
  *ev = (drover_event){
    .type = DROVER_EVENT_FAIL, .code = text->code, .phase = (int32_t)phase,
    .maybe_billed = net_call_billed(call),
    .data = text->text, .data_size = strlen(text->text),
  };
}


/* Names the option of the configuration and its value, rounded up to whole
 * milliseconds as %g would show noise. A call that was left has a `total` of
 * the transport's own, but then nobody reads this. */
void net_outcome_late(struct net_call *call, enum net_limit limit,
                      drover_event *ev, drover_err *text) {
  const struct net_request *r = &call->request;
  const struct { const char *name; int64_t ns; enum drover_phase phase; }
  limits[] = {
    [NET_LIMIT_CONNECT] = { "connect", r->connect_ns, DROVER_PHASE_CONNECT },
    [NET_LIMIT_FIRST_TOKEN] = { "first_token", r->first_token_ns,
                                DROVER_PHASE_FIRST_TOKEN },
    [NET_LIMIT_IDLE] = { "idle", r->idle_ns, DROVER_PHASE_STREAM },
    [NET_LIMIT_TOTAL] = { "total", r->total_ns, net_call_phase(call) },
  };
  int64_t ms = limits[limit].ns / 1000000 + (limits[limit].ns % 1000000 != 0);
  drover_fail(text, DROVER_ETIMEOUT, "timeout.%s of %g s passed",
              limits[limit].name, (double)ms / 1000);
  fill_fail(call, ev, text, limits[limit].phase);
}


/* libcurl's success is not ours: a stream can end in its head, and the last
 * event can fail to be pushed. The reply's own failure comes before libcurl's
 * code, which then only says that our callback has stopped the transfer. */
void net_outcome_done(struct net_call *call, CURLcode rc, drover_event *ev,
                      drover_err *text) {
  struct net_reply *reply = &call->reply;
  text->code = 0;
  if (rc == CURLE_OK && net_reply_end(reply, clock_now_ns()) == DROVER_OK) {
    *ev = (drover_event){ .type = DROVER_EVENT_END };
    return;
  }
  if (reply->err.code)
    *text = reply->err;
  else
    fault(call, rc, text);
  enum drover_phase phase = net_call_phase(call);
  if (text->code == DROVER_ETLS || text->code == DROVER_EUNREACHABLE
      || rc == CURLE_COULDNT_CONNECT)
    phase = DROVER_PHASE_CONNECT;
  fill_fail(call, ev, text, phase);
}


void net_outcome_fail(struct net_call *call, int code, const char *why,
                      drover_event *ev, drover_err *text) {
  drover_fail(text, code, "%s", why);
  fill_fail(call, ev, text, net_call_phase(call));
}
