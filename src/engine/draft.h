/* draft: guesses at a reply's next tokens, looked up in what it has said and
 * been told. Pure.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_DRAFT_H
#define DROVER_ENGINE_DRAFT_H

#include <stddef.h>
#include <stdint.h>

enum { ENGINE_DRAFT_LEAST = 4, ENGINE_DRAFT_MOST = 8 };


/* What followed the last earlier place where the last three tokens stand, or
 * else the last two: at most `most` tokens, to `to`. Returns how many. */
uint32_t engine_draft_find(const int32_t *ids, size_t count, uint32_t most,
                           int32_t *to);


/* Tokens to ask for, by how many came true a step of late. */
uint32_t engine_draft_want(float gain);


/* `gain` after a step in which `came` of `tried` guesses came true; tried 0:
 * none was made, and it slowly becomes worth another try. */
float engine_draft_learn(float gain, uint32_t tried, uint32_t came);

#endif
