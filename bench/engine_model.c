/* engine_model: writes a model of random weights, for `make bench-engine`.
 *
 *   engine_model small|1b f16|q8_0|q4_0|q4_k FILE
 *
 * "small" is 512 wide, 8 layers, 8 heads, 1536 hidden, 8192 tokens, untied;
 * "1b" has the shape of Llama-3.2-1B: 2048, 16, 32 over 8, 8192, 128256, tied.
 * As usual quantisers do, 4-bit files have their output matrix (and the
 * embedding, where that is tied to it) in Q6_K. Output is nonsense, speed is
 * not.
 *
 * SPDX-License-Identifier: MIT */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kind {
  const char *name;
  uint32_t type, values, bytes;
  int halves[2];                    /* where a block's scales are; -1: none */
};

static const struct kind kinds[] = {
  { "f16", 1, 1, 2, { -1, -1 } },    { "q8_0", 8, 32, 34, { 0, -1 } },
  { "q4_0", 2, 32, 18, { 0, -1 } },  { "q4_k", 12, 256, 144, { 0, 2 } },
  { "q6_k", 14, 256, 210, { 208, -1 } }, { "f32", 0, 1, 4, { -1, -1 } },
};

struct size {
  const char *name;
  uint32_t width, layers, heads, kv_heads, ff, vocab, tied;
};

static const struct size sizes[] = {
  { "small", 512, 8, 8, 8, 1536, 8192, 0 },
  { "1b", 2048, 16, 32, 8, 8192, 128256, 1 },
};

struct tensor {
  char name[64];
  const struct kind *kind;
  uint64_t cols, rows;
};

struct file {
  FILE *out;
  uint64_t state;                   /* of the random numbers */
  uint32_t keys, tensors;
  struct tensor tensor[256];
};


static uint32_t draw(struct file *f) {
  f->state = f->state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(f->state >> 32);
}


static void put(struct file *f, const void *at, size_t size) {
  if (fwrite(at, 1, size, f->out) != size) {
    perror("engine_model");
    exit(1);
  }
}


static void put_u32(struct file *f, uint32_t n) {
  put(f, &n, sizeof n);
}


static void put_u64(struct file *f, uint64_t n) {
  put(f, &n, sizeof n);
}


static void put_text(struct file *f, const char *text) {
  put_u64(f, strlen(text));
  put(f, text, strlen(text));
}


static void key_u32(struct file *f, const char *key, uint32_t n) {
  put_text(f, key);
  put_u32(f, 4);
  put_u32(f, n);
}


static void key_text(struct file *f, const char *key, const char *text) {
  put_text(f, key);
  put_u32(f, 8);
  put_text(f, text);
}


static void key_list(struct file *f, const char *key, uint32_t type,
                     uint32_t count) {
  put_text(f, key);
  put_u32(f, 9);
  put_u32(f, type);
  put_u64(f, count);
}


/* SPM: three special tokens, all bytes, and words of no meaning. */
static void put_tokens(struct file *f, uint32_t count) {
  char text[32];
  key_text(f, "tokenizer.ggml.model", "llama");
  key_list(f, "tokenizer.ggml.tokens", 8, count);
  for (uint32_t i = 0; i < count; i++) {
    static const char *const first[] = { "<unk>", "<s>", "</s>" };
    if (i < 3)
      snprintf(text, sizeof text, "%s", first[i]);
    else
      snprintf(text, sizeof text, i < 259 ? "<0x%02X>" : "w%u",
               (unsigned)(i < 259 ? i - 3 : i));
    put_text(f, text);
  }
  key_list(f, "tokenizer.ggml.scores", 6, count);
  for (uint32_t i = 0; i < count; i++) {
    float score = -(float)i;
    put(f, &score, sizeof score);
  }
  key_list(f, "tokenizer.ggml.token_type", 5, count);
  for (uint32_t i = 0; i < count; i++)
    put_u32(f, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1);
  key_u32(f, "tokenizer.ggml.bos_token_id", 1);
  key_u32(f, "tokenizer.ggml.eos_token_id", 2);
}


static void put_keys(struct file *f, const struct size *z) {
  key_text(f, "general.architecture", "llama");
  key_text(f, "general.name", z->name);
  key_u32(f, "llama.block_count", z->layers);
  key_u32(f, "llama.embedding_length", z->width);
  key_u32(f, "llama.feed_forward_length", z->ff);
  key_u32(f, "llama.context_length", 8192);
  key_u32(f, "llama.attention.head_count", z->heads);
  key_u32(f, "llama.attention.head_count_kv", z->kv_heads);
  put_text(f, "llama.attention.layer_norm_rms_epsilon");
  put_u32(f, 6);
  float eps = 1e-5f;
  put(f, &eps, sizeof eps);
  put_tokens(f, z->vocab);
}

enum { KEYS = 15 };


static void add(struct file *f, const struct kind *kind, const char *name,
                uint64_t cols, uint64_t rows) {
  struct tensor *t = &f->tensor[f->tensors++];
  snprintf(t->name, sizeof t->name, "%s.weight", name);
  t->kind = kind;
  t->cols = cols;
  t->rows = rows;
}


static void add_layer(struct file *f, const struct size *z,
                      const struct kind *kind, uint32_t layer) {
  const struct kind *plain = &kinds[5];
  uint64_t kv = z->width / z->heads * z->kv_heads;
  const struct { const char *name; uint64_t cols, rows; } parts[] = {
    { "attn_norm", z->width, 1 }, { "attn_q", z->width, z->width },
    { "attn_k", z->width, kv }, { "attn_v", z->width, kv },
    { "attn_output", z->width, z->width }, { "ffn_norm", z->width, 1 },
    { "ffn_gate", z->width, z->ff }, { "ffn_up", z->width, z->ff },
    { "ffn_down", z->ff, z->width },
  };
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    char name[48];
    snprintf(name, sizeof name, "blk.%u.%s", (unsigned)layer, parts[i].name);
    add(f, parts[i].rows == 1 ? plain : kind, name, parts[i].cols,
        parts[i].rows);
  }
}


static uint64_t tensor_bytes(const struct tensor *t) {
  return t->rows * (t->cols / t->kind->values) * t->kind->bytes;
}


/* Scales of some 2^-9, so that weights are about as large as a trained
 * model's. */
static void put_block(struct file *f, const struct kind *k) {
  unsigned char block[256];
  float one = 1;
  if (k->type == 0) {
    put(f, &one, sizeof one);       /* gains */
    return;
  }
  for (uint32_t i = 0; i < k->bytes; i += 4) {
    uint32_t n = draw(f);
    memcpy(block + i, &n, sizeof n);
  }
  int low = k->type == 8 ? 0x08 : k->type > 8 ? 0x04 : 0x1a;
  if (k->type == 1)
    block[1] = (unsigned char)((block[1] & 0x83) | 0x20);
  for (int h = 0; h < 2 && k->halves[h] >= 0; h++)
    block[k->halves[h] + 1] = (unsigned char)(low + (block[0] & 1));
  put(f, block, k->bytes);
}


static void put_tensors(struct file *f) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < f->tensors; i++) {
    const struct tensor *t = &f->tensor[i];
    put_text(f, t->name);
    put_u32(f, t->rows == 1 ? 1 : 2);
    put_u64(f, t->cols);
    if (t->rows > 1)
      put_u64(f, t->rows);
    put_u32(f, t->kind->type);
    put_u64(f, at);
    at += (tensor_bytes(t) + 31) / 32 * 32;
  }
  while (ftell(f->out) % 32)
    put(f, "", 1);
  for (uint32_t i = 0; i < f->tensors; i++) {
    const struct tensor *t = &f->tensor[i];
    uint64_t blocks = t->rows * (t->cols / t->kind->values);
    for (uint64_t b = 0; b < blocks; b++)
      put_block(f, t->kind);
    while (ftell(f->out) % 32)
      put(f, "", 1);
  }
}


static const struct kind *find_kind(const char *name) {
  for (int i = 0; i < 4; i++)
    if (!strcmp(kinds[i].name, name))
      return &kinds[i];
  return NULL;
}


int main(int argc, char **argv) {
  static struct file f;
  const struct size *z = argc == 4 && !strcmp(argv[1], "1b") ? &sizes[1]
                                                             : &sizes[0];
  const struct kind *kind = argc == 4 ? find_kind(argv[2]) : NULL;
  if (!kind || strcmp(argv[1], z->name) || !(f.out = fopen(argv[3], "wb"))) {
    fprintf(stderr, "engine_model small|1b f16|q8_0|q4_0|q4_k FILE\n");
    return 2;
  }
  int four = kind->type == 2 || kind->type == 12;
  const struct kind *last = four ? &kinds[4] : kind;
  f.state = 1;
  add(&f, z->tied ? last : kind, "token_embd", z->width, z->vocab);
  for (uint32_t i = 0; i < z->layers; i++)
    add_layer(&f, z, kind, i);
  add(&f, &kinds[5], "output_norm", z->width, 1);
  if (!z->tied)
    add(&f, last, "output", z->width, z->vocab);
  put(&f, "GGUF", 4);
  put_u32(&f, 3);
  put_u64(&f, f.tensors);
  put_u64(&f, KEYS);
  put_keys(&f, z);
  put_tensors(&f);
  return fclose(f.out) ? 1 : 0;
}
