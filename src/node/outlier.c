/* outlier: see outlier.h.
 *
 * SPDX-License-Identifier: MIT */
#include "outlier.h"

#include <math.h>
#include <string.h>

#include "../base/hash.h"
#include "breaker.h"
#include "share.h"

struct pool {
  uint32_t rows, out;               /* in the pool; of those not up */
  uint32_t judged, worst;           /* with enough outcomes; a row's number */
  double   sum, squares, least;     /* of their shares; the worst one's */
};


static void look(const struct node_table *t, uint32_t row, double now,
                 struct pool *p) {
  uint32_t state = atom_get_u32(&t->rows[row].state);
  if (state >= DROVER_DRAINING)
    return;
  p->rows++;
  if (state != DROVER_UP) {
    p->out++;
    return;
  }
  struct node_share s = node_share_sum(&t->own[row], now);
  if (s.all < OUTLIER_LEAST)
    return;
  double share = (double)s.ok / s.all;
  if (!p->judged || share < p->least) {
    p->worst = row;
    p->least = share;
  }
  p->judged++;
  p->sum += share;
  p->squares += share * share;
}


/* Is the worst one an outlier, and may one more go out? */
static int goes(const struct pool *p) {
  double most = p->rows <= 4 ? p->rows / 2 : floor(p->rows * 0.3);
  if (p->out + 1 > fmax(most, 1) || p->judged < 2)
    return 0;
  double n = p->judged, mean = p->sum / n;
  if (p->judged < OUTLIER_MANY)
    return p->least < (p->sum - p->least) / (n - 1) - OUTLIER_FEW_POINTS;
  double sigma = sqrt(fmax(p->squares / n - mean * mean, 0));
  return p->least < mean - OUTLIER_SIGMAS * sigma &&
         p->least < mean - OUTLIER_POINTS;
}


/* One after the other, judged anew each time: who is out is no part of the
 * mean. Another process may take the same row out first; it does not count
 * twice, because both look at the worst. */
uint32_t node_outlier_tick(const struct node_table *t, double now) {
  uint32_t gone = 0, count = atom_get_u32(t->count);
  for (uint32_t turn = 0; turn < count; turn++) {
    struct pool p = { .rows = 0 };
    for (uint32_t i = 1; i <= count; i++)
      look(t, i, now, &p);
    if (!goes(&p))
      break;
    uint64_t bits;
    memcpy(&bits, &now, sizeof bits);
    bits = hash_mix(bits + p.worst);
    gone += (uint32_t)node_breaker_eject(&t->rows[p.worst], &t->own[p.worst],
                                         now, (double)(bits >> 11) * 0x1p-53);
  }
  return gone;
}
