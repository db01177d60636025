/* drover_engine: the local model. A part of drover.h, which includes it: the
 * same rules hold.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_H
#define DROVER_ENGINE_H

#pragma GCC visibility push(default)
/* cdef begin */
typedef struct drover_engine drover_engine;

typedef struct drover_engine_config {
  const char *path;                 /* of a GGUF file */
  const char *device;               /* NULL or "cpu"; "cpu_plain": no packed
                                     * weights, float activations; slow */
  uint32_t context;                 /* tokens a sequence; 0: the model's */
  uint32_t batch;                   /* sequences a step; 0: 16 */
  uint32_t queue;                   /* requests waiting; 0: 256 */
  uint64_t memory_cap_bytes;        /* weights and cache; 0: none */
  uint32_t threads;                 /* that compute; 0: all cores, 64 at most */
  uint32_t kv;                      /* keys and values: 0 floats, 1 halves */
} drover_engine_config;

typedef struct drover_engine_info {
  char     name[128];               /* general.name, or "" */
  char     architecture[32];
  uint32_t context, vocab, layers, width, has_template;
  uint64_t parameters, file_bytes, memory_bytes;
} drover_engine_info;

/* Map and check the file; no thread yet (the first call starts one, in the
 * process that makes it). DROVER_EFORMAT names the byte or field. */
int drover_engine_open(drover_engine **out, const drover_engine_config *c,
                       drover_err *err);
void drover_engine_close(drover_engine *e);     /* takes NULL */
void drover_engine_describe(drover_engine *e, drover_engine_info *out);
typedef struct drover_engine_load {
  uint32_t running, waiting, kv_tokens_used, kv_tokens;
  double   steps, tokens;           /* since it was opened */
} drover_engine_load;
void drover_engine_busy(drover_engine *e, drover_engine_load *out);
typedef struct drover_text { const char *data; size_t size; } drover_text;
typedef struct drover_message { drover_text role, content; } drover_message;

typedef struct drover_generate {
  uint32_t call;                    /* comes back in each event; not 0 */
  const drover_message *messages;   /* rendered by the model's template; or */
  uint32_t messages_count;
  drover_text prompt;               /* raw text, when messages_count is 0 */
  uint32_t max_tokens;              /* 0: what the context leaves */
  float    temperature;             /* 0: greedy */
  uint32_t top_k;                   /* 0: off */
  float    top_p;                   /* 1: off */
  uint64_t seed;
  const drover_text *stop;          /* at most 16 of at most 256 bytes */
  uint32_t stop_count;
  double   first_token, total;      /* deadlines, seconds from now; 0: none */
} drover_generate;

/* Generate on the local model; events TEXT…, then END or FAIL, as for HTTP.
 * DROVER_ECONTEXT, DROVER_EOVERLOADED (queue full) and bad values are
 * returned at once. Everything is copied. */
int drover_call_engine(drover_call **out, drover_port *p, drover_engine *e,
                       const drover_generate *g, drover_err *err);
/* How many tokens the model makes of a text (special tokens are text). */
long drover_engine_tokens(drover_engine *e, const char *text, size_t size);
/* cdef end */
#pragma GCC visibility pop
#endif
