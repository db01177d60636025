-- The scratch of a forward pass: what it says it takes is what it takes.
local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib
require "spec.support.backend"

local function bytes(shape, limits, backend)
  shape.arch = C.engine_arch_find("llama")
  return tonumber(C.engine_step_bytes(backend or C.engine_cpu_plain,
    ffi.new("struct engine_shape", shape), ffi.new("struct engine_limits", limits)))
end


describe("a step's bytes", function()
  local shape = { layers = 1, width = 8, heads = 1, kv_heads = 1, head_dim = 8,
                  ff = 16, vocab = 32, rot = 8, context = 4 }

  it("are every float of the cache, the tables and the buffers", function()
    local pools, angles, scores, weight_row = 2 * 16 * 8, 2 * 4 * 4, 4, 16
    local spare = 2                 -- of what a mixture needs
    local x, act, y, qkv, gu, logits = 2 * 8, 2 * 16, 2 * 8, 2 * 24, 2 * 32, 32
    assert.equal(4 * (pools + angles + scores + weight_row + spare
                      + x + act + y + qkv + gu + logits),
                 bytes(shape, { rows = 2, outs = 1, blocks = 1 }))
  end)

  it("grow by a block for each block", function()
    local limits = { rows = 2, outs = 1, blocks = 1 }
    local one = bytes(shape, limits)
    limits.blocks = 5
    assert.equal(one + 4 * 4 * 2 * 16 * 8, bytes(shape, limits))
  end)

  it("are fewer with a cache of halves, and more with more threads", function()
    local limits = { rows = 2, outs = 1, blocks = 3, threads = 1 }
    local one = bytes(shape, limits, C.engine_cpu_packed)
    limits.kv = 1
    assert.equal(one - 2 * 3 * 2 * 16 * 8, bytes(shape, limits, C.engine_cpu_packed))
    limits.kv, limits.threads = 0, 3
    assert.equal(one + 2 * 4 * (32 * 8 + 2), bytes(shape, limits, C.engine_cpu_packed))
  end)
end)
