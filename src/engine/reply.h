/* reply: a reply's text on its way out. Bytes go in as tokens give them;
 * whole UTF-8 comes out, up to the first stop string. Pure.
 *
 * Held back: the longest end that may still grow into a stop string, and an
 * unfinished UTF-8 sequence. Bytes that can never be UTF-8 come out as one
 * U+FFFD for each; what is unfinished at the end as one U+FFFD.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_REPLY_H
#define DROVER_ENGINE_REPLY_H

#include <stddef.h>
#include <stdint.h>

#include "../base/buf.h"
#include "../drover.h"

enum { ENGINE_STOPS_MAX = 16, ENGINE_STOP_MAX = 256 };

struct engine_stop {
  uint32_t size, matched;           /* bytes; how many the end matches */
  unsigned char text[ENGINE_STOP_MAX];
  uint16_t fall[ENGINE_STOP_MAX];   /* the longest border of each prefix */
};

struct engine_reply {
  struct engine_stop *stop;         /* [stops] */
  uint32_t stops;
  struct buf held;                  /* may belong to a stop string */
  struct buf out;                   /* ready: the caller takes and drops it */
  struct buf logprobs;              /* of tokens since then; JSON */
  char     part[4];                 /* an unfinished sequence */
  uint32_t parts;
  int      stopped;                 /* 1: a stop string was found */
};


/* Copies the stop strings. DROVER_EINVAL names the one that is empty or too
 * long; DROVER_ENOMEM. */
int engine_reply_init(struct engine_reply *r, const drover_text *stop,
                      uint32_t count, drover_err *err);
void engine_reply_deinit(struct engine_reply *r);


/* Put bytes out before the reply, past the stop strings: a prompt that is
 * echoed. 0, DROVER_ENOMEM or DROVER_ETOOLARGE. */
int engine_reply_echo(struct engine_reply *r, drover_text text);


/* Add bytes; what is ready is in r->out. Nothing after a stop string. 0 or
 * DROVER_ENOMEM. */
int engine_reply_add(struct engine_reply *r, const char *bytes, size_t size);


/* No more bytes come: what was held back is ready too. */
int engine_reply_end(struct engine_reply *r);

#endif
