-- Declares the engine's hatch, and what multiplies behind it, for specs that
-- call them without a model.
require("spec.support.c").cdef[[
struct engine_weight; struct engine_buffer; struct engine_state;
struct engine_linear { struct engine_weight *w, *bias; };
struct engine_experts { struct engine_linear router, gate, up, down; };
struct engine_rows {
  int rows, seqs, outs;
  const int32_t *token, *pos, *seq_start, *block;
  int block_ld;
  const int32_t *out_row;
};
struct engine_backend {
  const char *name;
  int invariant;
  uint32_t knee;
  int (*weight_new)(struct engine_weight **out,
    const struct engine_weight_from *from, drover_err *err);
  void (*weight_free)(struct engine_weight *w);
  uint64_t (*weight_bytes)(const struct engine_weight_from *from);
  int (*buffer_new)(struct engine_buffer **out, uint32_t rows, uint32_t width,
    drover_err *err);
  void (*buffer_free)(struct engine_buffer *b);
  void (*upload)(struct engine_buffer *b, const float *from, size_t count);
  const float *(*read)(struct engine_buffer *b, uint32_t row);
  uint64_t (*state_bytes)(const void *shape, const void *limits);
  int (*state_new)(struct engine_state **out, const struct engine_shape *shape,
    const struct engine_limits *limits, drover_err *err);
  void (*state_free)(struct engine_state *s);
  void (*step_begin)(struct engine_state *s, const struct engine_rows *rows);
  int (*step_end)(struct engine_state *s, drover_err *err);
  void (*kv_copy)(struct engine_state *s, const int32_t *from,
    const int32_t *to, int count);
  void (*embed)(struct engine_state *s, struct engine_buffer *x,
    const struct engine_weight *w);
  void (*norm)(struct engine_state *s, struct engine_buffer *act,
    struct engine_buffer *x, const struct engine_buffer *add,
    const struct engine_weight *gain);
  void (*norm_own)(struct engine_state *s, struct engine_buffer *y,
    const struct engine_weight *gain);
  void (*matmul)(struct engine_state *s, struct engine_buffer *y, uint32_t at,
    const struct engine_buffer *act, const struct engine_linear *w);
  void (*qkv_store)(struct engine_state *s, uint32_t layer,
    struct engine_buffer *qkv, const struct engine_weight *q_gain,
    const struct engine_weight *k_gain);
  void (*attention)(struct engine_state *s, struct engine_buffer *act,
    uint32_t layer, const struct engine_buffer *qkv,
    const struct engine_weight *sinks);
  void (*glu)(struct engine_state *s, struct engine_buffer *act,
    const struct engine_buffer *gu);
  void (*moe)(struct engine_state *s, struct engine_buffer *y,
    const struct engine_buffer *act, const struct engine_experts *e);
  void (*gather_norm)(struct engine_state *s, struct engine_buffer *act,
    const struct engine_buffer *x, const struct engine_buffer *add,
    const struct engine_weight *gain);
  void (*logits)(struct engine_state *s, struct engine_buffer *y,
    const struct engine_buffer *act, const struct engine_weight *w);
};
struct engine_arch;
struct engine_rope { double base, scale; const float *divisor;
  float low, high, stretch; };
struct engine_shape {
  const struct engine_arch *arch;
  uint32_t parts, layers, width, heads, kv_heads, head_dim, ff, vocab, rot,
    context, experts, used, window;
  const unsigned char *windowed;
  float eps, score_scale, score_cap, logit_cap, embed_scale, residual_scale,
    logit_scale, expert_scale;
  struct engine_rope rope, rope_local;
};
struct engine_limits { uint32_t rows, outs, blocks, threads, kv; };
struct engine_weight_from {
  uint32_t type, cols, rows;
  int (*read)(void *ctx, uint64_t from, void *to, size_t size, drover_err *err);
  void *ctx;
};
extern const struct engine_backend engine_cpu_plain, engine_cpu_packed;
const struct engine_arch *engine_arch_find(const char *name);
uint64_t engine_step_bytes(const struct engine_backend *backend,
  const struct engine_shape *shape, const struct engine_limits *limits);
struct engine_form;
struct engine_tiles {
  uint32_t type, cols, rows;
  const struct engine_form *form;
  size_t stride;
  unsigned char *bytes;
  void *block;
};
struct engine_act { float scale, sum, part[2], whole, half[2], unused; };
struct engine_product {
  const struct engine_tiles *w;
  const int8_t *q; const struct engine_act *act; size_t q_ld;
  const float *x; size_t x_ld;
  uint32_t rows, first, end;
  float *to; size_t to_ld;
  const float *bias;
};
struct engine_isa {
  const char *name;
  void (*tiles)(const struct engine_product *p, uint32_t first, uint32_t end);
  void (*floats)(const struct engine_product *p, uint32_t first, uint32_t end);
  void (*quantise)(const float *x, uint32_t n, int8_t *q, struct engine_act *act);
  void (*widen)(const uint16_t *from, size_t n, float *to);
  void (*narrow)(const float *from, size_t n, uint16_t *to);
  void (*attend)(const struct engine_isa *isa, const void *a);
  void (*glu)(int kind, const float *gate, const float *up, uint32_t n, float *to);
};
const struct engine_isa *engine_isa_find(const char *name);
int engine_tiles_new(struct engine_tiles **out,
  const struct engine_weight_from *from, drover_err *err);
void engine_tiles_free(struct engine_tiles *t);
void engine_tiles_row(const struct engine_tiles *t, uint32_t r, float *to);
void engine_quant_row(uint32_t type, const void *from, size_t count, float *to);
float engine_half_float(uint16_t half);
uint16_t engine_float_half(float value);
]]
