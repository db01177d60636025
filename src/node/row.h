/* row: what the zone keeps of a node beside the line that policies see
 * (struct drover_node of drover.h). Any process writes any row: single words,
 * relaxed; where a lost update would do harm (breaker, identity) the word is
 * changed by compare-and-swap.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_ROW_H
#define DROVER_NODE_ROW_H

#include <stddef.h>
#include <stdint.h>

#include "../base/atom.h"
#include "../drover.h"

enum { NODE_MAX = 512, NODE_MODELS_MAX = 64, NODE_ID_MAX = 64,
       NODE_URL_MAX = 512, NODE_SPEC_MAX = 4096,
       NODE_PERIODS = 10 };

struct node_pace {                  /* what a node says of its own limit */
  uint64_t at, unit, room;          /* see upstream.h */
};

struct node_row {
  /* The first line: read in decisions, written when a ticket is settled. */
  uint64_t breaker;                 /* see breaker.h */
  uint64_t models_mask;             /* one bit a model; 0: takes any */
  double   outcome_at;              /* `now` of the last outcome; 0: none */
  double   first_at;                /* `now` of the last first-token sample */
  float    tries, errors;           /* decayed counts: error_rate */
  float    token_n, token_sum;      /* decayed: token_ms */
  float    score_latency_ms;        /* of the health_score formula */
  float    score_load;
  double   seen_at;                 /* last reply or report; NaN: never */
  /* Rarely written. */
  double   added_at;                /* `now` when the node got this row */
  uint64_t identity;                /* salted hash of url and key; 0: unused */
  uint64_t label;                   /* hash of the id */
  uint64_t writer;                  /* member_lock() of who changes the row */
  uint32_t texts;                   /* copies written; the last is valid */
  uint32_t generation;              /* of its configuration; 0: at run time */
  int32_t  last_code;               /* of the last failure */
  uint32_t models_count;            /* of `models`; 0 with the mask: any */
  uint64_t group;                   /* rows of one node have the same */
  float    weight;                  /* as configured; the row's may ramp up */
  uint32_t spare;
  drover_limit limits[2];           /* of the group, of this row */
  struct node_pace upstream[2];     /* of requests, of tokens */
  uint64_t share[NODE_PERIODS];     /* written with each outcome: share.h */
  uint64_t pad[6];
  uint64_t models[NODE_MODELS_MAX]; /* drover_hash of what it takes */
};

struct node_text {                  /* texts[row][copy], copied by words */
  char id[NODE_ID_MAX];
  char url[NODE_URL_MAX];
  char spec[NODE_SPEC_MAX];
};

struct node_table {                 /* a view: all of it lies in the zone */
  drover_node      *rows;           /* [0] is not used */
  struct node_row  *own;
  struct node_text *texts;          /* two copies a row */
  uint32_t          max;            /* rows are 1 .. max */
  uint32_t         *count;          /* rows used so far; only grows */
  uint64_t          salt;           /* the zone's, of identities */
};

_Static_assert(offsetof(struct node_row, added_at) == 64, "one hot line");
_Static_assert(offsetof(struct node_row, share) % 64 == 0 &&
               offsetof(struct node_row, models) % 64 == 0,
               "written often and read often apart");
_Static_assert(sizeof(struct node_row) % 64 == 0, "rows share no line");
_Static_assert(sizeof(struct node_text) % 8 == 0, "copied by words");
_Static_assert(sizeof(drover_node) == 64, "a node fills one cache line");

#endif
