/* marked: texts that a template language handles on the way to a prompt.
 *
 * What a user writes must not become a control token, and a template may trim,
 * cut and repeat it before it stands in the prompt. So the spellings of control
 * tokens in it are broken beforehand by a byte that no UTF-8 has; where that
 * byte is in the rendered prompt, it is taken out again, and no control token
 * is recognised across the place. Pure.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_MARKED_H
#define DROVER_ENGINE_MARKED_H

#include "../base/buf.h"
#include "vocab.h"

enum { ENGINE_MARK = 0xfe };


/* Append `text` to `out` with a mark behind the first byte of each control
 * token that it spells; marks that were in it are dropped. */
int engine_mark(const struct engine_vocab *v, const char *text, size_t size,
                struct buf *out);


/* The tokens of a prompt with marks: as engine_vocab_encode() of the text
 * without them, special tokens parsed, but across no mark. */
int engine_marked_encode(const struct engine_vocab *v, const char *text,
                         size_t size, int bos, struct engine_ids *out,
                         drover_err *err);

#endif
