-- The scratch of a forward pass: what it says it takes is what it takes.
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

local C = c.lib

c.cdef[[ long mem_live_bytes(void); ]]


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
    for kv = C.DROVER_KV_F16, C.DROVER_KV_Q8_0 do
      for _, batch in ipairs{ 1, 16, 200 } do
        local said, live = bytes{ kv = kv, batch = batch }
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
end)
