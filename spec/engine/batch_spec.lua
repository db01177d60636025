-- A sequence's output does not depend on what else is in the batch, nor on how
-- its prompt is cut into steps: for every tensor type, by random mixes. Replies
-- are drawn at temperature 1 with seeds, so that a bit that differs shows.
local ffi = require "ffi"
local engine = require "spec.support.engine"
local oracle = require "spec.support.oracle"
local weights = require "spec.support.weights"

local fast = ffi.load("build/libdrover_dev.so")
local MIXES, REQUESTS = 68, 12      -- of each of the 15 types: 1,020 in all


local function unpacked(name)
  local plain = oracle.path("arch/models/" .. name .. ".gguf")
  local file = io.open(plain)
  if file then
    file:close()
    return plain, function() end
  end
  local path = os.tmpname()
  assert(os.execute(("gzip -dc '%s.gz' > '%s'"):format(plain, path)) == 0)
  return path, function() os.remove(path) end
end


-- Prompts of 1 to 60 characters, four of them past a chunk of 32.
local function request(i)
  local prompt = ("the quick brown fox jumps over it "):rep(6)
  return { call = i, prompt = prompt:sub(i, i + (i * 37) % 60 + (i % 3) * 40),
           max_tokens = 3 + i % 4, temperature = 1, seed = i, top_p = 1 }
end


-- What each request says alone.
local function alone(e)
  local texts = {}
  for i = 1, REQUESTS do
    texts[i] = e:ask(request(i)).text
  end
  return texts
end


-- Some of them at once; half come a turn or more later.
local function mix(e, want, random)
  local asked = {}
  for i = 1, REQUESTS do
    if random(2) == 1 then
      asked[#asked + 1] = i
    end
  end
  e.replies = {}
  for n, i in ipairs(asked) do
    assert(e:queue(request(i)))
    if n > #asked / 2 and random(2) == 1 then
      e:turn()
    end
  end
  e:drain()
  for _, i in ipairs(asked) do
    assert.equal(want[i], e.replies[i].text)
  end
end


local function check(name, config, mixes)
  local path, remove = unpacked(name)
  local e = assert(engine.open(path, config, fast))
  remove()
  local want, random = alone(e), weights.random(#name)
  for _ = 1, mixes do
    mix(e, want, random)
  end
  e:close()
end


describe("#oracle a sequence in a batch", function()
  after_each(engine.close_all)

  for _, kind in ipairs(weights.types) do
    it("says what it says alone, in " .. kind.name, function()
      check("llama256-" .. kind.name:lower(),
            { context = 256, batch = 7, threads = 2 }, MIXES)
    end)
  end

  it("does so in a mixture of experts, and with a window", function()
    check("moe256-q4_k", { context = 256, batch = 5, threads = 3 }, 20)
    check("gpt-oss-mxfp4", { context = 256, batch = 5, threads = 2 }, 20)
    check("gemma3-q4_0", { context = 256, batch = 5, threads = 2 }, 20)
  end)

  it("does so with a cache of floats", function()
    check("llama256-q8_0", { context = 256, batch = 5,
                             kv = fast.DROVER_KV_F32 }, 30)
  end)
end)
