/* table: the rows of a zone: who is there, under which label, and who has
 * left. State follows a node's identity (a salted hash of url and key), never
 * its number: the same node added again takes up its row with all it knows.
 *
 * A row is written under its `writer` word, a lock that a dead process cannot
 * keep. Texts have two copies a row: the writer fills the one that is not
 * valid and then counts `texts` up, so that a writer killed in between leaves
 * the valid copy whole. A removed row is used again when nothing is in flight
 * on it; it may meanwhile be taken up by its own node.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_TABLE_H
#define DROVER_NODE_TABLE_H

#include "row.h"

struct node_hooks {                 /* what another room knows */
  void *arg;
  uint32_t (*busy)(void *arg, uint32_t row);    /* requests in flight */
  void (*reuse)(void *arg, uint32_t row);       /* gets another node now */
  uint64_t self;                                /* member_self() */
};


/* Add a node or take up its row again: see drover_node_add(). Checks the
 * configuration. Any thread. */
int node_table_add(const struct node_table *t, const struct node_hooks *h,
                   const drover_node_config *c, double now, drover_err *err);


/* The row of a label that is not removed, or DROVER_ENOTFOUND. */
int node_table_find(const struct node_table *t, const char *id);


/* Remove every row whose configuration is older than `generation` (and not
 * 0, which is no configuration's). */
void node_table_retire(const struct node_table *t, uint32_t generation);


/* Copy a row's texts. 0, or DROVER_ENOTFOUND when the row was never used (a
 * removed one still has its texts). `spec` may be left out with `brief`. */
int node_table_read(const struct node_table *t, uint32_t row,
                    drover_node_text *out, int brief);


/* 1 when the row may take this model. `model` 0 is any. */
static inline int node_table_takes(const struct node_row *own,
                                   uint64_t model) {
  uint64_t mask = atom_get_u64(&own->models_mask);
  if (mask == 0 || model == 0)
    return 1;
  if (!(mask >> (model >> 58) & 1))
    return 0;
  uint32_t count = atom_get_u32(&own->models_count);
  for (uint32_t i = 0; i < count && i < NODE_MODELS_MAX; i++)
    if (atom_get_u64(&own->models[i]) == model)
      return 1;
  return 0;
}

#endif
