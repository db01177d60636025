/* schema: reads a JSON schema into a tree: the subset that OpenAI's strict mode
 * takes; the rest is refused by its path. It knows no tokens and no automaton
 * (grammar.h makes one of the tree).
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_SCHEMA_H
#define DROVER_ENGINE_SCHEMA_H

#include "schema_tree.h"


/* Read a schema, or with NULL "any object". DROVER_EBADREQUEST names the path
 * of what is not taken, or of what no value can meet; DROVER_ENOMEM. */
int engine_schema_new(struct engine_schema **out, const char *json,
                      size_t size, drover_err *err);
void engine_schema_free(struct engine_schema *s);   /* takes NULL */

#endif
