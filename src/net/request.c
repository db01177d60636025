/* request: see request.h.
 *
 * SPDX-License-Identifier: MIT */
#include "request.h"

#include <curl/curl.h>
#include <string.h>

#include "../base/clock.h"
#include "../base/err.h"
#include "../base/mem.h"
#include "header.h"
#include "url.h"

/* A header without a value takes libcurl's own away: 7.88 would send Expect
 * and wait up to a second for a 100 before a body of more than 1 MiB. */
static const char no_expect[] = "Expect:";


/* The unix path has room in sockaddr_un. A text of the URL's check is repeated
 * behind its field's name. */
static int check(const drover_call_config *c, drover_url *url, size_t *headers,
                 drover_err *err) {
  drover_err why;
  if (!c->method || !c->url)
    return drover_fail(err, DROVER_EINVAL, "a call wants a method and a url");
  int post = strcmp(c->method, "POST") == 0;
  if (!post && strcmp(c->method, "GET") != 0)
    return drover_fail(err, DROVER_EINVAL, "the method must be POST or GET");
  if (!post && c->body_size)
    return drover_fail(err, DROVER_EINVAL, "a GET has no body");
  int rc = net_url_call(c->url, strlen(c->url), url, &why);
  if (rc)
    return drover_fail(err, rc, "url: %s", why.text);
  if (c->unix_path && (c->unix_path[0] != '/'
                       || strlen(c->unix_path) >= sizeof url->unix_path))
    return drover_fail(err, DROVER_EINVAL, "unix_path: not a socket's path");
  return net_header_lines(c->headers ? c->headers : "",
                          c->headers ? c->headers_size : 0, headers, err);
}


/* Bytes in the block; an absent text takes none. */
static size_t length(const char *text) {
  return text ? strlen(text) + 1 : 0;
}


/* Append a text and its NUL to the block. */
static const char *put(char **at, const char *text, size_t size) {
  char *to = *at;
  if (size)
    memcpy(to, text, size);
  to[size] = '\0';
  *at = to + size + 1;
  return to;
}


static const char *put_text(char **at, const char *text) {
  return text ? put(at, text, strlen(text)) : NULL;
}


/* One line as libcurl wants it: "Name;" is a header with an empty value, for
 * "Name:" would take it away. */
static char *put_header(char **at, const char *line, size_t size) {
  char *to = *at;
  const char *colon = memchr(line, ':', size);
  size_t name = (size_t)(colon - line), skip = name + 1;
  if (skip < size && line[skip] == ' ')
    skip++;
  put(at, line, size);
  if (skip == size)
    memcpy(to + name, ";", 2);
  return to;
}


/* A curl_slist made by hand, its nodes and texts in our block: libcurl only
 * reads it, and curl_slist_free_all() must never see it. */
static void put_headers(struct net_request *r, struct curl_slist *node,
                        char **at, const drover_call_config *c) {
  const char *text = c->headers;
  size_t size = text ? c->headers_size : 0;
  r->headers = node;
  node->data = *at;
  node->next = NULL;
  put(at, no_expect, sizeof no_expect - 1);
  while (size) {
    const char *end = memchr(text, '\n', size);
    size_t line = end ? (size_t)(end - text) : size;
    node->next = node + 1;
    node++;
    *node = (struct curl_slist){ put_header(at, text, line), NULL };
    line += end != NULL;
    text += line;
    size -= line;
  }
}


/* The block: list nodes first, which want alignment, then the texts, each with
 * its NUL, then the body. A header's LF in `headers_size` pays for its NUL;
 * `headers` pays for a last one without LF. */
int net_request_init(struct net_request *r, const drover_call_config *c,
                     drover_err *err) {
  drover_url url;
  size_t headers = 0;
  memset(r, 0, sizeof *r);
  int rc = check(c, &url, &headers, err);
  if (rc)
    return rc;
  size_t nodes = (headers + 1) * sizeof(struct curl_slist);
  size_t texts = length(c->url) + length(c->unix_path) + length(c->ca_file)
                 + (c->headers ? c->headers_size : 0) + headers + 1
                 + sizeof no_expect;
  if (c->body_size > SIZE_MAX / 2 - nodes - texts)
    return drover_fail(err, DROVER_ETOOLARGE, "the body is too large");
  r->block_size = nodes + texts + c->body_size + 1;
  char *at = r->block = mem_alloc(r->block_size);
  if (!at)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a request");
  struct curl_slist *list = r->block;
  at += nodes;
  put_headers(r, list, &at, c);
  r->url = put_text(&at, c->url);
  r->unix_path = put_text(&at, c->unix_path);
  r->ca_file = put_text(&at, c->ca_file);
  r->body = put(&at, c->body, c->body_size);
  r->body_size = c->body_size;
  r->post = strcmp(c->method, "POST") == 0;
  r->https = url.https;
  r->stream = c->stream != 0;
  r->connect_ns = clock_ns(c->connect);
  r->first_token_ns = clock_ns(c->first_token);
  r->idle_ns = clock_ns(c->idle);
  r->total_ns = clock_ns(c->total);
  r->body_max = c->body_max;
  return DROVER_OK;
}


/* Also of one that is all zeroes, and a second time. */
void net_request_deinit(struct net_request *r) {
  mem_wipe(r->block, r->block_size);
  mem_free(r->block);
  memset(r, 0, sizeof *r);
}
