/* share: rates that several hosts part between them: which names there are,
 * and what of their rates this host has. Who parts them is the caller's
 * matter (lua/drover/share.lua).
 *
 * SPDX-License-Identifier: MIT */
#include "hall.h"


/* Places of drover.h count from 1. */
uint32_t drover_share_next(drover_router *r, uint32_t from,
                           drover_share *out) {
  double now = atom_get_f64(&r->shared->ticked_at);
  uint32_t places = (uint32_t)limit_keys_places(r->shared->keys_max);
  for (uint32_t place = from; place < places; place++) {
    uint64_t tag = limit_keys_asked(&r->keys, place, &out->asked);
    if (!tag)
      continue;
    out->id = tag;
    out->scope = limit_keys_scope(tag);
    out->share = (float)limit_keys_share(&r->keys, place, tag, now) /
                 LIMIT_WHOLE;
    return place + 1;
  }
  return 0;
}


void drover_share_set(drover_router *r, uint64_t id, float share,
                      double until) {
  if (id) {
    uint32_t place = limit_keys_seek(&r->keys, id);
    if (place != LIMIT_NOWHERE)
      limit_keys_set_share(&r->keys, place, id, share, until);
    return;
  }
  atom_set_u64(&r->shared->share, limit_keys_parts(share) + UINT64_C(1));
  atom_set_f64(&r->shared->share_until, until);
}


float drover_share_base(drover_router *r, double *until) {
  uint64_t base = atom_get_u64(&r->shared->share);
  *until = atom_get_f64(&r->shared->share_until);
  return base ? (float)(base - 1) / LIMIT_WHOLE : 1;
}
