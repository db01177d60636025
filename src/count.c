/* count: the counting calls of drover.h, into this member's own tally.
 *
 * SPDX-License-Identifier: MIT */
#include "base/err.h"
#include "hall.h"


/* Linear: most observations fall into the first buckets, and there are 16 at
 * most. A bound belongs to the bucket below it, as `le` says. */
static void observe(uint64_t *buckets, const double *bounds, int count,
                    double *sum, double seconds) {
  int i = 0;
  if (!(seconds >= 0))              /* NaN: not measured */
    return;
  while (i < count && seconds > bounds[i])
    i++;
  atom_bump_u64(&buckets[i], 1);
  atom_bump_f64(sum, seconds);
}


/* Counts the request, not its attempts: those count themselves when they are
 * settled (ticket.c). Row 0 takes what reached no node. */
void drover_request_done(drover_router *r, uint32_t node, int code,
                         double overhead, double first_token) {
  int m = ticket_member(r, NULL);
  if (m < 0)                        /* no slot left: nothing could be picked */
    return;
  if (node >= r->tally.rows)
    node = 0;
  atom_bump_u64(&tally_of(&r->tally, (uint32_t)m, node)
                   ->outcomes[err_row(code)], 1);
  struct tally_router *t = &r->tally.routers[m];
  observe(t->overhead, tally_overhead_bounds, TALLY_OVERHEAD,
          &t->overhead_sum, overhead);
  observe(t->first, tally_first_bounds, TALLY_FIRST, &t->first_sum,
          first_token);
}


/* What is denied is counted here, what is allowed is an attempt soon. */
int drover_retry_take(drover_router *r, double now) {
  const struct hall_shared *s = r->shared;
  if (limit_budget_take(&r->budget, atom_get_u32(&s->retry_milli),
                        atom_get_u32(&s->retry_reserve), now))
    return 1;
  drover_count(r, DROVER_RETRY_DENIED);
  return 0;
}


/* An unknown counter is ignored, as is a handle without a member: counting
 * never fails a request. */
void drover_count(drover_router *r, int counter) {
  int m = ticket_member(r, NULL);
  if (m >= 0 && counter >= 0 && counter < TALLY_COUNTS)
    atom_bump_u64(&r->tally.routers[m].counts[counter], 1);
}
