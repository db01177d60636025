-- The engine against other implementations, by the vectors of oracles/: its
-- tokens are equal, its numbers are those of a float64 pass (float32
-- activations on dequantised weights; the tolerances are the oracles'). The
-- packed backend meets the same in F32 and F16, and in Q8_0, where it rounds
-- activations to int8, what the oracles ask of those that do.
-- Computed by the optimised library, a part of it by the sanitized one too.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local oracle = require "spec.support.oracle"

local fast = ffi.load("build/libdrover_dev.so")
local HALVES = 0.03                 -- what a cache of halves may cost


local function open(model, kind, lib, kv, device)
  local path = oracle.model(("%s/%s-%s.gguf"):format(model, model, kind))
  return assert(engine.open(path, { kv = kv or c.lib.DROVER_KV_F32,
                                    device = device or "cpu_plain" }, lib))
end


-- Above -20 within 0.0002 (or `loose`), below within 0.01 %.
local function near(want, got, loose)
  local most = want > -20 and 0.0002 or math.abs(want) * 0.0001
  return math.abs(want - got) <= math.max(most, loose or 0)
end


-- The engine's log-probabilities of ids[2…] and the oracle's.
local function check_logprobs(e, ids, want, name, loose)
  local logits = e:logits(ids)
  for i = 1, #ids - 1 do
    local got = e:logprob(logits + (i - 1) * e.vocab, ids[i + 1])
    if not near(want[i], got, loose) then
      error(("%s: %g at %d, %g expected"):format(name, got, i, want[i]))
    end
  end
end


-- Each within 0.5 of llama.cpp's, which rounds as we do; and their mean, the
-- perplexity's logarithm, within 5 %.
local function check_rounded(e, case, want)
  local logits, sum, sum_want = e:logits(case.ids), 0, 0
  for i = 1, #case.ids - 1 do
    local got = e:logprob(logits + (i - 1) * e.vocab, case.ids[i + 1])
    assert(math.abs(got - want[i]) <= 0.5,
           ("%s: %g at %d, %g expected"):format(case.name, got, i, want[i]))
    sum, sum_want = sum + got, sum_want + want[i]
  end
  assert(math.abs(sum - sum_want) / (#case.ids - 1) <= math.log(1.05), case.name)
end


local function argmax(row, count)
  local at = 0
  for i = 1, count - 1 do
    if row[i] > row[at] then
      at = i
    end
  end
  return at
end


-- Every id of the reply is the best one after those before it.
local function check_greedy(e, case)
  local ids = {}
  for _, id in ipairs(case.prompt_ids) do
    ids[#ids + 1] = id
  end
  local first = #ids
  for _, id in ipairs(case.float64.ids) do
    ids[#ids + 1] = id
  end
  local logits = e:logits(ids)
  for i = first, #ids - 1 do
    assert.equal(ids[i + 1], argmax(logits + (i - 1) * e.vocab, e.vocab),
                 case.name .. " at " .. i - first)
  end
end


-- The same through the queue, the batch and the sampler.
local function check_reply(e, file, case)
  local fields = { max_tokens = file.max_tokens, call = 1 }
  if case.messages then
    fields.messages = case.messages
  else
    fields.prompt = case.prompt
  end
  local r = e:ask(fields)
  local ids = case.float64.ids
  assert.equal(#case.prompt_ids, r.prompt_tokens, case.name)
  assert.equal(#ids, r.completion_tokens, case.name)
  local ended = ids[#ids] == file.eos
  assert.equal(ended and c.lib.DROVER_FINISH_STOP or c.lib.DROVER_FINISH_LENGTH,
               r.finish, case.name)
  if case.float64.agrees and not case.text:find("\239\191\189", 1, true)
     and not r.text:find("\239\191\189", 1, true) then
    assert.equal(case.text, r.text, case.name)
  end
end


for _, model in ipairs{ "stories260K", "lambkin" } do
  describe("#oracle " .. model, function()
    after_each(engine.close_all)

    it("makes the same tokens of all texts", function()
      local file = oracle.json(model .. "/tokenize.json")
      for _, lib in ipairs{ fast, c.lib } do
        local e = open(model, "q8_0", lib)
        for _, case in ipairs(file.cases) do
          assert.same(case.ids, e:encode(case.text, false), case.text)
          assert.same(case.special, e:encode(case.text, true), case.text)
          local with = file.add_bos and { file.bos, unpack(case.ids) } or case.ids
          assert.same(with, e:encode(case.text, false, true), case.text)
        end
      end
    end)

    for _, kind in ipairs{ "f32", "f16", "q8_0" } do
      it("gives the float64 pass's log-probabilities in " .. kind, function()
        local e = open(model, kind, fast)
        for _, case in ipairs(oracle.json(model .. "/logprobs.json").cases) do
          assert.same(case.ids, e:encode(case.text, true, true), case.name)
          check_logprobs(e, case.ids, case[kind].float64, case.name)
        end
      end)

      it("keeps near them with a cache of halves, in " .. kind, function()
        local e = open(model, kind, fast, c.lib.DROVER_KV_F16)
        for _, case in ipairs(oracle.json(model .. "/logprobs.json").cases) do
          check_logprobs(e, case.ids, case[kind].float64, case.name, HALVES)
        end
      end)

      it("says what the float64 pass says in " .. kind, function()
        local file = oracle.json(("%s/generate-%s.json"):format(model, kind))
        local e = open(model, kind, fast)
        for _, case in ipairs(file.cases) do
          if not case.messages then
            assert.same(case.prompt_ids, e:encode(case.prompt, true, true))
          end
          check_greedy(e, case)
          check_reply(e, file, case)
        end
      end)
    end

    for _, kind in ipairs{ "f32", "f16" } do
      it("does so from packed weights in " .. kind, function()
        local e = open(model, kind, fast, nil, "cpu")
        for _, case in ipairs(oracle.json(model .. "/logprobs.json").cases) do
          check_logprobs(e, case.ids, case[kind].float64, case.name)
        end
        local file = oracle.json(("%s/generate-%s.json"):format(model, kind))
        for _, case in ipairs(file.cases) do
          check_greedy(e, case)
          check_reply(e, file, case)
        end
      end)
    end

    it("comes close from packed weights in q8_0", function()
      local e = open(model, "q8_0", fast, nil, "cpu")
      for _, case in ipairs(oracle.json(model .. "/logprobs.json").cases) do
        check_rounded(e, case, case.q8_0.llama_cpp)
      end
    end)

    it("does so under the sanitizers too", function()
      local e = open(model, "q8_0")
      local case = oracle.json(model .. "/logprobs.json").cases[1]
      check_logprobs(e, case.ids, case.q8_0.float64, case.name)
      local file = oracle.json(model .. "/generate-q8_0.json")
      for i = 1, 3 do
        check_reply(e, file, file.cases[i])
      end
    end)
  end)
end
