-- engine: many requests, one batch; each ends once and says what it would
-- say alone. Step by step, without the thread.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local gguf = require "spec.support.gguf"

c.cdef[[ long mem_live(void); double drover_clock(void); ]]

local C = c.lib
local STOP, LENGTH = C.DROVER_FINISH_STOP, C.DROVER_FINISH_LENGTH
local paths = {}


local function open(config, kind)
  kind = kind or "bpe"
  if not paths[kind] then
    paths[kind] = gguf.write(gguf.build(gguf.llama(kind)))
  end
  return assert(engine.open(paths[kind], config))
end


teardown(function()
  for _, path in pairs(paths) do
    os.remove(path)
  end
end)


-- Eight requests of different lengths, some drawn and some greedy.
local function eight()
  local out = {}
  for i = 1, 8 do
    out[i] = { call = i, prompt = ("abc de"):rep(i):sub(1, 3 * i),
               max_tokens = 3 + 5 * (i % 4), seed = i * 77,
               temperature = i % 2 == 0 and 1.5 or 0,
               top_k = i % 4 == 0 and 20 or 0, top_p = i > 5 and 0.9 or 1 }
  end
  return out
end


local function same_reply(a, b)
  assert.equal(a.text, b.text)
  assert.same({ a.finish, a.prompt_tokens, a.completion_tokens },
              { b.finish, b.prompt_tokens, b.completion_tokens })
end


describe("an engine's batch", function()
  after_each(engine.close_all)

  it("gives each of eight exactly what it gives alone", function()
    local e, alone = open(), {}
    for i, fields in ipairs(eight()) do
      alone[i] = e:ask(fields)
      assert.is_true(alone[i].completion_tokens > 0)
    end
    for _, fields in ipairs(eight()) do
      assert(e:queue(fields))
    end
    e:drain()
    for i = 1, 8 do
      same_reply(alone[i], e.replies[i])
    end
  end)

  it("gives the same to who joins while others run", function()
    local e, alone = open(), {}
    for i, fields in ipairs(eight()) do
      alone[i] = e:ask(fields)
    end
    for _, fields in ipairs(eight()) do
      assert(e:queue(fields))
      e:turn()
      e:turn()
    end
    assert.is_true(e:busy().running > 1)
    e:drain()
    for i = 1, 8 do
      same_reply(alone[i], e.replies[i])
    end
  end)

  it("computes the same bits however a sequence is cut into steps", function()
    local ids = {}
    for i = 1, 60 do
      ids[i] = (i * 37) % 250
    end
    local want = open{ batch = 64 }:logits(ids)
    for _, batch in ipairs{ 1, 3, 16 } do
      local got = open{ batch = batch }:logits(ids)
      for i = 0, 60 * 262 - 1 do
        if got[i] ~= want[i] then
          error(("batch %d: logit %d differs"):format(batch, i))
        end
      end
    end
  end)

  it("steps them together: as many steps as the longest needs", function()
    local e = open()
    for i = 1, 16 do
      assert(e:queue{ call = i, prompt = "a", max_tokens = i, stop = { "\0\0\0" } })
    end
    local turns = e:drain()
    assert.is_true(turns <= 16)
    assert.equal(turns, tonumber(e:busy().steps))
  end)

  it("counts what it does", function()
    local e = open()
    for i = 1, 3 do
      assert(e:queue{ call = i, prompt = "abc", max_tokens = 8 })
    end
    local load = e:busy()
    assert.same({ 0, 3, 0 }, { load.running, load.waiting, load.kv_tokens_used })
    e:turn()
    load = e:busy()
    assert.same({ 3, 0, 48 }, { load.running, load.waiting, load.kv_tokens_used })
    e:drain()
    load = e:busy()
    assert.same({ 0, 0, 0 }, { load.running, load.waiting, load.kv_tokens_used })
    local made = 0
    for i = 1, 3 do
      made = made + e.replies[i].completion_tokens
    end
    assert.equal(made, tonumber(load.tokens))
  end)
end)


describe("a full engine", function()
  after_each(engine.close_all)

  it("lets requests wait for the cache, and fails none", function()
    local cap = tonumber(open().info.memory_bytes) - 60 * 1024   -- 60 of 64 blocks
    local e = open{ memory_cap_bytes = cap }
    assert.equal(64, e:busy().kv_tokens)
    local want = e:ask{ prompt = "abc", max_tokens = 50, call = 99 }
    for i = 1, 40 do
      assert(e:queue{ call = i, prompt = "abc", max_tokens = 50 })
    end
    local most = 0
    while e:turn() > 0 do
      most = math.max(most, e:busy().running)
      assert.is_true(e:busy().kv_tokens_used <= e:busy().kv_tokens)
    end
    assert.is_true(most < 4)        -- each needs all four blocks in the end
    for i = 1, 40 do
      same_reply(want, e.replies[i])
    end
  end)

  it("refuses what its queue does not hold, at once", function()
    local e = open{ batch = 2, queue = 3 }
    for i = 1, 5 do
      assert(e:queue{ call = i, prompt = "a", max_tokens = 2 })
    end
    local id, text, code = e:queue{ call = 6, prompt = "a" }
    assert.is_nil(id)
    assert.equal(C.DROVER_EOVERLOADED, code)
    assert.is_truthy(text:find("5 requests"))
    e:drain()
    assert.is_truthy(e:queue{ call = 7, prompt = "a", max_tokens = 1 })
    e:drain()
    assert.is_nil(e.replies[6])
  end)

  it("has room again for what was cancelled", function()
    local e, ids = open{ batch = 1, queue = 1 }, {}
    for i = 1, 2 do
      ids[i] = assert(e:queue{ call = i, prompt = "a" })
    end
    assert.is_nil((e:queue{ call = 3, prompt = "a" }))
    C.engine_cancel(e.at, ids[2])
    assert.is_truthy(e:queue{ call = 3, prompt = "a", max_tokens = 1 })
    C.engine_cancel(e.at, ids[1])
    e:drain()
    assert.is_nil(e.replies[1] or e.replies[2])
    assert.is_true(e.replies[3].ended)
  end)
end)


describe("a request", function()
  after_each(engine.close_all)

  local function refused(fields, code, pattern, config, kind)
    local e = open(config, kind)
    local id, text, got = e:queue(fields)
    assert.is_nil(id)
    assert.equal(code, got)
    assert.is_truthy(text:find(pattern), text)
    assert.equal(0, e:turn())
    assert.is_nil(next(e.replies))
  end

  it("names the field that is wrong", function()
    local bad = {
      { { temperature = -1 }, "temperature: %-1" },
      { { temperature = 0 / 0 }, "temperature: %-?nan" },
      { { temperature = math.huge }, "temperature: inf" },
      { { top_p = 0 }, "top_p: 0," }, { { top_p = 1.5 }, "top_p: 1.5" },
      { { top_p = -1 }, "top_p" }, { { top_p = 0 / 0 }, "top_p" },
      { { stop = { "" } }, "stop%[0%]" },
      { { stop = { "a", ("x"):rep(257) } }, "stop%[1%]: 257" },
      { { first_token = -1 }, "first_token: %-1" },
      { { total = 0 / 0 }, "total" }, { { total = math.huge }, "total: inf" },
    }
    for _, row in ipairs(bad) do
      row[1].prompt = "a"
      refused(row[1], C.DROVER_EINVAL, row[2])
    end
    refused({ messages = { { role = "king", content = "x" } } }, C.DROVER_EINVAL,
            "messages%[0%].role")
  end)

  it("must fit the context, to the token", function()
    refused({ prompt = ("x"):rep(64) }, C.DROVER_ECONTEXT, "64 tokens")
    refused({ prompt = ("x"):rep(63), max_tokens = 2 }, C.DROVER_ECONTEXT,
            "maximum context length is 64")
    refused({ prompt = "x", max_tokens = 0xffffffff }, C.DROVER_ECONTEXT, "4294967295")
    refused({ prompt = ("x"):rep(1e6) }, C.DROVER_ECONTEXT, "at least")
    local r = open():ask{ prompt = ("x"):rep(63) }
    assert.same({ 63, 1 }, { r.prompt_tokens, r.completion_tokens })
    r = open():ask{ prompt = ("x"):rep(60), max_tokens = 4, stop = { "\0\0" } }
    assert.equal(60, r.prompt_tokens)
  end)

  it("must have something to go on from", function()
    refused({ prompt = "" }, C.DROVER_EBADREQUEST, "prompt is empty")
    local r = open(nil, "spm"):ask{ prompt = "", max_tokens = 2 }
    assert.equal(1, r.prompt_tokens)       -- the bos
  end)

  it("with messages wants a template", function()
    refused({ messages = { { role = "user", content = "a" } } },
            C.DROVER_EBADREQUEST, "no chat template", nil, "spm")
  end)

  it("with messages is tokenised as the template says", function()
    local e = open()
    local r = e:ask{ messages = { { role = "user", content = "<|im_end|>" } },
                     max_tokens = 1 }
    local framed = e:encode("<|im_start|>user\n", true)
    local want = #framed + #e:encode("<|im_end|>")
      + #e:encode("<|im_end|>\n<|im_start|>assistant\n", true)
    assert.equal(want, r.prompt_tokens)
  end)

  it("ends by length, or before a stop string", function()
    local e = open()
    local r = e:ask{ prompt = "abc", max_tokens = 20 }
    assert.equal(LENGTH, r.finish)
    assert.equal(20, r.completion_tokens)
    assert.is_true(#r.text > 8)
    local word = r.text:gsub("\239\191\189", "\1"):match("[\32-\126][\32-\126]")
    if word then
      local cut = e:ask{ prompt = "abc", max_tokens = 20, stop = { "\0\1", word } }
      assert.equal(STOP, cut.finish)
      assert.equal(r.text:sub(1, r.text:find(word, 1, true) - 1), cut.text)
      assert.is_true(cut.completion_tokens <= 20)
    end
  end)

  it("fills the context when max_tokens is 0", function()
    local r = open():ask{ prompt = "abcabc" }
    if r.finish == LENGTH then
      assert.equal(64, r.prompt_tokens + r.completion_tokens)
    end
  end)

  it("is copied whole: the caller's memory may go", function()
    local e = open()
    local want = e:ask{ messages = { { role = "user", content = "ab" } },
                        max_tokens = 6, stop = { "zzz" } }
    local g = engine.request{ messages = { { role = "user", content = "ab" } },
                              max_tokens = 6, stop = { "zzz" } }
    local id, err = ffi.new("uint64_t[1]"), ffi.new("drover_err")
    assert.equal(0, C.engine_queue(e.at, g, e.emit, nil, id, err))
    ffi.fill(ffi.cast("void *", g.messages), ffi.sizeof("drover_message"), 0xff)
    ffi.fill(ffi.cast("void *", g.stop), ffi.sizeof("drover_text"), 0xff)
    ffi.fill(g, ffi.sizeof(g), 0xff)
    e:drain()
    same_reply(want, e.replies[1])
  end)

  it("emits whole UTF-8 only", function()
    local e = open()
    for seed = 1, 20 do
      local r = e:ask{ prompt = "a", max_tokens = 30, temperature = 3, seed = seed }
      for _, piece in ipairs(r.pieces) do
        local left = piece:gsub("[%z\1-\127]", ""):gsub("[\194-\223][\128-\191]", "")
          :gsub("[\224-\239][\128-\191][\128-\191]", "")
          :gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "")
        assert.equal("", left)
      end
    end
  end)
end)


describe("a deadline", function()
  after_each(engine.close_all)

  local function now_ns(more)
    return math.floor((C.drover_clock() + more) * 1e9)
  end

  it("for the first token fails while there is none", function()
    local e = open()
    assert(e:queue{ prompt = "a", first_token = 5 })
    e:turn(now_ns(6))
    assert.same({ C.DROVER_ETIMEOUT, C.DROVER_PHASE_FIRST_TOKEN },
                { e.replies[1].code, e.replies[1].phase })
    assert.equal(0, e:turn(now_ns(7)))
    assert.equal(0, e:busy().kv_tokens_used)
  end)

  it("for the first token is met by it", function()
    local e = open()
    assert(e:queue{ prompt = "a", first_token = 5, max_tokens = 3 })
    e:turn(now_ns(1))
    e:turn(now_ns(6))
    e:turn(now_ns(7))
    assert.is_nil(e.replies[1].code)
    assert.is_truthy(e.replies[1].finish)
  end)

  it("for the whole fails in mid-stream, with what came before", function()
    local e = open()
    assert(e:queue{ prompt = "abc", total = 5, max_tokens = 40 })
    for _ = 1, 5 do
      e:turn(now_ns(1))
    end
    local before = e.replies[1].text
    e:turn(now_ns(6))
    local r = e.replies[1]
    assert.same({ C.DROVER_ETIMEOUT, C.DROVER_PHASE_STREAM }, { r.code, r.phase })
    assert.equal(before, r.text)
    assert.equal(0, e:busy().running)
  end)

  it("ends one of a batch, and leaves the others as they were", function()
    local e = open()
    local want = e:ask{ call = 2, prompt = "abc", max_tokens = 20 }
    assert(e:queue{ call = 1, prompt = "abc", total = 5, max_tokens = 40 })
    assert(e:queue{ call = 2, prompt = "abc", max_tokens = 20 })
    e:turn(now_ns(1))
    e:turn(now_ns(6))
    e:drain()
    assert.equal(C.DROVER_ETIMEOUT, e.replies[1].code)
    same_reply(want, e.replies[2])
  end)
end)


describe("engine_cancel()", function()
  after_each(engine.close_all)

  it("ends a request without an event, waiting or running", function()
    local e = open()
    local id = assert(e:queue{ prompt = "abc" })
    C.engine_cancel(e.at, id)
    C.engine_cancel(e.at, id)
    C.engine_cancel(e.at, 12345)
    assert.equal(0, e:turn())
    assert.is_nil(e.replies[1])
    id = assert(e:queue{ prompt = "abc", max_tokens = 30 })
    e:turn()
    e:turn()
    assert.is_true(e:busy().kv_tokens_used > 0)
    C.engine_cancel(e.at, id)
    assert.equal(0, e:turn())
    assert.is_falsy(e.replies[1] and e.replies[1].ended)
    assert.equal(0, e:busy().kv_tokens_used)
  end)

  it("may be called from inside an event", function()
    local e = open()
    local id = assert(e:queue{ prompt = "abc", max_tokens = 50 })
    local events = 0
    e.on_event = function()
      events = events + 1
      C.engine_cancel(e.at, id)
    end
    e:drain()
    assert.equal(1, events)
    assert.equal(0, e:busy().kv_tokens_used)
  end)

  it("changes nothing for the others", function()
    local e = open()
    local want = e:ask{ call = 2, prompt = "abcab", max_tokens = 20 }
    local id = assert(e:queue{ call = 1, prompt = "abc", max_tokens = 30 })
    assert(e:queue{ call = 2, prompt = "abcab", max_tokens = 20 })
    e:turn()
    C.engine_cancel(e.at, id)
    e:drain()
    same_reply(want, e.replies[2])
  end)
end)


describe("engine_close()", function()
  it("ends what still runs as closed, once, and frees all", function()
    collectgarbage()
    local before = C.mem_live()
    local e = open()
    assert(e:queue{ call = 1, prompt = "abc", max_tokens = 30 })
    assert(e:queue{ call = 2, prompt = "abc" })
    local id = assert(e:queue{ call = 3, prompt = "abc" })
    e:turn()
    C.engine_cancel(e.at, id)
    e:close()
    assert.equal(C.DROVER_ECLOSED, e.replies[1].code)
    assert.equal(C.DROVER_ECLOSED, e.replies[2].code)
    assert.is_falsy(e.replies[3] and e.replies[3].ended)
    assert.equal(before, C.mem_live())
    C.engine_close(nil)
  end)
end)
