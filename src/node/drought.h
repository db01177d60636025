/* drought: while a model has no row that is up, those that are out for their
 * failures are tried again soon, by the tick. A pool that was down for a
 * minute would else wait for back-offs of a minute though it is well: nothing
 * is saved by sparing nodes when there is no other.
 *
 * A row that takes named models is hurried when for one of them no row is up;
 * one that takes any, when no such row is up. Models are told apart by their
 * bit of the mask (row.h): two that share one count as one.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_NODE_DROUGHT_H
#define DROVER_NODE_DROUGHT_H

#include "row.h"


/* Any process; the number of rows whose time was brought forward. */
uint32_t node_drought_tick(const struct node_table *t, double now);

#endif
