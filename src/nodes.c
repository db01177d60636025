/* nodes: the public door to the nodes of a router. It checks arguments and
 * calls the room `node`; what else hangs on a row (cells, counters, who waits)
 * it asks of the hall.
 *
 * SPDX-License-Identifier: MIT */
#include "base/err.h"
#include "hall.h"
#include "node/average.h"
#include "node/breaker.h"
#include "node/upstream.h"
#include "wait.h"


static uint32_t busy(void *arg, uint32_t row) {
  const struct drover_router *r = arg;
  return (uint32_t)limit_cells_sum(&r->cells, row);
}


/* Before the row's first word of its new node is written: counters so far go
 * to `base`, the shown load is that of nobody. */
static void reuse(void *arg, uint32_t row) {
  struct drover_router *r = arg;
  tally_rebase(&r->tally, row);
  route_renew(r, row);
}


static int has_limit(const drover_limit *l) {
  return l->rpm || l->tpm || l->concurrent || l->dollars_per_day > 0 ||
         l->dollars_per_month > 0;
}


/* member_self() reads /proc: nodes are added by configurations, not in
 * requests. */
int drover_node_add(drover_router *r, const drover_node_config *c, double now,
                    drover_err *err) {
  if (c->generation && c->generation < hall_applied(r))
    return drover_fail(err, DROVER_ECLOSED, "a later configuration is applied");
  struct node_hooks hooks = {
    .arg = r, .busy = busy, .reuse = reuse, .self = member_self(),
  };
  if (has_limit(&c->limit_node) || has_limit(&c->limit_key))
    atom_set_u32(&r->shared->limited, 1);   /* ahead of the row */
  int row = node_table_add(&r->table, &hooks, c, now, err);
  /* One that was applied meanwhile has not seen this row: look again. */
  if (row > 0 && c->generation && c->generation < hall_applied(r))
    node_table_retire(&r->table, hall_applied(r));
  route_plan(r);
  wait_freed(r, NULL, now);
  return row;
}


int drover_node_find(drover_router *r, const char *id) {
  return node_table_find(&r->table, id);
}


/* A removal or drain may take the earliest probe away, an activation bring
 * one: the hint is planned anew either way. */
static int set_admin(drover_router *r, const char *id, enum breaker_admin to,
                     int only_from) {
  int row = node_table_find(&r->table, id);
  if (row < 0)
    return row;
  node_breaker_admin(&r->table.rows[row], &r->table.own[row], to, only_from);
  route_plan(r);
  wait_moved(r);
  return DROVER_OK;
}


int drover_node_remove(drover_router *r, const char *id) {
  return set_admin(r, id, BREAKER_REMOVED, -1);
}


int drover_node_drain(drover_router *r, const char *id, int drain) {
  return drain ? set_admin(r, id, BREAKER_DRAINING, BREAKER_ACTIVE)
               : set_admin(r, id, BREAKER_ACTIVE, BREAKER_DRAINING);
}


int drover_node_clear(drover_router *r, const char *id, double now) {
  int row = node_table_find(&r->table, id);
  if (row < 0)
    return row;
  node_breaker_clear(&r->table.rows[row], &r->table.own[row]);
  node_upstream_clear(&r->table.own[row]);
  route_plan(r);
  wait_freed(r, NULL, now);
  return DROVER_OK;
}


/* By label, not row: an exporter's report may come long after its node's row
 * went to another. */
int drover_node_report(drover_router *r, const char *id,
                       const drover_report *report, double now) {
  int row = node_table_find(&r->table, id);
  if (row < 0)
    return row;
  node_average_report(&r->table.rows[row], &r->table.own[row], report, now);
  return DROVER_OK;
}


const drover_node *drover_nodes(drover_router *r) {
  return r->table.rows;
}


uint32_t drover_node_count(drover_router *r) {
  return atom_get_u32(r->table.count);
}


int drover_node_read(drover_router *r, uint32_t node, drover_node_text *out) {
  return node_table_read(&r->table, node, out, 0);
}


/* Counters of the present node only (tally_sum), figures of the row as they
 * are now. */
int drover_node_stat(drover_router *r, uint32_t node, drover_node_stats *out,
                     double now) {
  if (!hall_present(r, node))
    return DROVER_ENOTFOUND;
  const struct node_row *own = &r->table.own[node];
  struct tally_node sum;
  tally_sum(&r->tally, node, &sum);
  *out = (drover_node_stats){
    .requests = tally_total(sum.attempts),
    .failures = tally_failed(sum.attempts),
    .input_tokens = (double)sum.tokens[TALLY_INPUT],
    .output_tokens = (double)sum.tokens[TALLY_OUTPUT],
    .cached_tokens = (double)sum.tokens[TALLY_CACHED],
    .dollars = sum.dollars,
    .health_score = (double)node_average_score(&r->table.rows[node], own),
    .load = (double)atom_get_f32(&own->score_load),
    .seen_ago = now - atom_get_f64(&own->seen_at),
    .fails = node_breaker_fails(own),
    .last_code = __atomic_load_n(&own->last_code, __ATOMIC_RELAXED),
  };
  feed_stat(r, node, out, now);
  return DROVER_OK;
}
