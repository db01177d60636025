-- A prompt's vector, and what the cache holds: checked through the logits.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local letters = require "spec.support.letters"

local C = c.lib
local fast = ffi.load("build/libdrover_dev.so")
local open, words, CONTEXT = letters.open, letters.words, letters.CONTEXT

setup(letters.setup)
teardown(letters.teardown)


describe("a prompt's vector", function()
  after_each(engine.close_all)

  local MEAN, LAST, CLS = C.DROVER_POOL_MEAN, C.DROVER_POOL_LAST, C.DROVER_POOL_CLS

  -- A state times the embedding's rows are its logits (the output is tied), so
  -- a vector times them is in proportion to the logits' sum.
  local function check(bytes, logits, vocab, first, last)
    assert.equal(64, #bytes)
    local v = ffi.cast("const float *", bytes)
    local rows = ffi.cast("const float *", letters.embedding)
    local dot, norms, length = 0, { 0, 0 }, 0
    for id = 0, vocab - 1 do
      local got, want = 0, 0
      for k = 0, 15 do
        got = got + v[k] * rows[16 * id + k]
      end
      for at = first, last do
        want = want + logits[at * vocab + id]
      end
      dot, norms[1], norms[2] = dot + got * want, norms[1] + got * got, norms[2] + want * want
    end
    for k = 0, 15 do
      length = length + v[k] * v[k]
    end
    assert.is_true(math.abs(length - 1) < 1e-5)
    assert.is_true(dot / math.sqrt(norms[1] * norms[2]) > 1 - 1e-6)
  end

  it("is that of its tokens' states: mean, last or first", function()
    local e = open()
    for _, n in ipairs{ 1, 7, 16, 32, 200, 256 } do
      local prompt = words(n, n)
      local logits = e:logits(e:encode(prompt))
      for pool, span in pairs{ [MEAN] = { 0, n - 1 }, [LAST] = { n - 1, n - 1 },
                               [CLS] = { 0, 0 } } do
        local r = e:ask{ prompt = prompt, pool = pool }
        check(r.vector, logits, e.vocab, span[1], span[2])
        assert.same({ n, 0, "" }, { r.prompt_tokens, r.completion_tokens, r.text })
      end
    end
  end)

  -- Eight that decode need a block each just when it is half read.
  it("is the same bits when it was preempted half-way", function()
    for pool = MEAN, CLS do
      local long = { call = 20, prompt = words(250, 1), pool = pool }
      local want = open({}, nil, fast):ask(long).vector
      local e = open({}, 28, fast)
      for i = 1, 700 do               -- until little is kept free
        e:ask{ prompt = "x", max_tokens = 1, salt = i }
      end
      for i = 1, 8 do
        assert(e:queue{ call = i, prompt = words(15, i), max_tokens = 20,
                        seed = 5, temperature = 1 })
      end
      e:turn()
      assert(e:queue(long))
      e:turn()
      assert.equal(9, e:busy().running)
      e:turn()
      assert.same({ 8, 1 }, { e:busy().running, e:busy().preemptions })
      e:drain()
      assert.equal(want, e.replies[20].vector)
    end
  end)

  it("is the same bits in any company, in pieces", function()
    local e = open({ batch = 1 }, nil, fast)
    local want, requests = {}, {}
    for i = 1, 100 do
      requests[i] = { call = i, prompt = words(129 + i % 120, i), pool = i % 3 + 1,
                      salt = i }
      want[i] = e:ask(requests[i]).vector
    end
    e = open({ queue = 400 }, 28, fast)
    for i = 1, 100 do
      for k = 1, 3 do
        assert(e:queue{ call = 100 * k + i, prompt = words(5 * k, i), max_tokens = 20,
                        seed = i, salt = 1000 + i })
      end
      e:turn()
      assert(e:queue(requests[i]))
      e:turn()
    end
    e:drain()
    for i = 1, 100 do
      assert.equal(want[i], e.replies[i].vector)
    end
  end)

  it("is of a prompt that the context holds, and a pooling that there is", function()
    local id, text, code = open():queue{ prompt = words(257, 1), pool = MEAN }
    assert.is_nil(id)
    assert.equal(C.DROVER_ECONTEXT, code)
    assert.is_truthy(text:find("256 tokens, the prompt has 257"))
    id, text, code = open():queue{ prompt = "c", pool = 4 }
    assert.is_nil(id)
    assert.same({ C.DROVER_EINVAL, "pool: 4 is unknown" }, { code, text })
    for _, more in ipairs{ { n = 2 }, { logprobs = 1 }, { echo = 1 },
                           { format = C.DROVER_FORMAT_JSON } } do
      more.prompt, more.pool = "c", MEAN
      id, text, code = open():queue(more)
      assert.is_nil(id)
      assert.same({ C.DROVER_EINVAL, "pool: not with n, echo, logprobs or a "
                    .. "response_format" }, { code, text })
    end
  end)
end)


describe("a cache's type", function()
  after_each(engine.close_all)

  it("decides its bytes: halves unless it is said", function()
    local bytes = {}
    for kv = C.DROVER_KV_F16, C.DROVER_KV_Q8_0 do
      local e = open{ kv = kv, device = "cpu_plain" }
      bytes[kv] = tonumber(e.info.memory_bytes)
      e:close()
    end
    local values = 2 * 2 * 2 * 4 * 16 * CONTEXT    -- k and v, layers, heads, dim, batch
    assert.equal(2 * values, bytes[C.DROVER_KV_F32] - bytes[C.DROVER_KV_F16])
    assert.equal(values / 2, bytes[C.DROVER_KV_F16] - bytes[C.DROVER_KV_Q8_0])
    local e, text, code = open{ kv = 3 }
    assert.is_nil(e)
    assert.same({ C.DROVER_EINVAL, "kv: 3 is unknown" }, { code, text })
  end)

  -- The packed backend has no cache of bytes.
  it("decides what computes: with bytes the plain backend does", function()
    local ids = { 99, 100, 104, 99, 120 }
    local same = {}
    for kv = C.DROVER_KV_F16, C.DROVER_KV_Q8_0 do
      local want = open{ kv = kv, device = "cpu_plain" }:logits(ids)
      local got = open{ kv = kv }:logits(ids)
      same[kv] = true
      for i = 0, 5 * 262 - 1 do
        same[kv] = same[kv] and got[i] == want[i]
      end
    end
    assert.same({ [0] = false, false, true }, same)
  end)

  it("changes no bit between one step and many", function()
    local ids = {}
    for i = 1, 60 do
      ids[i] = (i * 37) % 250
    end
    for kv = C.DROVER_KV_F16, C.DROVER_KV_Q8_0 do
      local want = open{ kv = kv, batch = 64 }:logits(ids)
      local got = open{ kv = kv, batch = 3 }:logits(ids)
      for i = 0, 60 * 262 - 1 do
        if got[i] ~= want[i] then
          error(("kv %d: logit %d differs"):format(kv, i))
        end
      end
      engine.close_all()
    end
  end)
end)
