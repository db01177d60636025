-- The scratch of a forward pass: what it says it takes is what it takes.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

local C = c.lib
require "spec.support.backend"

c.cdef[[ long mem_live_bytes(void); ]]


local function packed_bytes(limits)
  local shape = { layers = 1, width = 8, heads = 1, kv_heads = 1, head_dim = 8,
                  ff = 16, vocab = 32, rot = 8, context = 4,
                  arch = C.engine_arch_find("llama") }
  return tonumber(C.engine_step_bytes(C.engine_cpu_packed,
    ffi.new("struct engine_shape", shape), ffi.new("struct engine_limits", limits)))
end


describe("an engine's memory", function()
  local path, remove

  setup(function()
    path, remove = gguf.write(gguf.build(gguf.llama()))
  end)

  teardown(function()
    remove()
  end)

  local function bytes(config)
    collectgarbage()
    local before = tonumber(C.mem_live_bytes())
    local e = assert(engine.open(path, config))
    local live, said = tonumber(C.mem_live_bytes()) - before, tonumber(e.info.memory_bytes)
    engine.close_all()
    return said, live
  end

  -- What is not counted: the vocabulary, the plan, the pool's books.
  it("is what it says, but for its books", function()
    for kv = C.DROVER_KV_F16, 2 * C.DROVER_KV_Q8_0 + 1 do
      for _, batch in ipairs{ 1, 16, 200 } do
        local device = kv > C.DROVER_KV_Q8_0 and "cpu_plain" or "cpu"
        local said, live = bytes{ kv = kv % 3, batch = batch, device = device }
        assert.is_true(live > said)
        assert.is_true(live - said < 150000 + 2000 * batch, live - said)
      end
    end
  end)

  it("grows by a block's keys and values for each block", function()
    local one = bytes{ batch = 1, kv = C.DROVER_KV_F32 }
    local two = bytes{ batch = 2, kv = C.DROVER_KV_F32 }
    local logits = 4 * 262            -- one row more may be wanted
    assert.equal(4 * 2 * 2 * 2 * 4 * 16 * 4 + logits, two - one)
  end)

  it("is less with a cache of halves, and more with more threads", function()
    local limits = { rows = 2, outs = 1, blocks = 3, threads = 1,
                     kv = C.DROVER_KV_F32 }
    local one = packed_bytes(limits)
    limits.kv = C.DROVER_KV_F16
    assert.equal(one - 2 * 3 * 2 * 16 * 8, packed_bytes(limits))
    limits.kv, limits.threads = C.DROVER_KV_F32, 3
    assert.equal(one + 2 * 4 * (32 * 8 + 2), packed_bytes(limits))
  end)
end)
