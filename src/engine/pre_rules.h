/* pre_rules: the kinds of rules, which pre_word.c describes.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_PRE_RULES_H
#define DROVER_ENGINE_PRE_RULES_H

enum engine_pre_rules {
  RULES_CLASSES, RULES_MARKS, RULES_PLAIN_END, RULES_GPT2, RULES_SINGLE_N,
  RULES_CASED, RULES_TEKKEN, RULES_DEEPSEEK, RULES_DEFAULT
};

#endif
