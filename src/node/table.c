/* table: see table.h.
 *
 * Two workers that add the same node at once both look for its row and then
 * for the first free one, so they meet at one row's lock and the second finds
 * what the first wrote. When a row is freed in between they may end with a
 * row each: both look again behind their insertion (at least one sees the
 * other), and whoever sees both retires the higher.
 *
 * SPDX-License-Identifier: MIT */
#include "table.h"

#include <math.h>
#include <string.h>

#include "../base/err.h"
#include "../base/hash.h"
#include "../base/member.h"
#include "average.h"
#include "breaker.h"
#include "upstream.h"

enum { READ_TRIES = 64, ADD_TRIES = 8 };


/* The key is hashed in and never stored, and the same url with another key is
 * another node (another account, other limits). The zone's random salt makes
 * the number useless outside it. */
static uint64_t identity_of(const struct node_table *t,
                            const drover_node_config *c) {
  uint64_t url = hash_bytes(t->salt, c->url, strlen(c->url));
  return hash_bytes(url, c->key ? c->key : "", c->key ? c->key_size : 0);
}


/* `max` is the size of the field with its NUL. Control characters would
 * break the exposed text and the logs that these labels go to. */
static int check_text(const char *what, const char *text, size_t max,
                      drover_err *err) {
  size_t size = text ? strnlen(text, max) : 0;
  if (size == 0 || size >= max)
    return drover_fail(err, DROVER_EINVAL, "%s: 1 to %zu bytes expected", what,
                       max - 1);
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
      return drover_fail(err, DROVER_EINVAL, "%s: control character", what);
  return DROVER_OK;
}


/* Prices and tier have no wrong values; NaN prices mean "unknown". A weight
 * of 0 is allowed: see weighted_random. */
static int check(const drover_node_config *c, drover_err *err) {
  int rc = check_text("id", c->id, NODE_ID_MAX, err);
  if (!rc)
    rc = check_text("url", c->url, NODE_URL_MAX, err);
  if (rc)
    return rc;
  if (c->spec_size >= NODE_SPEC_MAX)
    return drover_fail(err, DROVER_EINVAL, "%s: its configuration is longer "
                       "than %d bytes", c->id, NODE_SPEC_MAX - 1);
  if (c->models_count > NODE_MODELS_MAX)
    return drover_fail(err, DROVER_EINVAL, "%s: more than %d models", c->id,
                       NODE_MODELS_MAX);
  if (c->capacity == 0)
    return drover_fail(err, DROVER_EINVAL, "%s: capacity is 0", c->id);
  if (!(c->weight >= 0) || isinf(c->weight))
    return drover_fail(err, DROVER_EINVAL, "%s: bad weight", c->id);
  return DROVER_OK;
}


/* ---- texts ---- */

/* Word by word through atomics, both ways: readers run at any time, so plain
 * copies would be a data race, even if whoever reads a torn text throws it
 * away. */
static void copy_in(void *to, const void *from, size_t size) {
  uint64_t *at = to, word;
  for (size_t i = 0; i < size / 8; i++) {
    memcpy(&word, (const char *)from + i * 8, 8);
    atom_set_u64(&at[i], word);
  }
}


static void copy_out(void *to, const void *from, size_t size) {
  const uint64_t *at = from;
  for (size_t i = 0; i < size / 8; i++) {
    uint64_t word = atom_get_u64(&at[i]);
    memcpy((char *)to + i * 8, &word, 8);
  }
}


/* Behind the texts: who sees the new version sees the new texts. */
static void raise_version(drover_node *n) {
  __atomic_store_n(&n->version, atom_get_u32(&n->version) + 1,
                   __ATOMIC_RELEASE);
}


/* Releases pair with the acquires in read_text(). */
static void write_text(const struct node_table *t, uint32_t row,
                       const drover_node_config *c) {
  struct node_text text = { 0 }, old;
  struct node_row *own = &t->own[row];
  uint32_t copies = atom_get_u32(&own->texts);
  memcpy(text.id, c->id, strlen(c->id));
  memcpy(text.url, c->url, strlen(c->url));
  if (c->spec_size)
    memcpy(text.spec, c->spec, c->spec_size);
  copy_out(&old, &t->texts[row * 2 + (copies & 1)], sizeof old);
  if (copies && memcmp(&old, &text, sizeof text) == 0)
    return;
  copy_in(&t->texts[row * 2 + ((copies + 1) & 1)], &text, sizeof text);
  atom_set_u64(&own->label, hash_bytes(0, c->id, strlen(c->id)));
  __atomic_store_n(&own->texts, copies + 1, __ATOMIC_RELEASE);
  raise_version(&t->rows[row]);
}


/* The copy read is overwritten only after `texts` went on: look again. */
static int read_text(const struct node_table *t, uint32_t row,
                     drover_node_text *out, int brief) {
  const struct node_row *own = &t->own[row];
  for (int i = 0; i < READ_TRIES; i++) {
    out->version = __atomic_load_n(&t->rows[row].version, __ATOMIC_ACQUIRE);
    uint32_t copies = __atomic_load_n(&own->texts, __ATOMIC_ACQUIRE);
    const struct node_text *from = &t->texts[row * 2 + (copies & 1)];
    if (copies == 0)
      return DROVER_ENOTFOUND;
    out->generation = atom_get_u32(&own->generation);
    copy_out(out->id, from->id, sizeof from->id);
    if (!brief) {
      copy_out(out->url, from->url, sizeof from->url);
      copy_out(out->spec, from->spec, sizeof from->spec);
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (atom_get_u32(&own->texts) == copies)
      return DROVER_OK;
  }
  return DROVER_EAGAIN;
}


/* A removed row keeps its texts until another node gets it: expose and the
 * reply of a running request still name it. */
int node_table_read(const struct node_table *t, uint32_t row,
                    drover_node_text *out, int brief) {
  if (row == 0 || row > atom_get_u32(t->count))
    return DROVER_ENOTFOUND;
  return read_text(t, row, out, brief);
}


/* Compares a hash first and reads a text only where that fits: texts lie some
 * 4 KiB apart. Two rows of one label are possible (a node whose key was
 * changed); the one that is not removed counts. */
int node_table_find(const struct node_table *t, const char *id) {
  uint64_t label = hash_bytes(0, id, strnlen(id, NODE_ID_MAX));
  uint32_t count = atom_get_u32(t->count);
  for (uint32_t i = 1; i <= count; i++) {
    drover_node_text text;
    if (atom_get_u64(&t->own[i].label) == label &&
        node_breaker_word(&t->own[i]) != BREAKER_REMOVED &&
        read_text(t, i, &text, 1) == DROVER_OK && strcmp(text.id, id) == 0)
      return (int)i;
  }
  return DROVER_ENOTFOUND;
}


/* ---- adding ---- */

/* The order counts too: a configuration keeps it, and comparing sets would
 * cost more than writing. */
static int same_models(const struct node_row *own,
                       const drover_node_config *c) {
  if (atom_get_u32(&own->models_count) != c->models_count)
    return 0;
  for (uint32_t i = 0; i < c->models_count; i++)
    if (atom_get_u64(&own->models[i]) != c->models[i])
      return 0;
  return 1;
}


/* The mask is a Bloom filter of one bit a model, so most rows that do not take
 * a model say so out of their first line. A list that stays is not touched:
 * each reload names all nodes again, and a decision that met a list half
 * written would answer that no node takes the model. */
static void set_models(struct node_row *own, const drover_node_config *c) {
  uint64_t mask = 0;
  if (same_models(own, c))
    return;
  atom_set_u32(&own->models_count, 0);
  for (uint32_t i = 0; i < c->models_count; i++) {
    atom_set_u64(&own->models[i], c->models[i]);
    mask |= UINT64_C(1) << (c->models[i] >> 58);
  }
  atom_set_u32(&own->models_count, c->models_count);
  atom_set_u64(&own->models_mask, mask);
}


/* Word by word: claims read it at any time. One that reads between two words
 * is held to a mixture of both limits, once. */
static void set_limits(struct node_row *own, const drover_node_config *c) {
  const drover_limit to[2] = { c->limit_node, c->limit_key };
  _Static_assert(sizeof to == sizeof own->limits && sizeof to % 8 == 0,
                 "words");
  copy_in(own->limits, to, sizeof to);
  atom_set_u64(&own->group, c->group ? c->group
                            : hash_bytes(0, c->id, strlen(c->id)));
}


/* What the configuration says; what was learned stays. */
static void configure(const struct node_table *t, uint32_t row,
                      const drover_node_config *c, double now) {
  drover_node *n = &t->rows[row];
  struct node_row *own = &t->own[row];
  uint32_t generation = atom_get_u32(&own->generation);
  atom_set_u32(&n->capacity, c->capacity);
  atom_set_u32(&n->tier, c->tier);
  atom_set_f32(&own->weight, c->weight);
  atom_set_f32(&n->weight, c->weight * node_breaker_part(own, now));
  atom_set_f32(&n->price_input, c->price_input);
  atom_set_f32(&n->price_output, c->price_output);
  if (!isnan(c->memory_gb) && !(atom_get_f64(&own->seen_at) >= 0))
    atom_set_f32(&n->memory_gb, c->memory_gb);  /* a report knows better */
  set_models(own, c);
  set_limits(own, c);
  write_text(t, row, c);
  if (c->generation == 0 || c->generation > generation)
    atom_set_u32(&own->generation, c->generation);
}


/* Has any other row had an outcome? */
static int others_serve(const struct node_table *t, uint32_t row) {
  uint32_t count = atom_get_u32(t->count);
  for (uint32_t i = 1; i <= count; i++)
    if (i != row && atom_get_f32(&t->own[i].tries) > 0 &&
        node_breaker_word(&t->own[i]) != BREAKER_REMOVED)
      return 1;
  return 0;
}


/* A row that another node held, or nobody, gets this one. Beside nodes that
 * are warm it starts slowly; where all are new each gets its full share. */
static void fill(const struct node_table *t, const struct node_hooks *h,
                 uint32_t row, const drover_node_config *c, double now) {
  drover_node *n = &t->rows[row];
  struct node_row *own = &t->own[row];
  float mean = node_average_mean(t);
  h->reuse(h->arg, row);
  atom_set_u32(&own->generation, 0);
  atom_set_f32(&n->memory_gb, NAN);
  node_average_reset(n, own, mean, now);
  node_breaker_reset(n, own, BREAKER_REMOVED, others_serve(t, row) ? now : 0);
  node_upstream_clear(own);
  configure(t, row, c, now);
  raise_version(n);                 /* the texts may be those of the last */
}


/* From the first row on, so that all processes meet at the same one.
 * Sequentially consistent, the partner of the stores in take() and
 * settle_twins(): of two workers that insert the same node at once, at least
 * one sees the other's row. */
static uint32_t match(const struct node_table *t, uint64_t identity,
                      uint32_t from) {
  uint32_t count = __atomic_load_n(t->count, __ATOMIC_SEQ_CST);
  for (uint32_t i = from; i <= count; i++)
    if (__atomic_load_n(&t->own[i].identity, __ATOMIC_SEQ_CST) == identity)
      return i;
  return 0;
}


/* A removed row stays its node's until another needs it. The fence pairs with
 * that of a claim (limit/cells.c): a claim that this sum misses sees, behind
 * its own fence, that the row is removed. */
static int is_free(const struct node_table *t, const struct node_hooks *h,
                   uint32_t row) {
  const struct node_row *own = &t->own[row];
  if (__atomic_load_n(&own->identity, __ATOMIC_SEQ_CST) == 0)
    return 1;
  if (node_breaker_word(own) != BREAKER_REMOVED)
    return 0;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return h->busy(h->arg, row) == 0;
}


/* All rows up to the table's end, also those behind `count`: a row that
 * nobody ever had has identity 0. */
static uint32_t first_free(const struct node_table *t,
                           const struct node_hooks *h) {
  for (uint32_t i = 1; i <= t->max; i++)
    if (is_free(t, h, i))
      return i;
  return 0;
}


/* Under the row's lock. 0 when another was first: begin again. */
static int take(const struct node_table *t, const struct node_hooks *h,
                uint32_t row, uint64_t identity, const drover_node_config *c,
                double now) {
  struct node_row *own = &t->own[row];
  if (__atomic_load_n(&own->identity, __ATOMIC_SEQ_CST) != identity) {
    if (!is_free(t, h, row) || match(t, identity, 1))
      return 0;
    __atomic_store_n(&own->identity, 0, __ATOMIC_SEQ_CST);
    fill(t, h, row, c, now);
    atom_raise_u32(t->count, row);
    __atomic_store_n(&own->identity, identity, __ATOMIC_SEQ_CST);
  } else {
    configure(t, row, c, now);
  }
  node_breaker_admin(&t->rows[row], own, BREAKER_ACTIVE, BREAKER_REMOVED);
  return 1;
}


/* The lower of two rows of one identity stays; see the head of the file. */
static uint32_t settle_twins(const struct node_table *t, uint64_t identity) {
  uint32_t first = match(t, identity, 1);
  for (uint32_t i = match(t, identity, first + 1); i;
       i = match(t, identity, i + 1)) {
    uint64_t was = identity;        /* nobody's from now on */
    node_breaker_admin(&t->rows[i], &t->own[i], BREAKER_REMOVED, -1);
    __atomic_compare_exchange_n(&t->own[i].identity, &was,
                                hash_mix(identity ^ i) | 1, 0,
                                __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
  }
  return first;
}


/* A label moves to another node only by a later configuration: at run time
 * (generation 0) it is a mistake that must be told. The loop begins again
 * when a row was lost to another worker, or when a writer holds the lock too
 * long. */
int node_table_add(const struct node_table *t, const struct node_hooks *h,
                   const drover_node_config *c, double now, drover_err *err) {
  int rc = check(c, err);
  if (rc)
    return rc;
  uint64_t identity = identity_of(t, c);
  int other = node_table_find(t, c->id);
  if (other > 0 && atom_get_u64(&t->own[other].identity) != identity &&
      (c->generation == 0 ||
       atom_get_u32(&t->own[other].generation) >= c->generation))
    return drover_fail(err, DROVER_EINVAL, "id \"%s\" belongs to another node",
                       c->id);
  for (int i = 0; i < ADD_TRIES; i++) {
    uint32_t row = match(t, identity, 1);
    if (!row)
      row = first_free(t, h);
    if (!row)
      return drover_fail(err, DROVER_ERESOURCE, "the table is full: %u nodes",
                         t->max);
    if (!member_lock(&t->own[row].writer, h->self))
      continue;
    int taken = take(t, h, row, identity, c, now);
    member_unlock(&t->own[row].writer);
    if (taken)
      return (int)settle_twins(t, identity);
  }
  return drover_fail(err, DROVER_EAGAIN, "%s: others write the table", c->id);
}


/* Rows added at run time (generation 0) belong to no configuration and stay.
 * Requests in flight on a removed row go on to their end; cells and tickets
 * still name it. */
void node_table_retire(const struct node_table *t, uint32_t generation) {
  uint32_t count = atom_get_u32(t->count);
  for (uint32_t i = 1; i <= count; i++) {
    uint32_t of = atom_get_u32(&t->own[i].generation);
    if (of != 0 && of < generation)
      node_breaker_admin(&t->rows[i], &t->own[i], BREAKER_REMOVED, -1);
  }
}
