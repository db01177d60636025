/* host: see host.h.
 *
 * SPDX-License-Identifier: MIT */
#include "host.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "../base/err.h"

/* RFC 1035, 2.3.4: 255 bytes on the wire are 253 as text. */
enum { HOST_MAX = 253, LABEL_MAX = 63, GROUPS = 8 };


static int is_digit(char c) {
  return c >= '0' && c <= '9';
}


static int is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f');
}


static int ends_with(const char *text, size_t size, const char *tail) {
  size_t n = strlen(tail);
  return size >= n && memcmp(text + size - n, tail, n) == 0;
}


/* Readers take a host whose last label looks like a number for IPv4 (WHATWG
 * URL, "ends in a number"), in parts of 8 to 32 bits, octal or hex: 0x7f.1 and
 * 2130706433 are 127.0.0.1. Only the form of read_quad() is let through. */
static int looks_like_number(const char *host) {
  const char *last = strrchr(host, '.');
  last = last ? last + 1 : host;
  if (last[0] == '0' && last[1] == 'x') {
    last += 2;
    while (is_hex(*last))
      last++;
    return *last == '\0';
  }
  if (!is_digit(*last))
    return 0;
  while (is_digit(*last))
    last++;
  return *last == '\0';
}


/* Four decimal numbers without leading zeros: nothing else is read alike by
 * everybody. */
static int read_quad(const char *host, unsigned char quad[4]) {
  for (int i = 0; i < 4; i++) {
    unsigned n = 0;
    if (!is_digit(*host) || (*host == '0' && is_digit(host[1])))
      return 0;
    while (is_digit(*host) && n <= 255)
      n = n * 10 + (unsigned)(*host++ - '0');
    if (n > 255 || *host != (i < 3 ? '.' : '\0'))
      return 0;
    quad[i] = (unsigned char)n;
    host++;
  }
  return 1;
}


/* 169.254/16 is link-local (RFC 3927); the clouds' metadata services, which
 * hand out credentials, are at 169.254.169.254. Private networks are allowed:
 * that is where nodes are. */
static int check_quad(const char *host, int *local, drover_err *err) {
  unsigned char q[4];
  if (!read_quad(host, q))
    return drover_fail(err, DROVER_EINVAL,
                       "not four decimal numbers without leading zeros");
  if (q[0] == 0 || q[0] >= 224)
    return drover_fail(err, DROVER_EINVAL,
                       "an address that is no host's (0/8, multicast)");
  if (q[0] == 169 && q[1] == 254)
    return drover_fail(err, DROVER_EINVAL,
                       "a link-local address (metadata services are there)");
  *local = q[0] == 127;
  return DROVER_OK;
}


/* RFC 5952: lower case, no leading zeros, the first longest run of two or more
 * zero groups as "::". At most 42 bytes with brackets and NUL. */
static void print_groups(const uint16_t g[GROUPS], char *out) {
  int best = -1, best_size = 1;
  for (int i = 0; i < GROUPS; i++) {
    int n = 0;
    while (i + n < GROUPS && g[i + n] == 0)
      n++;
    if (n > best_size) {
      best = i;
      best_size = n;
    }
  }
  char *p = out;
  *p++ = '[';
  for (int i = 0; i < GROUPS; i++) {
    if (i == best) {
      p += sprintf(p, "::");
      i += best_size - 1;
      continue;
    }
    p += sprintf(p, "%s%x", i && i != best + best_size ? ":" : "", g[i]);
  }
  strcpy(p, "]");
}


/* 1 when the first `zeros` groups are 0. */
static int starts_with_groups(const uint16_t g[GROUPS], int zeros) {
  for (int i = 0; i < zeros; i++)
    if (g[i] != 0)
      return 0;
  return 1;
}


/* Addresses that carry an IPv4 address say one thing and reach another:
 * ::ffff:0:0/96 and ::/96 (RFC 4291, 2.5.5), 2002::/16 (6to4, RFC 3056),
 * 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 6052, 8215), ::ffff:0:0:0/96 (RFC 2765).
 * fe80::/10 is link-local; fd00:ec2::254 is the metadata service of AWS. */
static int check_groups(const uint16_t g[GROUPS], int *local,
                        drover_err *err) {
  int zero7 = starts_with_groups(g, 7);
  *local = zero7 && g[7] == 1;
  if (*local)
    return DROVER_OK;
  int mapped = starts_with_groups(g, 5) && (g[5] == 0xffff || g[5] == 0);
  if ((mapped && !(zero7 && g[7] == 0)) || g[0] == 0x2002
      || (g[0] == 0x64 && g[1] == 0xff9b)
      || (starts_with_groups(g, 4) && g[4] == 0xffff))
    return drover_fail(err, DROVER_EINVAL,
                       "an IPv6 form of an IPv4 address: write the latter");
  if ((zero7 && g[7] == 0) || (g[0] & 0xff00) == 0xff00)
    return drover_fail(err, DROVER_EINVAL,
                       "an address that is no host's (::, multicast)");
  if ((g[0] & 0xffc0) == 0xfe80 || (g[0] == 0xfd00 && g[1] == 0xec2))
    return drover_fail(err, DROVER_EINVAL,
                       "a link-local address (metadata services are there)");
  return DROVER_OK;
}


/* inet_pton() takes no zone (%eth0) and no octal quad; `local` and the checks
 * work on the groups, so the spelling does not matter. */
static int read_six(const char *text, size_t size, char out[256], int *local,
                    drover_err *err) {
  char inside[64];
  unsigned char bytes[16];
  uint16_t g[GROUPS];
  if (size < 4 || size - 2 >= sizeof inside || text[size - 1] != ']')
    return drover_fail(err, DROVER_EINVAL, "not an IPv6 address");
  memcpy(inside, text + 1, size - 2);
  inside[size - 2] = '\0';
  if (inet_pton(AF_INET6, inside, bytes) != 1)
    return drover_fail(err, DROVER_EINVAL, "not an IPv6 address");
  for (int i = 0; i < GROUPS; i++)
    g[i] = (uint16_t)(bytes[2 * i] << 8 | bytes[2 * i + 1]);
  print_groups(g, out);
  return check_groups(g, local, err);
}


/* Labels of letters, digits, hyphens and underscores (which containers'
 * names have). Names outside ASCII would need the tables of IDNA, in either
 * spelling. A dot at the end is an empty label: certificates and node
 * identities would see another name. */
static int check_name(const char *host, size_t size, drover_err *err) {
  size_t label = 0;
  for (size_t i = 0; i <= size; i++) {
    char c = host[i];                           /* the last is the NUL */
    if (c == '.' || i == size) {
      if (label == 0 || label > LABEL_MAX)
        return drover_fail(err, DROVER_EINVAL,
                           "a host name with an empty or too long label");
      label = 0;
      continue;
    }
    if (!is_digit(c) && !(c >= 'a' && c <= 'z') && c != '-' && c != '_')
      return drover_fail(err, DROVER_EINVAL,
                         "a character that no host name has");
    if (label == 0 && strncmp(host + i, "xn--", 4) == 0)
      return drover_fail(err, DROVER_EINVAL,
                         "internationalised names (xn--) are not supported");
    label++;
  }
  if (strcmp(host, "metadata.google.internal") == 0)
    return drover_fail(err, DROVER_EINVAL, "the name of a metadata service");
  return DROVER_OK;
}


/* `.localhost` is loopback by RFC 6761, 6.3, and libcurl resolves it so. */
int net_host_read(const char *text, size_t size, char out[256], int *local,
                  drover_err *err) {
  *local = 0;
  if (size == 0)
    return drover_fail(err, DROVER_EINVAL, "no host");
  if (size > HOST_MAX)
    return drover_fail(err, DROVER_EINVAL, "a host longer than %d bytes",
                       HOST_MAX);
  if (text[0] == '[')
    return read_six(text, size, out, local, err);
  for (size_t i = 0; i < size; i++) {
    char c = text[i];
    out[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
  }
  out[size] = '\0';
  int rc = check_name(out, size, err);
  if (rc)
    return rc;
  if (looks_like_number(out))
    return check_quad(out, local, err);
  *local = strcmp(out, "localhost") == 0 || ends_with(out, size, ".localhost");
  return DROVER_OK;
}
