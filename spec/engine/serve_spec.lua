-- The engine as it serves many: a full cache delays and fails nobody, what is
-- shared, preempted or guessed changes no word, and all of it is counted.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local letters = require "spec.support.letters"

c.cdef[[
long engine_prefix(struct engine *e, const drover_generate *g, uint32_t *tokens,
  drover_err *err);
double drover_clock(void);
]]

local C = c.lib
local fast = ffi.load("build/libdrover_dev.so")
local open, words = letters.open, letters.words

setup(letters.setup)
teardown(letters.teardown)


local function same_reply(want, got, what)
  assert.same(want.texts, got.texts, what)
  if not want.choices then          -- those of several come as they step
    assert.equal(want.logprobs, got.logprobs, what)
  end
  assert.same({ want.ends, want.prompt_tokens, want.completion_tokens },
              { got.ends, got.prompt_tokens, got.completion_tokens }, what)
end


local function copy(t, more)
  local out = {}
  for k, v in pairs(t) do
    out[k] = v
  end
  for k, v in pairs(more or {}) do
    out[k] = v
  end
  return out
end


-- Requests with beginnings in common, of all lengths, drawn and greedy; some
-- with penalties, log-probabilities or two choices.
local function many(count)
  local random, out = letters.random(5), {}
  for i = 1, count do
    local lead = words(16 * random(6) + random(9), random(4))
    out[i] = { call = i, prompt = lead .. words(random(60) + 1, i),
               max_tokens = random(50) + 1, seed = i, salt = random(3),
               temperature = random(3) == 0 and 1 or 0,
               priority = random(3), frequency = i % 3 == 0 and 0.5 or 0,
               logprobs = i % 4 == 0 and 1 or 0, n = i % 10 == 0 and 2 or 1 }
  end
  return out
end


-- What each of them gets alone, sharing nothing with others; from the optimised library,
-- whose bits are the same.
local function alone(requests)
  local e, out = open({ batch = 1, draft = C.DROVER_DRAFT_NEVER }, nil, fast), {}
  for i, r in ipairs(requests) do
    local hits = e:busy().prefix_tokens
    out[i] = e:ask(copy(r, { salt = 1000 + i }))
    assert.is_true(r.n == 2 or e:busy().prefix_tokens == hits)
  end
  e:close()
  return out
end


-- Keep as many of them in the engine as would fill its pool twice.
local function overload(e, requests)
  local capacity, asked, at, turns = e:busy().kv_tokens, 0, 1, 0
  local need = {}
  for i, r in ipairs(requests) do
    need[i] = r.n * (#r.prompt + r.max_tokens)
  end
  e.on_event = function(ev)
    if ev.type == C.DROVER_EVENT_END then
      asked = asked - need[ev.call]
    end
  end
  repeat
    while at <= #requests and asked < 2 * capacity do
      assert(e:queue(requests[at]))
      asked, at = asked + need[at], at + 1
    end
    local load = e:busy()
    assert.is_true(load.kv_tokens_used <= load.kv_tokens)
    turns = turns + 1
    assert.is_true(turns < 100000)
  until e:turn() == 0
  assert.equal(#requests + 1, at)
end


local function check_overload(lib, count, config)
  local requests = many(count)
  local want = alone(requests)
  local e = open(config, 24, lib)
  overload(e, requests)
  for i = 1, count do
    assert.is_nil(e.replies[i].why)
    same_reply(want[i], e.replies[i], "request " .. i)
  end
  local load = e:busy()
  assert.same({ 0, 0, 0 }, { load.running, load.waiting, load.kv_tokens_used })
  assert.is_true(load.preemptions > count / 50, "too few preemptions")
  assert.is_true(load.prefix_tokens > load.prompt_tokens / 20, "too few hits")
  return load
end


describe("twice as much as the cache holds", function()
  after_each(engine.close_all)

  it("delays a thousand requests, fails none and changes no word", function()
    check_overload(fast, 1000, { batch = 16, queue = 1000 })
  end)

  it("does so while guesses are made, under the sanitizers too", function()
    local load = check_overload(C, 120, { batch = 16, queue = 200,
                                          draft = C.DROVER_DRAFT_ALWAYS })
    assert.is_true(load.accepted > 50)
  end)

  for name, kv in pairs{ f32 = C.DROVER_KV_F32, q8_0 = C.DROVER_KV_Q8_0 } do
    it("does so with a cache of " .. name, function()
      local requests = many(60)
      local e = open({ batch = 1, kv = kv }, nil, fast)
      local want = {}
      for i, r in ipairs(requests) do
        want[i] = e:ask(copy(r, { salt = 1000 + i }))
      end
      e = open({ kv = kv, queue = 100 }, 24, fast)
      overload(e, requests)
      for i = 1, 60 do
        same_reply(want[i], e.replies[i], i)
      end
    end)
  end
end)


describe("a preempted request", function()
  after_each(engine.close_all)

  it("is the one that came last, and says what it would have said", function()
    local requests = {}
    for i = 1, 4 do
      requests[i] = { call = i, prompt = words(14, i), max_tokens = 90, salt = i }
    end
    local want = alone(requests)
    local e = open({ draft = C.DROVER_DRAFT_NEVER }, 16)
    -- Short ones first: each step that goes well lowers what is kept free.
    for i = 1, 700 do
      assert(e:queue{ call = 9, prompt = "x", max_tokens = 1, salt = i })
      e:turn()
      e.replies[9] = nil
    end
    local ends = {}
    e.on_event = function(ev)
      if ev.type == C.DROVER_EVENT_END then
        ends[#ends + 1] = ev.call
      end
    end
    for i = 1, 4 do
      assert(e:queue(requests[i]))
    end
    e:turn()
    assert.equal(4, e:busy().running)
    e:drain()
    assert.is_true(e:busy().preemptions > 0)
    assert.equal(4, ends[4])
    for i = 1, 4 do
      same_reply(want[i], e.replies[i], i)
    end
  end)
end)


describe("a prompt that was read before", function()
  after_each(engine.close_all)

  -- The rows of all steps until nothing is left.
  local function rows(e)
    local sum = 0
    while true do
      local n = e:turn()
      if n == 0 then
        return sum
      end
      sum = sum + n
    end
  end

  it("is not read again, and nothing changes", function()
    for _, tokens in ipairs{ 15, 16, 17, 47, 48, 49, 100 } do
      local e = open()
      local r = { prompt = words(tokens, 3), max_tokens = 5, call = 1 }
      assert(e:queue(r))
      local first = rows(e)
      local want = e.replies[1]
      e.replies[1] = nil
      assert(e:queue(r))
      local second = rows(e)
      same_reply(want, e.replies[1], tokens)
      assert.equal(tokens + want.completion_tokens - 1, first)
      local left = tokens % 16 == 0 and 1 or tokens % 16
      assert.equal(left + want.completion_tokens - 1, second)
      assert.same({ 2 * tokens, tokens - left },
                  { e:busy().prompt_tokens, e:busy().prefix_tokens })
    end
  end)

  it("is read once by many that come at the same time", function()
    local lead, e = words(64, 3), open()
    local requests = {}
    for i = 1, 8 do
      requests[i] = { call = i, prompt = lead .. words(3, i), max_tokens = 1 }
    end
    local want = alone(requests)
    for _, r in ipairs(requests) do
      assert(e:queue(r))
    end
    assert.equal(64 + 8 * 3, rows(e))
    for i = 1, 8 do
      same_reply(want[i], e.replies[i], i)
    end
  end)

  it("is the turn before, with its reply, however that was guessed", function()
    for seed = 1, 6 do
      local e = open{ draft = C.DROVER_DRAFT_ALWAYS }
      local told, hits = words(20, seed), 0
      for turn = 1, 4 do
        local r = { call = 1, prompt = told, max_tokens = 37, salt = 1 }
        local got = e:ask(r)
        same_reply(alone({ r })[1], got, turn)
        assert.is_truthy(got.text:find("^[C-z]+$"), got.text)
        if turn > 1 then
          assert.is_true(e:busy().prefix_tokens - hits >= #told - 37)
        end
        hits = e:busy().prefix_tokens
        told = told .. got.text .. words(5, turn)
      end
      assert.is_true(e:busy().drafted > e:busy().accepted)
    end
  end)

  it("is another's under another salt", function()
    local e = open()
    local r = { prompt = words(100, 3), max_tokens = 1, salt = 7 }
    e:ask(r)
    e:ask(copy(r, { salt = 8 }))
    assert.equal(0, e:busy().prefix_tokens)
    e:ask(r)
    assert.equal(96, e:busy().prefix_tokens)
  end)

  it("can be asked for beforehand", function()
    local e, tokens, err = open(), ffi.new("uint32_t[1]"), ffi.new("drover_err")
    local function prefix(fields)
      local n = C.engine_prefix(e.at, engine.request(fields), tokens, err)
      return { tonumber(n), tokens[0] }
    end
    local r = { prompt = words(100, 3), max_tokens = 1, salt = 7 }
    assert.same({ 0, 100 }, prefix(r))
    e:ask(r)
    assert.same({ 96, 100 }, prefix(r))
    assert.same({ 96, 103 }, prefix(copy(r, { prompt = r.prompt .. "xyz" })))
    assert.same({ 32, 43 }, prefix(copy(r, { prompt = r.prompt:sub(1, 40) .. "xyz" })))
    assert.same({ 0, 100 }, prefix(copy(r, { salt = 8 })))
    assert.equal(C.DROVER_ECONTEXT,
                 C.engine_prefix(e.at, engine.request{ prompt = words(300, 1) }, tokens, err))
    assert.equal(0, e:turn())
  end)
end)


describe("guessed tokens", function()
  after_each(engine.close_all)

  it("change no word, greedy or drawn, and save steps", function()
    local steps = {}
    for draft = C.DROVER_DRAFT_AUTO, C.DROVER_DRAFT_ALWAYS do
      local e = open{ draft = draft }
      for i = 1, 24 do
        e:ask{ call = 1, prompt = words(9, i):rep(3), max_tokens = 100, seed = i,
               temperature = i % 3 == 0 and 0.7 or 0, stop = { "zz" } }
      end
      steps[draft] = e:busy().steps
      local want, got = alone(many(20)), {}
      for i, r in ipairs(many(20)) do
        got[i] = e:ask(r)
        same_reply(want[i], got[i], i)
      end
    end
    assert.is_true(steps[C.DROVER_DRAFT_ALWAYS] < 0.8 * steps[C.DROVER_DRAFT_NEVER])
    assert.is_true(steps[C.DROVER_DRAFT_AUTO] <= steps[C.DROVER_DRAFT_NEVER])
  end)

  it("are counted, and so are those that came true", function()
    local e = open{ draft = C.DROVER_DRAFT_ALWAYS }
    local r = e:ask{ prompt = words(9, 1):rep(3), max_tokens = 200 }
    local load = e:busy()
    assert.equal(r.completion_tokens, load.tokens)
    assert.equal(load.tokens - load.accepted, load.steps)
    assert.is_true(load.drafted >= load.accepted and load.accepted > 0)
    e:close()
    e = open{ draft = C.DROVER_DRAFT_ALWAYS }
    for i = 1, 40 do                  -- of which some end among guesses
      local last = e:busy()
      e:ask{ prompt = words(3, i):rep(9), max_tokens = i % 9 + 2 }
      local now = e:busy()
      assert.is_true(now.drafted - last.drafted >= now.accepted - last.accepted)
    end
    assert.is_true(e:busy().accepted > 0)
    e = open{ draft = C.DROVER_DRAFT_NEVER }
    e:ask{ prompt = words(9, 1):rep(3), max_tokens = 200 }
    assert.same({ 0, 0 }, { e:busy().drafted, e:busy().accepted })
  end)
end)


describe("who is served first", function()
  after_each(engine.close_all)

  it("is the interactive one, then the default one, then the batch", function()
    local e, ends = open{ batch = 1 }, {}
    e.on_event = function(ev)
      if ev.type == C.DROVER_EVENT_END then
        ends[#ends + 1] = ev.call
      end
    end
    for i, priority in ipairs{ C.DROVER_BATCH, C.DROVER_DEFAULT, C.DROVER_INTERACTIVE } do
      assert(e:queue{ call = i, prompt = "cde", max_tokens = 3, priority = priority })
    end
    e:drain()
    assert.same({ 3, 2, 1 }, ends)
  end)

  it("is not the long prompt, but those that are short", function()
    local e = open()
    assert(e:queue{ call = 1, prompt = words(200, 1), max_tokens = 2 })
    assert(e:queue{ call = 2, prompt = words(20, 2), max_tokens = 2 })
    e:turn()
    assert.is_nil(e.replies[1])
    assert.is_truthy(e.replies[2])
    e:drain()
    assert.is_truthy(e.replies[1].finish)
  end)

  it("may be a small one that came later, for two seconds", function()
    local e = open({}, 16)
    local function now(more)
      return math.floor((C.drover_clock() + more) * 1e9)
    end
    assert(e:queue{ call = 1, prompt = words(60, 1), max_tokens = 100 })
    e:turn(now(0))
    assert(e:queue{ call = 2, prompt = words(200, 2), max_tokens = 50 })
    assert(e:queue{ call = 3, prompt = words(20, 3), max_tokens = 1 })
    e:turn(now(0))
    assert.is_truthy(e.replies[3].finish)
    assert(e:queue{ call = 4, prompt = words(20, 4), max_tokens = 1 })
    for _ = 1, 30 do
      e:turn(now(3))
    end
    assert.is_nil(e.replies[4])
    e:drain()
    for i = 1, 4 do
      assert.is_truthy(e.replies[i].finish)
    end
  end)

  it("must be of a priority that there is", function()
    local id, text, code = open():queue{ prompt = "c", priority = 3 }
    assert.is_nil(id)
    assert.same({ C.DROVER_EINVAL, "priority: 3 is unknown" }, { code, text })
  end)
end)


describe("a cancelled request", function()
  after_each(engine.close_all)

  it("gives its blocks back with the next step, and leaves what it read", function()
    local e = open({}, 16)
    local id = assert(e:queue{ call = 1, prompt = words(100, 1), max_tokens = 100 })
    assert(e:queue{ call = 2, prompt = words(20, 2), max_tokens = 30 })
    for _ = 1, 5 do
      e:turn()
    end
    local before = e:busy().kv_tokens_used
    C.engine_cancel(e.at, id)
    e:turn()
    assert.is_true(e:busy().kv_tokens_used <= before - 96)
    e:drain()
    assert.equal(0, e:busy().kv_tokens_used)
    e:ask{ call = 3, prompt = words(100, 1), max_tokens = 1 }
    assert.equal(96, e:busy().prefix_tokens)
  end)

  it("lets a waiting one in", function()
    local e = open({ batch = 1 })
    local id = assert(e:queue{ call = 1, prompt = words(100, 1), max_tokens = 100 })
    assert(e:queue{ call = 2, prompt = "c", max_tokens = 1 })
    e:turn()
    C.engine_cancel(e.at, id)
    e:turn()
    assert.is_truthy(e.replies[2].finish)
  end)
end)


describe("a deadline", function()
  after_each(engine.close_all)

  it("ends what waits for the cache, and what was preempted", function()
    local e = open({}, 16)
    local function now(more)
      return math.floor((C.drover_clock() + more) * 1e9)
    end
    assert(e:queue{ call = 1, prompt = words(200, 1), max_tokens = 50 })
    assert(e:queue{ call = 2, prompt = words(200, 2), max_tokens = 50, first_token = 5 })
    assert(e:queue{ call = 3, prompt = words(200, 3), max_tokens = 50, total = 500 })
    e:turn(now(1))
    e:turn(now(1))
    assert.equal(1, e:busy().running)
    e:turn(now(6))
    assert.equal(C.DROVER_ETIMEOUT, e.replies[2].code)
    e:drain()
    assert.is_truthy(e.replies[1].finish and e.replies[3].finish)
  end)
end)


describe("what an engine tells of itself", function()
  after_each(engine.close_all)

  it("has tokens a second while it runs", function()
    local e = open()
    assert.equal(0, e:busy().tokens_per_second)
    assert(e:queue{ prompt = words(20, 1), max_tokens = 20 })
    for _ = 1, 10 do
      e:turn()
    end
    assert.is_true(e:busy().tokens_per_second > 0)
    e:drain()
    assert.equal(0, e:busy().tokens_per_second)
  end)
end)
