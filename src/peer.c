/* peer: has the other end of a connection of somebody else's gone away? The
 * gateway asks it for nginx's connections, which belong to nginx: nothing is
 * read from them and nothing is changed.
 *
 * SPDX-License-Identifier: MIT */
#include "drover.h"

#include <netinet/in.h>
#include <sys/socket.h>


/* The port of a socket's other end: 0 for a unix socket, -1 when `fd` is not
 * a connected socket. */
static int peer_port(int fd) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_storage room;
  } peer = { .any.sa_family = AF_UNSPEC };
  socklen_t size = sizeof peer;
  if (getpeername(fd, &peer.any, &size))
    return -1;
  switch (peer.any.sa_family) {
  case AF_INET: return ntohs(peer.v4.sin_port);
  case AF_INET6: return ntohs(peer.v6.sin6_port);
  case AF_UNIX: return 0;
  default: return -1;
  }
}


/* The peek is one system call where the peer is there, which is nearly
 * always; whose socket it was is asked only before "gone" is answered. */
int drover_peer_gone(int fd, int port) {
  char byte;
  return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0 &&
         peer_port(fd) == port;
}
