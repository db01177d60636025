-- All architectures and tensor types, against a float64 pass of another make:
-- tiny random models. The plain backend has float32 activations on dequantised
-- weights, so the tight rule of the oracle's README holds for every type: 0.001
-- of a logit. The packed one rounds them to int8 for quantised types: there the
-- README's loose rule holds, and the tight one for the others.
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local oracle = require "spec.support.oracle"

local fast = ffi.load("build/libdrover_dev.so")
local NEAR, ROUTE = 0.001, 0.0005


-- The model's path, unpacked if need be, and how to remove what that made.
local function unpacked(model)
  local plain = oracle.path("arch/" .. model)
  if not model:find("%.gz$") then
    return plain, function() end
  end
  local path = os.tmpname()
  assert(os.execute(("gzip -dc '%s' > '%s'"):format(plain, path)) == 0)
  return path, function() os.remove(path) end
end


local function open(file, lib, config)
  local path, remove = unpacked(file.model)
  config = config or { device = "cpu_plain" }
  config.context = 512
  config.kv = config.kv or c.lib.DROVER_KV_F32
  local e, why = engine.open(path, config, lib)
  remove()
  return assert(e, why)
end


-- Where a mixture's choice of an expert is too close to call, what follows may
-- differ: the first such position, or all.
local function last_sure(case)
  for i, gap in ipairs(case.route_gap or {}) do
    if gap < ROUTE then
      return i - 1
    end
  end
  return math.huge
end


local function near(want, got, what, ...)
  if math.abs(want - got) > NEAR or got ~= got then
    error((what .. ": %g, %g expected"):format(..., got, want), 2)
  end
end


local function check_logits(e, case, logits, sure)
  for k, at in ipairs(case.logits.float64 and case.logits_at or {}) do
    local all = oracle.base64(case.logits.float64[k])
    local want = ffi.cast("const float *", all)
    for id = 0, at < sure and e.vocab - 1 or -1 do
      near(want[id], logits[at * e.vocab + id], case.name .. " at %d", at)
    end
  end
end


-- How many of the greedy ids are sure to be those.
local function greedy_ids(case)
  local want = case.float64.ids or case.ids
  local count = case.float64.close_at or #want
  return want, (case.float64.min_route_gap or 1) < ROUTE and 0 or count
end


-- The prompt and the greedy ids behind it, in one pass: each of those is the
-- best one after all before it.
local function check(e, case)
  local prompt, sure = case.prompt_ids, last_sure(case)
  if case.prompt then
    assert.same(prompt, e:encode(case.prompt, false, prompt[1] == 1))
  end
  local ids, want, count = { unpack(prompt) }, greedy_ids(case)
  for i = 1, count do
    ids[#ids + 1] = want[i]
  end
  local logits = e:logits(ids)
  for i = 1, math.min(#prompt - 1, sure) do
    near(case.logprobs.float64[i],
         e:logprob(logits + (i - 1) * e.vocab, ids[i + 1]),
         case.name .. ": log-probability %d", i)
  end
  check_logits(e, case, logits, sure)
  for i = #prompt, #ids - 1 do
    local row, best = logits + (i - 1) * e.vocab, 0
    for id = 1, e.vocab - 1 do
      best = row[id] > row[best] and id or best
    end
    assert.equal(ids[i + 1], best, case.name .. " at " .. i)
  end
end


-- The largest difference of a case's logits, and the root of the mean square.
local function distance(e, case)
  local logits = e:logits(case.prompt_ids)
  local worst, sum, count = 0, 0, 0
  for k, at in ipairs(case.logits_at) do
    local all = oracle.base64(case.logits.float64[k])
    local want = ffi.cast("const float *", all)
    for id = 0, e.vocab - 1 do
      local off = math.abs(want[id] - logits[at * e.vocab + id])
      worst, sum, count = math.max(worst, off), sum + off * off, count + 1
    end
  end
  return worst, math.sqrt(sum / count)
end


-- ---- int8 activations ----

-- Squares, their count and the largest difference of a position's logits.
local function add_position(sum, want, got, vocab)
  for id = 0, vocab - 1 do
    local d = math.abs(want[id] - got[id])
    sum.squares, sum.count = sum.squares + d * d, sum.count + 1
    sum.most = d <= sum.most and sum.most or d
  end
end


local function case_logits(e, case, sum)
  local logits = e:logits(case.prompt_ids)
  for k, at in ipairs(case.logits.float64 and case.logits_at or {}) do
    local all = oracle.base64(case.logits.float64[k])
    if (case.route_gap and case.route_gap[at + 1] or 1) >= 0.25 then
      add_position(sum, ffi.cast("const float *", all), logits + at * e.vocab,
                   e.vocab)
    end
  end
end


-- In mixtures of two layers the rms alone counts.
local function check_loose(e, file)
  local sum = { squares = 0, count = 0, most = 0 }
  for _, case in ipairs(file.cases) do
    case_logits(e, case, sum)
  end
  local peer = file.measured.llama_cpp
  local rms = math.sqrt(sum.squares / sum.count)
  assert(sum.count > 0 and rms <= 2 * peer.rms_logit,
         ("rms %g, llama.cpp's is %g"):format(rms, peer.rms_logit))
  if not file.cases[1].route_gap or e.info.layers == 1 then
    assert(sum.most <= 3 * peer.max_logit,
           ("%g off, llama.cpp %g"):format(sum.most, peer.max_logit))
  end
end


local FLOATS = { F32 = true, F16 = true, BF16 = true }


-- By the file's type; a mixed one may hold quantised matrices.
local function check_packed(e, file)
  if FLOATS[file.type:upper()] then
    for _, case in ipairs(file.cases) do
      check(e, case)
    end
  else
    check_loose(e, file)
  end
end


describe("#oracle arch", function()
  after_each(engine.close_all)

  for _, path in ipairs(oracle.files("arch", "%.json$")) do
    local name = path:match("([^/]+)%.json$")
    it("computes " .. name, function()
      local file = oracle.json(path)
      local e = open(file, fast)
      for _, case in ipairs(file.cases) do
        check(e, case)
      end
    end)

    it("computes " .. name .. " from packed weights", function()
      local file = oracle.json(path)
      check_packed(open(file, fast, { threads = 2 }), file)
    end)
  end

  -- The README's rows for other caches: the rms over a case's given logits,
  -- and for halves each of them. Not for mixtures, whose choice of an expert
  -- may be another then.
  local function check_cache(kv, most, rms)
    for _, path in ipairs(oracle.files("arch", "%-f32%.json$")) do
      local file = oracle.json(path)
      local e = open(file, fast, { device = "cpu_plain", kv = kv })
      for _, case in ipairs(file.cases) do
        if not case.route_gap then
          local worst, mean = distance(e, case)
          if worst > most or mean > rms then
            error(("%s, %s: %g, rms %g"):format(path, case.name, worst, mean))
          end
        end
      end
      e:close()
    end
  end

  it("stays near with a cache of halves", function()
    check_cache(c.lib.DROVER_KV_F16, 0.15, 0.008)
  end)

  it("stays as near as bytes allow with a cache of those", function()
    check_cache(c.lib.DROVER_KV_Q8_0, 2, 0.2)
  end)

  it("does so under the sanitizers too", function()
    for _, name in ipairs { "gemma3-f32", "gpt-oss-mxfp4", "phi3-longrope-f32",
                            "moe256-q4_k", "olmo2-f32", "llama-yarn-f32" } do
      local file = oracle.json("arch/" .. name .. ".json")
      local e = open(file, c.lib)
      check(e, file.cases[1])
      e:close()
      check_packed(open(file, c.lib, { threads = 2 }), file)
    end
  end)

  -- The README's bounds of a cache of halves, on float models.
  it("computes from packed weights with a cache of halves", function()
    for _, name in ipairs { "llama-f32", "gemma3-f32", "gpt-oss-f32" } do
      local file = oracle.json("arch/" .. name .. ".json")
      local e = open(file, fast, { kv = c.lib.DROVER_KV_F16 })
      local sum = { squares = 0, count = 0, most = 0 }
      for _, case in ipairs(file.cases) do
        case_logits(e, case, sum)
      end
      assert(sum.most > 1e-5 and sum.most < 0.15, name)
      assert(math.sqrt(sum.squares / sum.count) < 0.008, name)
    end
  end)
end)
