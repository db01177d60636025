/* tiny: a small whole model file in memory, for programs that fuzz, torture
 * and race the engine. One layer of 8, 2 heads (1 for keys), context 64, all
 * bytes as tokens; byte-level BPE with ChatML, or SPM without a template.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_SPEC_TINY_H
#define DROVER_SPEC_TINY_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TINY_MAX = 32768, TINY_WIDTH = 8, TINY_TOKENS = 261 };

struct tiny {
  size_t size;
  uint32_t tensors, keys;
  uint64_t at;                      /* of the next tensor in the data section */
  unsigned char bytes[TINY_MAX];
};


static inline void tiny_add(struct tiny *t, const void *bytes, size_t size) {
  memcpy(t->bytes + t->size, bytes, size);
  t->size += size;
}


static inline void tiny_u32(struct tiny *t, uint32_t n) {
  tiny_add(t, &n, sizeof n);
}


static inline void tiny_u64(struct tiny *t, uint64_t n) {
  tiny_add(t, &n, sizeof n);
}


static inline void tiny_text(struct tiny *t, const char *text) {
  tiny_u64(t, strlen(text));
  tiny_add(t, text, strlen(text));
}


static inline void tiny_key(struct tiny *t, const char *name, uint32_t type) {
  t->keys++;
  tiny_text(t, name);
  tiny_u32(t, type);
}


static inline void tiny_number(struct tiny *t, const char *name, uint32_t n) {
  tiny_key(t, name, 4);
  tiny_u32(t, n);
}


static inline void tiny_string(struct tiny *t, const char *name,
                               const char *text) {
  tiny_key(t, name, 8);
  tiny_text(t, text);
}


static inline void tiny_array(struct tiny *t, const char *name, uint32_t item,
                              uint64_t count) {
  tiny_key(t, name, 9);
  tiny_u32(t, item);
  tiny_u64(t, count);
}


/* The text of token i: 256 bytes, then five others. */
static inline const char *tiny_token(int bpe, int i, char *room) {
  static const char *const rest[2][5] = {
    { "<unk>", "<s>", "</s>", "\xe2\x96\x81", "\xe2\x96\x81""a" },
    { "ab", "abc", "<|im_start|>", "<|im_end|>", "<tool>" },
  };
  for (int k = 0; k < 5; k++)
    if (i == 256 + k)
      return rest[bpe][k];
  if (!bpe) {
    sprintf(room, "<0x%02X>", i);
    return room;
  }
  int plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
  int code = plain ? i : i <= 32 ? 256 + i : i == 173 ? 323 : 289 + i - 127;
  if (code < 128)
    sprintf(room, "%c", code);
  else
    sprintf(room, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
  return room;
}


static inline void tiny_tokenizer(struct tiny *t, int bpe) {
  static const uint32_t rest[2][5] = { { 2, 3, 3, 1, 1 }, { 1, 1, 3, 3, 4 } };
  char room[16];
  tiny_string(t, "tokenizer.ggml.model", bpe ? "gpt2" : "llama");
  tiny_array(t, "tokenizer.ggml.tokens", 8, TINY_TOKENS);
  for (int i = 0; i < TINY_TOKENS; i++)
    tiny_text(t, tiny_token(bpe, i, room));
  tiny_array(t, "tokenizer.ggml.token_type", 5, TINY_TOKENS);
  for (int i = 0; i < TINY_TOKENS; i++)
    tiny_u32(t, i >= 256 ? rest[bpe][i - 256] : bpe ? 1 : 6);
  tiny_number(t, "tokenizer.ggml.eos_token_id", bpe ? 259 : 258);
  if (bpe) {
    tiny_string(t, "tokenizer.ggml.pre", "qwen2");
    tiny_string(t, "tokenizer.chat_template", "<|im_start|>");
    tiny_array(t, "tokenizer.ggml.merges", 8, 2);
    tiny_text(t, "a b");
    tiny_text(t, "ab c");
  } else {
    tiny_number(t, "tokenizer.ggml.unknown_token_id", 256);
    tiny_number(t, "tokenizer.ggml.bos_token_id", 257);
    tiny_array(t, "tokenizer.ggml.scores", 6, TINY_TOKENS);
    for (int i = 0; i < TINY_TOKENS; i++)
      tiny_u32(t, 0xbf800000);      /* -1 */
  }
}


static inline void tiny_tensor(struct tiny *t, const char *name, uint32_t cols,
                               uint32_t rows) {
  t->tensors++;
  tiny_text(t, name);
  tiny_u32(t, rows ? 2 : 1);
  tiny_u64(t, cols);
  if (rows)
    tiny_u64(t, rows);
  tiny_u32(t, 0);
  tiny_u64(t, t->at);
  uint64_t bytes = 4ULL * cols * (rows ? rows : 1);
  t->at += (bytes + 31) / 32 * 32;
}


static inline void tiny_tensors(struct tiny *t) {
  static const char *const square[] = { "attn_q", "attn_output", "ffn_gate",
                                        "ffn_up", "ffn_down" };
  static const char *const narrow[] = { "attn_k", "attn_v" };
  char name[64];
  tiny_tensor(t, "token_embd.weight", TINY_WIDTH, TINY_TOKENS);
  for (int i = 0; i < 5; i++) {
    snprintf(name, sizeof name, "blk.0.%s.weight", square[i]);
    tiny_tensor(t, name, TINY_WIDTH, TINY_WIDTH);
  }
  for (int i = 0; i < 2; i++) {
    snprintf(name, sizeof name, "blk.0.%s.weight", narrow[i]);
    tiny_tensor(t, name, TINY_WIDTH, TINY_WIDTH / 2);
  }
  tiny_tensor(t, "blk.0.attn_norm.weight", TINY_WIDTH, 0);
  tiny_tensor(t, "blk.0.ffn_norm.weight", TINY_WIDTH, 0);
  tiny_tensor(t, "output_norm.weight", TINY_WIDTH, 0);
}


static inline void tiny_build(struct tiny *t, int bpe) {
  memset(t, 0, sizeof *t);
  tiny_add(t, "GGUF", 4);
  tiny_u32(t, 3);
  tiny_u64(t, 0);                   /* both counts are written below */
  tiny_u64(t, 0);
  tiny_string(t, "general.architecture", "llama");
  tiny_number(t, "llama.block_count", 1);
  tiny_number(t, "llama.embedding_length", TINY_WIDTH);
  tiny_number(t, "llama.feed_forward_length", TINY_WIDTH);
  tiny_number(t, "llama.context_length", 64);
  tiny_number(t, "llama.attention.head_count", 2);
  tiny_number(t, "llama.attention.head_count_kv", 1);
  tiny_key(t, "llama.attention.layer_norm_rms_epsilon", 6);
  tiny_u32(t, 0x3727c5ac);          /* 1e-5 */
  tiny_tokenizer(t, bpe);
  tiny_tensors(t);
  memcpy(t->bytes + 8, &t->tensors, sizeof t->tensors);
  memcpy(t->bytes + 16, &t->keys, sizeof t->keys);
  t->size = (t->size + 31) / 32 * 32;
  uint32_t x = 1;
  for (uint64_t i = 0; i < t->at / 4; i++) {
    x = x * 1664525 + 1013904223;
    float f = (float)(x >> 8) / (1 << 23) - 1;
    tiny_add(t, &f, sizeof f);
  }
}


/* A file that lives in memory and goes with `fd`; its path into `path`. */
static inline int tiny_file(const void *bytes, size_t size, char path[64]) {
  int fd = memfd_create("tiny.gguf", MFD_CLOEXEC);
  snprintf(path, 64, "/proc/self/fd/%d", fd);
  if (fd >= 0 && write(fd, bytes, size) != (ssize_t)size) {
    close(fd);
    return -1;
  }
  return fd;
}

#endif
