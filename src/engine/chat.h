/* chat: messages into a prompt, by the family of the model's template.
 *
 * No template language is run: a family is recognised in the file's template
 * and rendered here. The prompt is a list of spans, so that the tokenizer
 * parses special tokens in what the template wrote and never in what a
 * message says. Pure.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_CHAT_H
#define DROVER_ENGINE_CHAT_H

#include "../base/buf.h"
#include "../drover.h"
#include "vocab.h"

enum { ENGINE_MESSAGES_MAX = 4096 };

enum engine_chat {
  ENGINE_CHAT_NONE,                 /* the file has no template */
  ENGINE_CHAT_CHATML,
  ENGINE_CHAT_UNKNOWN               /* it has one that is not known here */
};

struct engine_chat_text {           /* zeroed by the caller */
  struct buf text;                  /* the rendered prompt, owned */
  struct engine_span *span;         /* [messages * 2 + 1] at most */
  size_t spans;                     /* in use */
};


/* The family of a template's text. */
enum engine_chat engine_chat_detect(drover_text pattern);


/* Render messages and open the assistant's reply. DROVER_EBADREQUEST when the
 * model takes none; DROVER_EINVAL names a role that is not system, developer
 * (written as system), user, assistant or tool; DROVER_ETOOLARGE. */
int engine_chat_render(enum engine_chat chat, const drover_message *messages,
                       uint32_t count, struct engine_chat_text *out,
                       drover_err *err);


void engine_chat_deinit(struct engine_chat_text *t);

#endif
