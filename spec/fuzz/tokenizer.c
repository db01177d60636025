/* Fuzzes the tokenizers. The first byte picks vocabulary and word rules, the
 * second where the text is cut into content and template. Wanted: ids of the
 * vocabulary; no control token out of content; plain text gives its bytes
 * back.
 *
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "../support/tiny.h"
#include "base/mem.h"
#include "engine/vocab.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


static struct engine_vocab *load(int bpe) {
  static struct tiny t;
  struct engine_gguf *g;
  struct engine_vocab *v;
  tiny_build(&t, bpe);
  must(engine_gguf_parse(&g, t.bytes, t.size, NULL) == 0);
  must(engine_vocab_new(&v, g, NULL) == 0);
  engine_gguf_close(g);
  return v;
}


/* The tokens' bytes are the text, but for SPM's blank in front and its
 * spelling of blanks, which a text may hold as it is. */
static void same_bytes(const struct engine_vocab *v, const struct engine_ids *ids,
                       const char *text, size_t size) {
  char piece[64];
  size_t at = 0, lead = v->kind == ENGINE_VOCAB_SPM && size > 0;
  for (size_t i = 0; i < ids->count; i++) {
    size_t n = engine_vocab_piece(v, ids->at[i], piece);
    for (size_t k = 0; k < n; k++) {
      if (lead) {
        must(piece[k] == ' ');
        lead = 0;
      } else if (at + 3 <= size && !memcmp(text + at, "\xe2\x96\x81", 3)
                 && v->kind == ENGINE_VOCAB_SPM) {
        must(piece[k] == ' ');
        at += 3;
      } else {
        must(at < size && piece[k] == text[at]);
        at++;
      }
    }
  }
  must(at == size);
}


static void encode(const struct engine_vocab *v, const char *text, size_t size,
                   const struct engine_span *spans, size_t count) {
  struct engine_ids ids = { 0 };
  struct engine_prompt p = { text, size, spans, count };
  int content = 1;
  must(engine_vocab_encode(v, &p, 0, &ids, NULL) == 0);
  for (size_t i = 0; i < count; i++)
    content = content && !spans[i].special;
  for (size_t i = 0; i < ids.count; i++) {
    must(ids.at[i] >= 0 && (uint32_t)ids.at[i] < v->size);
    must(!content || v->type[ids.at[i]] != ENGINE_TOKEN_CONTROL);
  }
  if (content)
    same_bytes(v, &ids, text, size);
  engine_ids_deinit(&ids);
}


int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static const char *const rules[] = { "qwen2", "llama-bpe", "gpt-2",
                                       "starcoder" };
  static struct engine_vocab *vocabs[2];
  if (size < 2)
    return 0;
  int bpe = data[0] & 1;
  if (!vocabs[bpe])
    vocabs[bpe] = load(bpe);
  struct engine_vocab *v = vocabs[bpe];
  const char *rule = rules[data[0] >> 1 & 3];
  v->pre = engine_pre_find(rule, strlen(rule));
  long before = mem_live();
  size_t text_size = size - 2, cut = data[1] % (text_size + 1);
  char *text = malloc(text_size ? text_size : 1);
  must(text != NULL);
  memcpy(text, data + 2, text_size);
  struct engine_span spans[] = { { cut, data[0] >> 3 & 1 },
                                 { text_size, data[0] >> 4 & 1 } };
  encode(v, text, text_size, spans, 2);
  spans[0] = (struct engine_span){ text_size, 0 };
  encode(v, text, text_size, spans, 1);
  free(text);
  must(mem_live() == before);
  return 0;
}
