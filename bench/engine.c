/* engine: the local engine's speed, without its scheduler and sampler.
 *
 *   engine MODEL THREADS PROMPT TOKENS BATCH,…    one line a batch:
 *     decode BATCH tokens/s, after PROMPT tokens a sequence, TOKENS steps;
 *     and one of a prompt of 512 tokens: prefill 512 tokens/s
 *   engine floors THREADS                         what the machine gives now:
 *     read GB/s over 512 MB; int8 GMAC/s of its widest multiply-add
 *
 * Keys and values are halves, as llama.cpp's are.
 *
 * SPDX-License-Identifier: MIT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/cpu_pool.h"
#include "engine/step.h"

#if defined __x86_64__
#include <immintrin.h>
#endif

enum { ROWS = 128, SEQS = 32, PREFILL = 512, BLOCKS = 2048 };

struct bench {
  struct engine_model *model;
  struct engine_step step;
  struct engine_rows rows;
  int32_t token[ROWS], pos[ROWS], start[SEQS + 1], out[SEQS];
  int32_t *block;                   /* [SEQS][block_ld] */
};


static void die(const char *what) {
  fprintf(stderr, "engine: %s\n", what);
  exit(1);
}


static void open_model(struct bench *b, const char *path, uint32_t threads) {
  struct engine_gguf *g;
  struct engine_shape shape;
  struct engine_limits limits = {
    .rows = ROWS, .outs = SEQS, .blocks = BLOCKS, .threads = threads,
    .kv = DROVER_KV_F16,
  };
  const struct engine_backend *backend;
  drover_err err;
  if (engine_backend_find(&backend, "cpu", DROVER_KV_F16, &err)
      || engine_gguf_open(&g, path, &err)
      || engine_model_new(&b->model, g, &err)
      || engine_model_load(b->model, g, backend, &err))
    die(err.text);
  engine_gguf_close(g);
  engine_model_context(b->model, 1024, &shape);
  if (engine_step_init(&b->step, b->model, &shape, &limits, &err))
    die(err.text);
  b->rows.block_ld = BLOCKS / SEQS;
  b->block = malloc(sizeof *b->block * BLOCKS);
  for (int i = 0; i < BLOCKS; i++)
    b->block[i] = i;
  b->rows.token = b->token;
  b->rows.pos = b->pos;
  b->rows.seq_start = b->start;
  b->rows.block = b->block;
  b->rows.out_row = b->out;
}


/* Positions pos … pos + n of the first `seqs` sequences. */
static void step(struct bench *b, int seqs, int n, int pos, int outs) {
  drover_err err;
  for (int s = 0, r = 0; s < seqs; s++) {
    b->start[s] = r;
    for (int i = 0; i < n; i++, r++) {
      b->token[r] = (r * 7919 + pos * 31) % (int)b->model->shape.vocab;
      b->pos[r] = pos + i;
    }
    b->start[s + 1] = r;
    b->out[s] = r - 1;
  }
  b->rows.rows = seqs * n;
  b->rows.seqs = seqs;
  b->rows.outs = outs ? seqs : 0;
  if (engine_step_run(&b->step, &b->rows, &err))
    die(err.text);
}


/* A prompt as the engine reads it: in steps of ROWS rows. */
static void prefill(struct bench *b, int seqs, int tokens) {
  int chunk = ROWS / seqs < tokens ? ROWS / seqs : tokens;
  for (int pos = 0; pos < tokens; pos += chunk)
    step(b, seqs, tokens - pos < chunk ? tokens - pos : chunk, pos,
         pos + chunk >= tokens);
}


static void measure(struct bench *b, int prompt, int tokens, char *batches) {
  for (char *at = strtok(batches, ","); at; at = strtok(NULL, ",")) {
    int seqs = atoi(at);
    if (seqs < 1 || seqs > SEQS)
      die("a batch is 1 to 32");
    prefill(b, seqs, prompt);
    int64_t from = clock_now_ns();
    for (int i = 0; i < tokens; i++)
      step(b, seqs, 1, prompt + i, 1);
    double took = (double)(clock_now_ns() - from) / 1e9;
    printf("decode %d %.2f\n", seqs, seqs * tokens / took);
  }
  int64_t from = clock_now_ns();
  prefill(b, 1, PREFILL);
  printf("prefill %d %.2f\n", PREFILL,
         PREFILL / ((double)(clock_now_ns() - from) / 1e9));
}


/* ---- floors ---- */

enum { READ_CHUNK = 1 << 20, READ_CHUNKS = 512, TURNS = 4000000 };

struct floors {
  const uint64_t *memory;
  uint64_t sum[ENGINE_THREADS_MAX][8];
  double   macs[ENGINE_THREADS_MAX];
};

typedef uint64_t eight __attribute__((vector_size(64), aligned(8), may_alias));


static void read_chunk(void *ctx, uint32_t chunk, uint32_t thread) {
  struct floors *f = ctx;
  const eight *at = (const void *)((const char *)f->memory
                                   + (size_t)chunk * READ_CHUNK);
  eight sum[4] = { 0 };
  for (size_t i = 0; i < READ_CHUNK / sizeof *at; i += 4)
    for (int j = 0; j < 4; j++)
      sum[j] ^= at[i + (size_t)j];
  sum[0] ^= sum[1] ^ sum[2] ^ sum[3];
  for (int i = 0; i < 8; i++)
    f->sum[thread][i] ^= sum[0][i];
}


#if defined __x86_64__
/* Ten chains, so that no add waits. What comes out is used: or it would not be
 * computed. */
__attribute__((target("avx512f,avx512vnni")))
static double multiply_512(uint64_t *use) {
  __m512i sum[10], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
  for (int j = 0; j < 10; j++)
    sum[j] = _mm512_set1_epi32(j);
  for (int i = 0; i < TURNS; i++)
    for (int j = 0; j < 10; j++)
      sum[j] = _mm512_dpbusd_epi32(sum[j], a, b);
  for (int j = 1; j < 10; j++)
    sum[0] = _mm512_xor_si512(sum[0], sum[j]);
  *use ^= (uint64_t)_mm512_reduce_add_epi32(sum[0]);
  return 64.0 * 10 * TURNS;
}


__attribute__((target("avx2")))
static double multiply_256(uint64_t *use) {
  __m256i sum[10], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
  __m256i one = _mm256_set1_epi16(1);
  for (int j = 0; j < 10; j++)
    sum[j] = _mm256_set1_epi32(j);
  for (int i = 0; i < TURNS; i++)
    for (int j = 0; j < 10; j++)
      sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(
        _mm256_maddubs_epi16(a, _mm256_xor_si256(b, sum[j])), one));
  for (int j = 0; j < 10; j++)
    *use ^= (uint64_t)_mm256_extract_epi32(sum[j], 0);
  return 32.0 * 10 * TURNS;
}
#endif


static void multiply_chunk(void *ctx, uint32_t chunk, uint32_t thread) {
  struct floors *f = ctx;
  (void)chunk;
#if defined __x86_64__
  if (__builtin_cpu_supports("avx512vnni"))
    f->macs[thread] += multiply_512(f->sum[thread]);
  else if (__builtin_cpu_supports("avx2"))
    f->macs[thread] += multiply_256(f->sum[thread]);
#endif
}


static double best_of(struct engine_pool *p, uint32_t chunks,
                      engine_chunk_fn fn, struct floors *f) {
  double best = 1e9;
  for (int i = 0; i < 3; i++) {
    int64_t from = clock_now_ns();
    memset(f->macs, 0, sizeof f->macs);
    engine_pool_run(p, chunks, fn, f);
    double took = (double)(clock_now_ns() - from) / 1e9;
    best = took < best ? took : best;
  }
  return best;
}


static void floors(uint32_t threads) {
  static struct floors f;
  struct engine_pool *p;
  size_t size = (size_t)READ_CHUNK * READ_CHUNKS;
  unsigned char *memory = malloc(size);
  drover_err err;
  if (!memory || engine_pool_new(&p, threads, &err))
    die("no memory");
  memset(memory, 1, size);
  f.memory = (const void *)memory;
  double took = best_of(p, READ_CHUNKS, read_chunk, &f), macs = 0;
  printf("read %.1f\n", (double)size / took / 1e9);
  took = best_of(p, threads * 4, multiply_chunk, &f);
  for (int i = 0; i < ENGINE_THREADS_MAX; i++)
    macs += f.macs[i];
  printf("int8 %.0f\n", macs / took / 1e9);
  uint64_t use = 0;
  for (int i = 0; i < ENGINE_THREADS_MAX; i++)
    use ^= f.sum[i][0];
  fprintf(stderr, "%s", use == 42 ? " " : "");
  engine_pool_free(p);
  free(memory);
}


int main(int argc, char **argv) {
  static struct bench b;
  if (argc == 3 && !strcmp(argv[1], "floors")) {
    floors((uint32_t)atoi(argv[2]));
    return 0;
  }
  if (argc != 6) {
    fprintf(stderr, "engine MODEL THREADS PROMPT TOKENS BATCH,…\n"
            "engine floors THREADS\n");
    return 2;
  }
  open_model(&b, argv[1], (uint32_t)atoi(argv[2]));
  int prompt = atoi(argv[3]), tokens = atoi(argv[4]);
  if (prompt < 1 || tokens < 1 || prompt + tokens > 1024)
    die("a prompt and its tokens are 2 to 1024");
  measure(&b, prompt, tokens, argv[5]);
  engine_step_deinit(&b.step);
  engine_model_free(b.model);
  free(b.block);
  return 0;
}
