-- The scratch of a forward pass: what it says it takes is what it takes.
local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct engine_shape {
  uint32_t layers, width, heads, kv_heads, head_dim, ff, vocab, rot, context;
  float eps;
  double rope_base, rope_scale;
  const float *rope_divisor;
};
struct engine_limits { uint32_t rows, outs, blocks; };
struct engine_backend;
extern const struct engine_backend engine_cpu_plain;
uint64_t engine_step_bytes(const struct engine_backend *backend,
  const struct engine_shape *shape, const struct engine_limits *limits);
]]


local function bytes(shape, limits)
  return tonumber(C.engine_step_bytes(C.engine_cpu_plain,
    ffi.new("struct engine_shape", shape), ffi.new("struct engine_limits", limits)))
end


describe("a step's bytes", function()
  local shape = { layers = 1, width = 8, heads = 1, kv_heads = 1, head_dim = 8,
                  ff = 16, vocab = 32, rot = 8, context = 4 }

  it("are every float of the cache, the tables and the buffers", function()
    local pools, angles, scores, weight_row = 2 * 16 * 8, 2 * 4 * 4, 4, 16
    local x, act, y, qkv, gu, logits = 2 * 8, 2 * 16, 2 * 8, 2 * 24, 2 * 32, 32
    assert.equal(4 * (pools + angles + scores + weight_row
                      + x + act + y + qkv + gu + logits),
                 bytes(shape, { rows = 2, outs = 1, blocks = 1 }))
  end)

  it("grow by a block for each block", function()
    local limits = { rows = 2, outs = 1, blocks = 1 }
    local one = bytes(shape, limits)
    limits.blocks = 5
    assert.equal(one + 4 * 4 * 2 * 16 * 8, bytes(shape, limits))
  end)
end)
