/* router: the public door to routers. It checks arguments, lays the zone out,
 * brings configurations into force and ticks.
 *
 * SPDX-License-Identifier: MIT */
#include "drover.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/process.h"
#include "hall.h"
#include "node/average.h"
#include "node/breaker.h"
#include "node/drought.h"
#include "node/outlier.h"
#include "wait.h"

enum { NODES = 256, MEMBERS = 64, MEMBERS_MAX = 256,
       TICKETS = 4096, TICKETS_MAX = 65536, CONCURRENT = 100,
       KEYS = 16384, KEYS_MAX = 1 << 20, QUEUE = 1000, QUEUE_MAX = 65536,
       RETRY_RESERVE = 10 };
#define RETRY_RATIO 0.2f



int drover_abi(void) {
  return DROVER_ABI;
}


/* ---- opening ---- */

/* Changes when the shape of anything in the zone does. */
static uint64_t stamp_of(void) {
  const size_t shape[] = {
    DROVER_ABI, sizeof(struct hall_shared), sizeof(struct ticket),
    sizeof(struct tally_node), sizeof(struct tally_router),
    sizeof(drover_node), sizeof(struct node_row), sizeof(struct node_text),
    sizeof(struct limit_name), sizeof(struct limit_holds),
    sizeof(struct queue_shared), sizeof(struct queue_entry),
    offsetof(struct node_row, models), offsetof(struct hall_shared, turn),
  };
  return hash_bytes(SPAN_COUNT, shape, sizeof shape);
}


static uint32_t or_default(uint32_t asked, uint32_t value) {
  return asked ? asked : value;
}


/* Zeroes mean defaults and are always right; upper bounds keep the mapping
 * (and the sums over members) at a size that was tested. */
static int check(const drover_router_config *c, drover_err *err) {
  size_t size = c->name ? strnlen(c->name, PROCESS_NAME_MAX) : 0;
  if (size == 0 || size >= PROCESS_NAME_MAX)
    return drover_fail(err, DROVER_EINVAL, "name: 1 to %d bytes expected",
                       PROCESS_NAME_MAX - 1);
  if (c->nodes_max > NODE_MAX)
    return drover_fail(err, DROVER_EINVAL, "nodes_max: at most %d", NODE_MAX);
  if (c->members_max > MEMBERS_MAX)
    return drover_fail(err, DROVER_EINVAL, "members_max: at most %d",
                       MEMBERS_MAX);
  if (c->tickets_max > TICKETS_MAX)
    return drover_fail(err, DROVER_EINVAL, "tickets_max: at most %d",
                       TICKETS_MAX);
  if (c->keys_max > KEYS_MAX)
    return drover_fail(err, DROVER_EINVAL, "keys_max: at most %d", KEYS_MAX);
  if (c->queue_max > QUEUE_MAX)
    return drover_fail(err, DROVER_EINVAL, "queue_max: at most %d", QUEUE_MAX);
  if (!(c->retry_ratio >= 0 && c->retry_ratio <= 1000))
    return drover_fail(err, DROVER_EINVAL, "retry_ratio: 0 to 1000");
  if (!drover_policy_name((int)c->policy))
    return drover_fail(err, DROVER_EINVAL, "policy: no number %u", c->policy);
  return DROVER_OK;
}


/* What a later configuration may change. */
static void set(struct hall_shared *s, const drover_router_config *c) {
  float ratio = c->retry_ratio > 0 ? c->retry_ratio : RETRY_RATIO;
  atom_set_u32(&s->concurrent, or_default(c->concurrent, CONCURRENT));
  atom_set_u32(&s->retry_milli, (uint32_t)lrintf(ratio * 1000));
  atom_set_u32(&s->retry_reserve, or_default(c->retry_reserve, RETRY_RESERVE));
  if (c->waits)
    wait_ready(s);
}


/* The spans' sizes for the most that the zone may ever hold. Untouched pages
 * cost nothing (base/zone.c), so the defaults are generous. */
static int make(struct zone **out, const drover_router_config *c,
                drover_err *err) {
  size_t rows = or_default(c->nodes_max, NODES) + 1;
  size_t members = or_default(c->members_max, MEMBERS);
  size_t tickets = or_default(c->tickets_max, TICKETS);
  size_t places = limit_keys_places(or_default(c->keys_max, KEYS));
  const size_t sizes[SPAN_COUNT] = {
    [SPAN_ROUTER] = sizeof(struct hall_shared),
    [SPAN_MEMBERS] = members * sizeof(uint64_t),
    [SPAN_CELLS] = (rows + places) * limit_cells_stride((uint32_t)members) * 8,
    [SPAN_ROWS] = rows * sizeof(drover_node),
    [SPAN_OWN] = rows * sizeof(struct node_row),
    [SPAN_TEXTS] = rows * 2 * sizeof(struct node_text),
    [SPAN_TAGS] = places * sizeof(uint64_t),
    [SPAN_NAMES] = places * sizeof(struct limit_name),
    [SPAN_SPEND] = places * sizeof(struct limit_spend),
    [SPAN_LOCKS] = places / LIMIT_SET * 2 * sizeof(uint64_t),
    [SPAN_BUDGET] = limit_budget_size((uint32_t)members),
    [SPAN_TICKETS] = members * tickets * sizeof(struct ticket),
    [SPAN_HOLDS] = members * tickets * sizeof(struct limit_holds),
    [SPAN_TALLIES] = tally_size((uint32_t)members, (uint32_t)rows),
    [SPAN_QUEUE] = limit_queue_size(or_default(c->queue_max, QUEUE)),
  };
  int rc = zone_make(out, stamp_of(), sizes, SPAN_COUNT, err);
  if (rc)
    return rc;
  struct hall_shared *s = zone_span(*out, SPAN_ROUTER);
  s->nodes_max = (uint32_t)rows - 1;
  s->members_max = (uint32_t)members;
  s->tickets_max = (uint32_t)tickets;
  s->keys_max = or_default(c->keys_max, KEYS);
  s->queue_max = or_default(c->queue_max, QUEUE);
  set(s, c);
  s->due_at = INFINITY;
  return c->shared ? zone_publish(out, c->name, err) : DROVER_OK;
}


/* A mapping cannot grow under the processes that hold it. */
static int fits(struct zone *z, const drover_router_config *c,
                drover_err *err) {
  const struct hall_shared *s = zone_span(z, SPAN_ROUTER);
  if (c->nodes_max <= s->nodes_max && c->members_max <= s->members_max &&
      c->tickets_max <= s->tickets_max && c->keys_max <= s->keys_max) {
    if (c->queue_max <= s->queue_max)
      return DROVER_OK;
    return drover_fail(err, DROVER_ERESOURCE, "queue.size: router \"%s\" was "
                       "made for %u: restart to have more", c->name,
                       s->queue_max);
  }
  return drover_fail(err, DROVER_ERESOURCE, "router \"%s\" was made for %u "
                     "nodes, %u members, %u tickets, %u names: restart to have "
                     "more", c->name, s->nodes_max, s->members_max,
                     s->tickets_max, s->keys_max);
}


/* A shared zone is found by its name or made; a private one is always made.
 * `maker` becomes the finder's or this process. */
static int attach(struct drover_router *r, const drover_router_config *c,
                  drover_err *err) {
  int rc = DROVER_ENOTFOUND;
  r->maker = process_pid();
  if (c->shared)
    rc = zone_find(&r->zone, c->name, stamp_of(), &r->maker, err);
  if (rc == DROVER_ENOTFOUND && c->create)
    rc = make(&r->zone, c, err);
  else if (rc == DROVER_ENOTFOUND)
    rc = drover_fail(err, rc, "router \"%s\" was not made", c->name);
  if (rc) {
    r->zone = NULL;
    return rc;
  }
  r->named = c->shared != 0;
  return fits(r->zone, c, err);
}


/* Views hold pointers of this process into the zone; the zone itself holds
 * none. */
static void lay_out(struct drover_router *r) {
  struct zone *z = r->zone;
  struct hall_shared *s = r->shared = zone_span(z, SPAN_ROUTER);
  uint32_t rows = s->nodes_max + 1;
  r->table = (struct node_table){
    .rows = zone_span(z, SPAN_ROWS), .own = zone_span(z, SPAN_OWN),
    .texts = zone_span(z, SPAN_TEXTS), .max = s->nodes_max,
    .count = &s->count, .salt = z->salt,
  };
  r->cells = (struct limit_cells){
    .at = zone_span(z, SPAN_CELLS), .top = &s->members_top,
    .stride = limit_cells_stride(s->members_max),
  };
  r->keys = (struct limit_keys){
    .tags = zone_span(z, SPAN_TAGS), .names = zone_span(z, SPAN_NAMES),
    .spend = zone_span(z, SPAN_SPEND), .locks = zone_span(z, SPAN_LOCKS),
    .cells = r->cells, .base = &s->share, .first_row = rows,
    .mask = (uint32_t)(limit_keys_places(s->keys_max) / LIMIT_SET) - 2,
  };
  r->budget = (struct limit_budget){
    .words = zone_span(z, SPAN_BUDGET), .members = s->members_max,
    .top = &s->members_top,
  };
  r->members = (struct member_table){
    .words = zone_span(z, SPAN_MEMBERS), .count = s->members_max,
    .top = &s->members_top,
  };
  r->tickets = zone_span(z, SPAN_TICKETS);
  r->holds = zone_span(z, SPAN_HOLDS);
  r->tickets_max = s->tickets_max;
  r->tally = tally_view(zone_span(z, SPAN_TALLIES), s->members_max, rows,
                        &s->members_top);
  r->queue = limit_queue_view(zone_span(z, SPAN_QUEUE), s->queue_max);
}


/* No member is claimed and no row touched: opening is cheap and may be done
 * by a master that only forks. */
int drover_router_open(drover_router **out, const drover_router_config *c,
                       drover_err *err) {
  int rc = check(c, err);
  *out = NULL;
  if (rc)
    return rc;
  struct drover_router *r = mem_calloc(1, sizeof *r);
  if (!r)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a router");
  r->policy = c->policy;
  r->bell = -1;
  rc = attach(r, c, err);
  if (rc) {
    drover_router_close(r);
    return rc;
  }
  lay_out(r);
  if (c->queue_max)
    r->queue.room = c->queue_max;   /* a smaller one than the zone's */
  *out = r;
  return DROVER_OK;
}


/* A named zone stays mapped for the life of the process: other handles, and
 * children that are forked later, look it up by name. */
void drover_router_close(drover_router *r) {
  if (!r)
    return;
  if (r->shared)
    ticket_leave(r);
  if (r->bell >= 0)
    close(r->bell);
  if (r->zone && !r->named)
    zone_drop(r->zone);
  mem_free(r);
}


int drover_router_private(drover_router *r) {
  return r->maker == process_pid();
}


/* ---- configurations ---- */

uint32_t drover_router_generation(drover_router *r) {
  return __atomic_add_fetch(&r->shared->generation, 1, __ATOMIC_SEQ_CST);
}


int drover_router_apply_begin(drover_router *r, uint32_t generation) {
  return generation > hall_applied(r);
}


/* The number is raised before rows are retired: a worker that adds rows of
 * an older configuration at the same time sees it, and retires them itself
 * (drover_node_add()). */
void drover_router_apply_end(drover_router *r, uint32_t generation,
                             const drover_router_config *c, double now) {
  if (generation < hall_applied(r))
    return;                         /* a later one has been applied meanwhile */
  atom_raise_u32(&r->shared->applied, generation);
  node_table_retire(&r->table, generation);
  set(r->shared, c);
  wait_freed(r, NULL, now);
}


/* Numbers are places in the table, so they hold within a build only;
 * configurations name policies. */
int drover_policy(const char *name) {
  for (int i = 0; node_policies[i].name; i++)
    if (strcmp(node_policies[i].name, name) == 0)
      return i;
  return DROVER_ENOTFOUND;
}


/* Walks to the number, because the table has no length but its closing NULL. */
const char *drover_policy_name(int policy) {
  for (int i = 0; policy >= 0; i++) {
    if (!node_policies[i].name || i == policy)
      return node_policies[i].name;
  }
  return NULL;
}


/* Of this handle, not of the zone: workers change it one by one as they read
 * the new configuration. */
int drover_router_policy(drover_router *r, uint32_t policy) {
  if (!drover_policy_name((int)policy))
    return DROVER_ENOTFOUND;
  r->policy = policy;
  return DROVER_OK;
}


/* ---- the whole ---- */

/* Signed, as LuaJIT's compiled code takes an unsigned result from all 64 bits
 * of the register, and the sum's upper half is tokens. */
int32_t drover_inflight(drover_router *r, uint32_t node) {
  return node < r->tally.rows ? (uint32_t)limit_cells_sum(&r->cells, node) : 0;
}


/* All processes tick, each doing all of it: any one of them may be killed at
 * any time, and each part is right when done twice (the reaping by its swap,
 * renewing and planning by being idempotent, ageing by the swap of
 * `ticked_at`). */
int drover_tick(drover_router *r, double now) {
  uint64_t self = r->pid == process_pid() ? r->self : member_self();
  int reaped = 0, slot = member_reap(&r->members, self, 0);
  for (; slot != MEMBER_NONE; reaped++) {
    ticket_reclaim(r, (uint32_t)slot);
    slot = member_reap(&r->members, self, (uint32_t)slot + 1);
  }
  uint32_t count = atom_get_u32(r->table.count);
  for (uint32_t i = 1; i <= count; i++) {
    route_renew(r, i);
    node_breaker_tend(&r->table.rows[i], &r->table.own[i], now);
  }
  node_outlier_tick(&r->table, now);
  node_drought_tick(&r->table, now);
  route_plan(r);
  /* One process ages the averages for each stretch of time. */
  double last = atom_get_f64(&r->shared->ticked_at);
  if (now > last && __atomic_compare_exchange(&r->shared->ticked_at, &last,
                    &now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) && last > 0)
    node_average_age(&r->table, now - last, now);
  if (reaped)
    wait_freed(r, NULL, now);
  wait_tick(r, now);
  return reaped;
}


/* Requests over all rows and all their former nodes, row 0 (no node)
 * included: the total never falls. */
void drover_router_totals(drover_router *r, drover_totals *out, double now) {
  struct tally_router all;
  (void)now;
  tally_sum_router(&r->tally, &all);
  *out = (drover_totals){
    .members = member_count(&r->members), .inflight = drover_inflight(r, 0),
    .policy_errors = (double)(all.counts[DROVER_POLICY_ERROR] +
                              all.counts[DROVER_POLICY_SWAP_ERROR]),
    .unqualified = (double)all.counts[DROVER_UNQUALIFIED],
    .panics = (double)all.counts[DROVER_PANIC],
    .retries_denied = (double)all.counts[DROVER_RETRY_DENIED],
    .reserved_tokens = (double)(limit_cells_sum(&r->cells, 0) >> 32),
    .waiting = drover_waiting(r), .names = limit_keys_count(&r->keys),
  };
  uint32_t count = atom_get_u32(r->table.count);
  for (uint32_t i = 0; i <= count; i++) {
    struct tally_node now_there, before;
    tally_sum(&r->tally, i, &now_there);
    tally_base(&r->tally, i, &before);
    out->requests += tally_total(now_there.outcomes) +
                     tally_total(before.outcomes);
    out->failures += tally_failed(now_there.outcomes) +
                     tally_failed(before.outcomes);
    if (i && hall_present(r, i)) {
      out->nodes++;
      out->healthy += atom_get_u32(&r->table.rows[i].state) == DROVER_UP;
    }
  }
}
