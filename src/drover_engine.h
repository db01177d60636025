/* drover_engine: the local model. A part of drover.h, which includes it: the
 * same rules hold.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_H
#define DROVER_ENGINE_H

#pragma GCC visibility push(default)
/* cdef begin */
typedef struct drover_engine drover_engine;

/* What the cache holds keys and values as: halves, floats, or bytes with a
 * scale for each 32. */
enum drover_kv { DROVER_KV_F16, DROVER_KV_F32, DROVER_KV_Q8_0 };

/* Guessed tokens: while they pay, never, or wherever there is a guess. What
 * is said is the same. */
enum drover_draft { DROVER_DRAFT_AUTO, DROVER_DRAFT_NEVER,
                    DROVER_DRAFT_ALWAYS };

/* What to make of a prompt: text that follows it; or one vector, of the mean
 * of its tokens' last states, of the last one, or of the first, of length 1. */
enum drover_pool { DROVER_POOL_NONE, DROVER_POOL_MEAN, DROVER_POOL_LAST,
                   DROVER_POOL_CLS };

typedef struct drover_engine_config {
  const char *path;                 /* of a GGUF file */
  const char *device;               /* NULL or "cpu"; "cpu_plain": no packed
                                     * weights, float activations; slow */
  uint32_t context;                 /* tokens a sequence; 0: the model's */
  uint32_t batch;                   /* sequences a step; 0: 16 */
  uint32_t queue;                   /* requests waiting; 0: 256 */
  uint64_t memory_cap_bytes;        /* weights and cache; 0: the cache takes
                                     * half of what is free, at most */
  uint32_t kv;                      /* enum drover_kv; with Q8_0 "cpu" is
                                     * "cpu_plain" */
  uint32_t step_ms;                 /* a step's aim, beside replies; 0: 200 */
  uint32_t draft;                   /* enum drover_draft */
  uint32_t threads;                 /* that compute, 64 at most; 0: all cores;
                                     * UINT32_MAX: all but one */
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
  double   tokens_per_second;       /* of late; 0 when nothing runs */
  double   prompt_tokens;           /* that were to be read, and of those … */
  double   prefix_tokens;           /* … found in the cache */
  double   preemptions;             /* sequences that gave their blocks back */
  double   drafted, accepted;       /* tokens guessed; that came true */
} drover_engine_load;
void drover_engine_busy(drover_engine *e, drover_engine_load *out);
typedef struct drover_text { const char *data; size_t size; } drover_text;
typedef struct drover_message { drover_text role, content; } drover_message;

typedef struct drover_bias { int32_t token; float bias; } drover_bias;

enum drover_format { DROVER_FORMAT_TEXT, DROVER_FORMAT_JSON,
                     DROVER_FORMAT_SCHEMA };

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
  uint64_t salt;                    /* whose: the cache is shared under one */
  uint32_t priority;                /* enum drover_priority */
  uint32_t pool;                    /* enum drover_pool: VECTOR, then END */
  float    min_p;                   /* 0: off */
  float    repetition;              /* over prompt and reply; 0 or 1: off */
  float    presence, frequency;     /* over the reply, -2 to 2; 0: off */
  const drover_bias *bias;          /* at most 1024, each -100 to 100 */
  uint32_t bias_count;
  const int32_t *stop_id;           /* at most 64 tokens that end the reply */
  uint32_t stop_id_count;
  uint32_t n;                       /* choices, at most 128; 0: 1. The first
                                     * is what n = 1 gives */
  uint32_t logprobs, top_logprobs;  /* 1: wanted; beside it 0 to 20 others */
  uint32_t echo;                    /* 1: `prompt` before the reply's text;
                                     * not with logprobs */
  uint32_t format;                  /* enum drover_format */
  drover_text schema;               /* JSON, with DROVER_FORMAT_SCHEMA */
} drover_generate;

/* Generate on the local model; events TEXT…, a CHOICE for each choice that
 * ends but the last one, then END or FAIL, as for HTTP. DROVER_ECONTEXT,
 * DROVER_EOVERLOADED (queue full) and bad values are returned at once.
 * Everything is copied. */
int drover_call_engine(drover_call **out, drover_port *p, drover_engine *e,
                       const drover_generate *g, drover_err *err);
/* How many tokens of this prompt the engine's cache holds now; the tokens it
 * has in all to `tokens` (may be NULL). Or a DROVER_E*. Any thread. */
long drover_engine_prefix(drover_engine *e, const drover_generate *g,
                          uint32_t *tokens, drover_err *err);
/* How many tokens the model makes of a text (special tokens are text). */
long drover_engine_tokens(drover_engine *e, const char *text, size_t size);

/* ---- a model file's texts: its vocabulary and chat template ---- */
typedef struct drover_model drover_model;

/* Read a file's keys, vocabulary and template; no weights, no thread.
 * DROVER_EFORMAT names what is wrong. */
int drover_model_open(drover_model **out, const char *path, drover_err *err);
void drover_model_close(drover_model *m);       /* takes NULL */
/* That of an open engine: the engine's, which must outlive its use. */
drover_model *drover_engine_model(drover_engine *e);

/* The ids of a text: how many there are; at most `cap` are written. `flags`: 1,
 * spellings of special tokens are those tokens, but across no mark (see
 * drover_model_mark); 2, with a BOS in front if the model wants it. */
long drover_model_encode(drover_model *m, const drover_text *text, int flags,
                         int32_t *ids, size_t cap, drover_err *err);

/* The bytes of one token as it stands in the vocabulary: how many, or
 * DROVER_ENOTFOUND. */
long drover_model_token(drover_model *m, int32_t id, char *buf, size_t cap);

enum drover_model_text { DROVER_MODEL_TEMPLATE, DROVER_MODEL_BOS,
                         DROVER_MODEL_EOS };
/* Copy one of its texts; the bytes it has (0: it has none). */
long drover_model_text(drover_model *m, int which, char *buf, size_t cap);

/* Copy a text that users wrote, marked so that no control token is recognised
 * in it whatever a template does: the byte 0xfe breaks their spellings. Returns
 * the bytes needed, at most twice the text's, or DROVER_ENOMEM. */
long drover_model_mark(drover_model *m, const char *text, size_t size,
                       char *buf, size_t cap);

/* Keys and tensors as lines of text, for people; the bytes needed. Not for an
 * engine's. */
long drover_model_describe(drover_model *m, char *buf, size_t cap);
/* cdef end */
#pragma GCC visibility pop
#endif
