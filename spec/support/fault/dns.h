/* dns: a name server on 127.0.0.1:53 that drops questions, knows no name,
 * gives no address, or answers each kind of question once and then drops. For processes in a
 * network namespace of their own.
 *
 * SPDX-License-Identifier: MIT */
#ifndef FAULT_DNS_H
#define FAULT_DNS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

enum dns_mode { DNS_OFF, DNS_DROP, DNS_EMPTY, DNS_ONCE, DNS_NX };
enum { DNS_A = 1, DNS_NO_NAME = 3 };


static int dns_listen(void) {
  struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(53),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return fd >= 0 && bind(fd, (void *)&at, sizeof at) == 0 ? fd : -1;
}


/* One question; `type` is of what it asks. The answer's bytes in place. */
static ssize_t dns_fill(unsigned char *m, ssize_t size, int with_address) {
  static const unsigned char address[] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0,
                                           4, 127, 0, 0, 1 };
  ssize_t end = 12;
  while (end < size && m[end])
    end += m[end] + 1;
  end += 5;
  m[2] = 0x81;                      /* a response, recursion wanted */
  m[3] = 0x80;
  memset(m + 6, 0, 6);              /* no answers, and no more records */
  if (!with_address)
    return end;
  m[7] = 1;
  memcpy(m + end, address, sizeof address);
  return end + (ssize_t)sizeof address;
}


static void dns_serve(int fd, enum dns_mode mode) {
  static int answered;
  unsigned char m[1024];
  struct sockaddr_in from;
  socklen_t from_size = sizeof from;
  ssize_t size = recvfrom(fd, m, 512, 0, (void *)&from, &from_size);
  if (size < 17 || mode == DNS_DROP)
    return;
  ssize_t end = 12;
  while (end + 4 < size && m[end])
    end += m[end] + 1;
  int is_a = m[end + 2] == DNS_A;
  if (mode == DNS_ONCE && is_a && answered++)
    return;
  size = dns_fill(m, size, mode == DNS_ONCE && is_a);
  m[3] |= mode == DNS_NX ? DNS_NO_NAME : 0;
  sendto(fd, m, (size_t)size, 0, (void *)&from, from_size);
}

#endif
