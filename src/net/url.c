/* url: see url.h.
 *
 * SPDX-License-Identifier: MIT */
#include "url.h"

#include <string.h>

#include "../base/err.h"
#include "host.h"


/* ASCII case is folded by hand: tolower() asks the locale. */
static int is_prefix(const char *url, size_t size, const char *scheme) {
  size_t n = strlen(scheme);
  if (size < n)
    return 0;
  for (size_t i = 0; i < n; i++) {
    char c = url[i];
    if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != scheme[i])
      return 0;
  }
  return 1;
}


/* First of all: bytes on whose meaning readers differ. WHATWG strips tabs and
 * line ends and reads a backslash as a slash; others take them as they are. */
static int check_bytes(const char *url, size_t size, drover_err *err) {
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)url[i];
    if (c <= 0x20 || c == 0x7F)
      return drover_fail(err, DROVER_EINVAL,
                         "a space or control character at byte %zu", i + 1);
    if (c == '\\')
      return drover_fail(err, DROVER_EINVAL, "a backslash");
    if (c > 0x7F)
      return drover_fail(err, DROVER_EINVAL,
                         "a character outside ASCII at byte %zu", i + 1);
  }
  return DROVER_OK;
}


static int is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')
         || (c >= 'A' && c <= 'F');
}


/* "." or "..", also with the dot as %2e: readers fold such segments (RFC
 * 3986, 5.2.4; WHATWG for %2e), so a base would not be the one checked. */
static int is_dots(const char *segment, size_t size) {
  size_t dots = 0;
  for (size_t i = 0; i < size; dots++) {
    if (segment[i] == '.')
      i++;
    else if (size - i >= 3 && is_prefix(segment + i, 3, "%2e"))
      i += 3;
    else
      return 0;
  }
  return dots == 1 || dots == 2;
}


/* What RFC 3986 allows in a path or a query, and no dots to fold. */
static int check_path(const char *path, size_t size, int query,
                      drover_err *err) {
  static const char others[] = "-._~!$&'()*+,;=:@/";
  size_t segment = 0;
  for (size_t i = 0; i < size; i++) {
    char c = path[i];
    if (c == '%' && !(size - i >= 3 && is_hex(path[i + 1])
                      && is_hex(path[i + 2])))
      return drover_fail(err, DROVER_EINVAL, "a %% without two hex digits");
    if (c == '%' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
        || (c >= 'A' && c <= 'Z'))
      continue;
    if (!(query && c == '?') && !memchr(others, c, sizeof others - 1))
      return drover_fail(err, DROVER_EINVAL,
                         "a '%c' that must be percent-encoded", c);
    if (query || c != '/')
      continue;
    if (is_dots(path + segment, i - segment))
      return drover_fail(err, DROVER_EINVAL, "a path with . or ..");
    segment = i + 1;
  }
  if (!query && is_dots(path + segment, size - segment))
    return drover_fail(err, DROVER_EINVAL, "a path with . or ..");
  return DROVER_OK;
}


/* No leading zero and no empty port: both are allowed by RFC 3986, and give
 * one node two spellings. */
static int read_port(const char *text, size_t size, int32_t *out,
                     drover_err *err) {
  int32_t port = 0;
  int right = size > 0 && size <= 5 && text[0] != '0';
  for (size_t i = 0; right && i < size; i++) {
    right = text[i] >= '0' && text[i] <= '9';
    port = port * 10 + (text[i] - '0');
  }
  if (!right || port > 65535)
    return drover_fail(err, DROVER_EINVAL,
                       "a port is a number from 1 to 65535");
  *out = port;
  return DROVER_OK;
}


/* An `@` is refused wherever it stands: before it is where the host seems to
 * be, behind it where the connection goes. A colon inside brackets is the
 * address's. `out->port` keeps the scheme's default when there is none. */
static int read_authority(const char *text, size_t size, drover_url *out,
                          drover_err *err) {
  size_t host = size;
  if (memchr(text, '@', size))
    return drover_fail(err, DROVER_EINVAL,
                       "a user name or password: use `key`");
  const char *bracket = size && text[0] == '[' ? memchr(text, ']', size) : NULL;
  if (size && text[0] == '[' && !bracket)
    return drover_fail(err, DROVER_EINVAL, "not an IPv6 address");
  const char *from = bracket ? bracket : text;
  const char *colon = memchr(from, ':', size - (size_t)(from - text));
  if (bracket && bracket + 1 < text + size && colon != bracket + 1)
    return drover_fail(err, DROVER_EINVAL, "not an IPv6 address");
  if (colon) {
    host = (size_t)(colon - text);
    int rc = read_port(colon + 1, size - host - 1, &out->port, err);
    if (rc)
      return rc;
  }
  return net_host_read(text, host, out->host, &out->local, err);
}


/* The base's path, without the slash at its end. */
static int read_base(const char *path, size_t size, drover_url *out,
                     drover_err *err) {
  if (memchr(path, '?', size))
    return drover_fail(err, DROVER_EINVAL, "a query");
  int rc = check_path(path, size, 0, err);
  if (rc)
    return rc;
  for (size_t i = 1; i < size; i++)
    if (path[i] == '/' && path[i - 1] == '/')
      return drover_fail(err, DROVER_EINVAL, "a path with //");
  if (size && path[size - 1] == '/')
    size--;
  if (size >= sizeof out->path)
    return drover_fail(err, DROVER_EINVAL, "a path longer than %zu bytes",
                       sizeof out->path - 1);
  memcpy(out->path, path, size);
  return DROVER_OK;
}


/* unix:/path.sock or unix:/path.sock:/base */
static int read_unix(const char *text, size_t size, drover_url *out,
                     drover_err *err) {
  const char *colon = memchr(text, ':', size);
  size_t file = colon ? (size_t)(colon - text) : size;
  if (file < 2 || text[0] != '/')
    return drover_fail(err, DROVER_EINVAL,
                       "unix: wants the full path of a socket");
  if (file >= sizeof out->unix_path)
    return drover_fail(err, DROVER_EINVAL,
                       "a socket's path has at most %zu bytes",
                       sizeof out->unix_path - 1);
  if (memchr(text, '@', file) || memchr(text, '?', file))
    return drover_fail(err, DROVER_EINVAL, "a socket's path with @ or ?");
  memcpy(out->unix_path, text, file);
  out->is_unix = out->local = 1;
  out->port = 80;
  strcpy(out->host, "localhost");
  if (!colon)
    return DROVER_OK;
  if (file + 1 == size || colon[1] != '/')
    return drover_fail(err, DROVER_EINVAL,
                       "the base behind the socket begins with a slash");
  return read_base(colon + 1, size - file - 1, out, err);
}


/* Scheme and authority; *rest is where the path begins. */
static int read_front(const char *url, size_t size, drover_url *out,
                      size_t *rest, drover_err *err) {
  memset(out, 0, sizeof *out);
  if (size > NET_URL_MAX)
    return drover_fail(err, DROVER_EINVAL, "longer than %d bytes", NET_URL_MAX);
  int rc = check_bytes(url, size, err);
  if (rc)
    return rc;
  if (memchr(url, '#', size))
    return drover_fail(err, DROVER_EINVAL, "a fragment");
  *rest = 0;
  if (is_prefix(url, size, "unix:"))
    return DROVER_OK;
  out->https = is_prefix(url, size, "https://");
  if (!out->https && !is_prefix(url, size, "http://"))
    return drover_fail(err, DROVER_EINVAL,
                       "begins with none of http:// https:// unix:");
  out->port = out->https ? 443 : 80;
  size_t start = out->https ? 8 : 7, stop = start;
  while (stop < size && url[stop] != '/' && url[stop] != '?')
    stop++;
  *rest = stop;
  return read_authority(url + start, stop - start, out, err);
}


/* `rest` is 0 for unix: only; a path never begins at the front. */
int net_url_node(const char *url, size_t size, drover_url *out,
                 drover_err *err) {
  size_t rest;
  int rc = read_front(url, size, out, &rest, err);
  if (rc)
    return rc;
  return rest == 0 ? read_unix(url + 5, size - 5, out, err)
                   : read_base(url + rest, size - rest, out, err);
}


/* A double slash is allowed here, unlike in a base: the caller's path is
 * joined behind it as it is. */
int net_url_call(const char *url, size_t size, drover_url *out,
                 drover_err *err) {
  size_t rest;
  int rc = read_front(url, size, out, &rest, err);
  if (rc)
    return rc;
  if (rest == 0)
    return drover_fail(err, DROVER_EINVAL, "begins with unix:");
  const char *query = memchr(url + rest, '?', size - rest);
  size_t path = query ? (size_t)(query - url) - rest : size - rest;
  rc = check_path(url + rest, path, 0, err);
  if (rc || !query)
    return rc;
  return check_path(query + 1, size - rest - path - 1, 1, err);
}
