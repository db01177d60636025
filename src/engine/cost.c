/* cost: see cost.h.
 *
 * SPDX-License-Identifier: MIT */
#include "cost.h"

#include <string.h>

enum { STEPS_FEW = 4 };             /* too few to tell an outlier by */

static const double FADE = 0.95;    /* a step's weight after the next one */
static const double OUTLIER = 4;    /* times the guess: counts as that much */
static const double SLACK = 0.001;  /* seconds above it that are no outlier */


/* Scaled so that the three sums are of one size. */
static void features(struct engine_load load, double *x) {
  x[0] = 1;
  x[1] = load.rows / 32.0;
  x[2] = (double)load.keys / 32768.0;
}


/* Gauss with the ridge on the diagonal, which no pivot can be below: steps
 * that were all alike have no slope and get none. */
static void solve(struct engine_cost_fit *f) {
  double m[3][4];
  for (int i = 0; i < 3; i++) {
    memcpy(m[i], f->xx[i], sizeof f->xx[i]);
    m[i][i] += 1e-6;
    m[i][3] = f->xy[i];
  }
  for (int i = 0; i < 3; i++)
    for (int j = i + 1; j < 3; j++) {
      double times = m[j][i] / m[i][i];
      for (int k = i; k < 4; k++)
        m[j][k] -= times * m[i][k];
    }
  for (int i = 2; i >= 0; i--) {
    double sum = m[i][3];
    for (int k = i + 1; k < 3; k++)
      sum -= m[i][k] * f->at[k];
    f->at[i] = sum / m[i][i] > 0 ? sum / m[i][i] : 0;
  }
}


static double guess(const struct engine_cost_fit *f, struct engine_load load) {
  double x[3];
  features(load, x);
  return f->at[0] * x[0] + f->at[1] * x[1] + f->at[2] * x[2];
}


/* A step during which the machine did something else says little: it counts,
 * for the machine may have become slower, but not at its full size. */
void engine_cost_learn(struct engine_cost *c, uint32_t knee,
                       struct engine_load load, double seconds) {
  struct engine_cost_fit *f = load.rows <= knee ? &c->small : &c->large;
  double x[3], most = OUTLIER * guess(f, load) + SLACK;
  if (f->steps >= STEPS_FEW && seconds > most)
    seconds = most;
  features(load, x);
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++)
      f->xx[i][j] = f->xx[i][j] * FADE + x[i] * x[j];
    f->xy[i] = f->xy[i] * FADE + x[i] * seconds;
  }
  f->steps += f->steps < UINT32_MAX;
  solve(f);
}


double engine_cost_guess(const struct engine_cost *c, uint32_t knee,
                         struct engine_load load) {
  const struct engine_cost_fit *f = load.rows <= knee ? &c->small : &c->large;
  if (!f->steps)
    f = load.rows <= knee ? &c->large : &c->small;
  return guess(f, load);
}
