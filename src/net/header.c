/* header: see header.h.
 *
 * SPDX-License-Identifier: MIT */
#include "header.h"

#include <string.h>

#include "../base/err.h"

enum { NAME_SHOWN = 48 };           /* bytes of a name in an error's text */


/* RFC 9110, 5.6.2: tchar, that is letters, digits and !#$%&'*+-.^_`|~. A bit
 * for each of 128 characters: names are checked in every call. */
static int is_token(unsigned char c) {
  static const uint64_t tchar[2] = { UINT64_C(0x03ff6cfa00000000),
                                     UINT64_C(0x57ffffffc7fffffe) };
  return c < 128 && (tchar[c >> 6] >> (c & 63) & 1);
}


/* RFC 9110, 5.5: VCHAR, space, tab and obs-text. CR, LF and NUL would end the
 * line for some reader on the way (request splitting). */
static int is_text(unsigned char c) {
  return c == '\t' || (c >= 0x20 && c != 0x7F);
}


static char lower(char c) {
  return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}


static int is_name(const char *name, size_t size, const char *want) {
  if (size != strlen(want))
    return 0;
  for (size_t i = 0; i < size; i++)
    if (lower(name[i]) != want[i])
      return 0;
  return 1;
}


static int is_one_of(const char *name, size_t size, const char *const *list) {
  for (; *list; list++)
    if (is_name(name, size, *list))
      return 1;
  return 0;
}


/* Who writes these could smuggle a second request, or be seen as a proxy. Most
 * names do not even begin like one of them. */
static int is_ours(const char *name, size_t size) {
  static const char *const framing[] = {
    "host", "content-length", "transfer-encoding", "connection", "te",
    "trailer", "upgrade", "expect", "keep-alive", NULL,
  };
  if (!strchr("hctuekpHCTUEKP", name[0]))
    return 0;
  return is_one_of(name, size, framing)
         || (size >= 6 && is_name(name, 6, "proxy-"));
}


/* The text quotes a name only when it is a token, so that it can be logged;
 * a value never, since it may be a key. */
int net_header_check(const char *name, size_t name_size, const char *value,
                     size_t value_size, drover_err *err) {
  int shown = name_size < NAME_SHOWN ? (int)name_size : NAME_SHOWN;
  if (name_size == 0)
    return drover_fail(err, DROVER_EINVAL, "a header without a name");
  for (size_t i = 0; i < name_size; i++)
    if (!is_token((unsigned char)name[i]))
      return drover_fail(err, DROVER_EINVAL,
                         "a header's name has a character that is not allowed"
                         " at byte %zu", i + 1);
  if (name_size > NET_HEADER_MAX || value_size > NET_HEADER_MAX - name_size)
    return drover_fail(err, DROVER_EINVAL, "header %.*s: longer than %d bytes",
                       shown, name, NET_HEADER_MAX);
  for (size_t i = 0; i < value_size; i++)
    if (!is_text((unsigned char)value[i]))
      return drover_fail(err, DROVER_EINVAL, "header %.*s: a line break, NUL or"
                         " control character in its value", shown, name);
  if (value_size && (strchr(" \t", value[0])
                     || strchr(" \t", value[value_size - 1])))
    return drover_fail(err, DROVER_EINVAL,
                       "header %.*s: a space at an end of its value",
                       shown, name);
  if (is_ours(name, name_size))
    return drover_fail(err, DROVER_EINVAL,
                       "header %.*s: is the transport's to write", shown, name);
  return DROVER_OK;
}


int net_header_check_caller(const char *name, size_t name_size,
                            const char *value, size_t value_size,
                            drover_err *err) {
  static const char *const keys[] = {
    "authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", NULL,
  };
  int rc = net_header_check(name, name_size, value, value_size, err);
  if (!rc && is_one_of(name, name_size, keys))
    return drover_fail(err, DROVER_EINVAL,
                       "header %.*s: keys belong to the node", (int)name_size,
                       name);
  return rc;
}


/* Behind the colon comes one space, or none: a second one is the value's, and
 * refused as a space at its end. */
static int check_line(const char *line, size_t size, drover_err *err) {
  const char *colon = memchr(line, ':', size);
  if (!colon)
    return drover_fail(err, DROVER_EINVAL, "a header line without a colon");
  size_t name = (size_t)(colon - line), skip = name + 1;
  if (skip < size && line[skip] == ' ')
    skip++;
  return net_header_check(line, name, line + skip, size - skip, err);
}


/* The last line may lack its LF. An empty line is one without a colon: no
 * block can end the head early. */
int net_header_lines(const char *text, size_t size, size_t *count,
                     drover_err *err) {
  *count = 0;
  while (size) {
    const char *end = memchr(text, '\n', size);
    size_t line = end ? (size_t)(end - text) : size;
    int rc = check_line(text, line, err);
    if (rc)
      return rc;
    ++*count;
    line += end != NULL;
    text += line;
    size -= line;
  }
  return DROVER_OK;
}


/* Lenient where the request's check is strict: a node's odd header is skipped
 * and costs no reply. A folded line (RFC 9112, 5.2) begins with a space, which
 * is no token. A name without room is none that is read. */
int net_header_read(const char *line, size_t size, struct net_header *out) {
  while (size && strchr("\r\n \t", line[size - 1]) && line[size - 1])
    size--;
  const char *colon = size ? memchr(line, ':', size) : NULL;
  size_t name = colon ? (size_t)(colon - line) : 0;
  if (name == 0 || name >= sizeof out->name)
    return 0;
  for (size_t i = 0; i < name; i++) {
    if (!is_token((unsigned char)line[i]))
      return 0;
    out->name[i] = lower(line[i]);
  }
  out->name[name] = '\0';
  const char *value = colon + 1;
  size -= name + 1;
  while (size && (*value == ' ' || *value == '\t')) {
    value++;
    size--;
  }
  for (size_t i = 0; i < size; i++)
    if (!is_text((unsigned char)value[i]))
      return 0;
  out->value = value;
  out->value_size = size;
  return 1;
}


/* What retries, limits and reports read; Set-Cookie and the like never reach
 * the application, nor does what is longer than any of these would be. */
int net_header_kept(const struct net_header *h) {
  static const char *const names[] = {
    "content-type", "retry-after", "retry-after-ms", "x-ms-retry-after-ms",
    "date", "x-should-retry", "x-request-id", "request-id",
    "x-amzn-requestid", "x-amzn-errortype",
  };
  static const char *const groups[] = {
    "x-ratelimit-", "anthropic-ratelimit-",
  };
  if (h->value_size > NET_HEADER_KEPT_MAX)
    return 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(h->name, names[i]) == 0)
      return 1;
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
    if (strncmp(h->name, groups[i], strlen(groups[i])) == 0)
      return 1;
  return 0;
}
