/* cost: what a step costs, learned from the steps that ran. Pure.
 *
 *   seconds = a + b rows + c keys
 *
 * by least squares in which old steps fade; apart for small steps, which read
 * the weights and little else, and for large ones, which compute.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_COST_H
#define DROVER_ENGINE_COST_H

#include <stdint.h>

struct engine_load {                /* of a step */
  uint32_t rows;
  uint64_t keys;                    /* positions that its rows attend to */
};

struct engine_cost_fit {
  double xx[3][3], xy[3];           /* fading sums of products */
  double at[3];                     /* a, b, c; none below 0 */
  uint32_t steps;                   /* learned from */
};

struct engine_cost {                /* zeroed: knows nothing */
  struct engine_cost_fit small, large;
};


/* A step of `load` took so long; `knee` parts small steps from large ones. */
void engine_cost_learn(struct engine_cost *c, uint32_t knee,
                       struct engine_load load, double seconds);


/* What a step of `load` would take; 0 before the first. */
double engine_cost_guess(const struct engine_cost *c, uint32_t knee,
                         struct engine_load load);

#endif
