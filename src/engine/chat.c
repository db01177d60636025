/* chat: see chat.h.
 *
 * SPDX-License-Identifier: MIT */
#include "chat.h"

#include <inttypes.h>
#include <string.h>

#include "../base/err.h"
#include "../base/mem.h"
#include "gguf.h"

/* ChatML knows no `developer`, OpenAI's later name for system: written as
 * that. */
static const struct { const char *said, *written; } roles[] = {
  { "system", "system" }, { "developer", "system" }, { "user", "user" },
  { "assistant", "assistant" }, { "tool", "tool" },
};


/* By the one mark that all ChatML templates have. A template is never
 * guessed: in the wrong format a model answers, but badly. */
enum engine_chat engine_chat_detect(drover_text pattern) {
  if (pattern.size == 0)
    return ENGINE_CHAT_NONE;
  return memmem(pattern.data, pattern.size, "<|im_start|>", 12)
    ? ENGINE_CHAT_CHATML : ENGINE_CHAT_UNKNOWN;
}


/* NULL refuses the role: it would be written into the template's part of the
 * prompt, where special tokens are parsed. */
static const char *role_of(drover_text role) {
  for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
    if (strlen(roles[i].said) == role.size
        && !memcmp(roles[i].said, role.data, role.size))
      return roles[i].written;
  return NULL;
}


/* Append; spans of one kind that touch are one span. */
static int add(struct engine_chat_text *t, const char *text, size_t size,
               int special) {
  int rc = size ? buf_add(&t->text, text, size) : DROVER_OK;
  if (rc || !size)
    return rc;
  if (!t->spans || t->span[t->spans - 1].special != special)
    t->span[t->spans++].special = special;
  t->span[t->spans - 1].end = t->text.size;
  return DROVER_OK;
}


/* Text of the template's own: special tokens are parsed in it. */
static int add_text(struct engine_chat_text *t, const char *text) {
  return add(t, text, strlen(text), 1);
}


/* <|im_start|>ROLE\nCONTENT<|im_end|>\n a message, then the head of the
 * assistant's. Content is passed on as bytes, marks in it too: its span says
 * that they are plain text. */
static int chatml(struct engine_chat_text *t, const drover_message *messages,
                  uint32_t count, drover_err *err) {
  int rc = DROVER_OK;
  for (uint32_t i = 0; i < count && !rc; i++) {
    const char *role = role_of(messages[i].role);
    if (!role)
      return drover_fail(err, DROVER_EINVAL, "messages[%" PRIu32 "].role: %s "
                         "is not system, developer, user, assistant or tool", i,
                         engine_gguf_show(messages[i].role.data,
                                          messages[i].role.size).text);
    rc = add_text(t, "<|im_start|>");
    if (!rc)
      rc = add_text(t, role);
    if (!rc)
      rc = add_text(t, "\n");
    if (!rc)
      rc = add(t, messages[i].content.data, messages[i].content.size, 0);
    if (!rc)
      rc = add_text(t, "<|im_end|>\n");
  }
  return rc ? rc : add_text(t, "<|im_start|>assistant\n");
}


/* `span` has room for the worst case, template and content in turn; spans of
 * one kind that touch are joined by add(). On an error the caller's deinit
 * frees what there is. */
int engine_chat_render(enum engine_chat chat, const drover_message *messages,
                       uint32_t count, struct engine_chat_text *out,
                       drover_err *err) {
  if (chat == ENGINE_CHAT_NONE)
    return drover_fail(err, DROVER_EBADREQUEST, "the model has no chat "
                       "template: it takes a prompt, no messages");
  if (chat == ENGINE_CHAT_UNKNOWN)
    return drover_fail(err, DROVER_EBADREQUEST, "the model's chat template is "
                       "not ChatML, the only one that is supported: it takes "
                       "a prompt, no messages");
  if (count > ENGINE_MESSAGES_MAX)
    return drover_fail(err, DROVER_ETOOLARGE, "%" PRIu32
                       " messages, at most %d", count, ENGINE_MESSAGES_MAX);
  buf_init(&out->text, ENGINE_TEXT_MAX);
  out->span = mem_calloc(2 * (size_t)count + 1, sizeof *out->span);
  int rc = out->span ? chatml(out, messages, count, err) : DROVER_ENOMEM;
  if (rc == DROVER_ETOOLARGE)
    drover_fail(err, rc, "messages of more than %d bytes", ENGINE_TEXT_MAX);
  else if (rc == DROVER_ENOMEM)
    drover_fail(err, rc, "no memory for a prompt");
  return rc;
}


void engine_chat_deinit(struct engine_chat_text *t) {
  buf_deinit(&t->text, 0);
  mem_free(t->span);
  t->span = NULL;
}
