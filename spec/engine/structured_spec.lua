-- Structured output on a real model: what finishes, fits. #oracle
local ffi = require "ffi"
local c = require "spec.support.c"
local engine = require "spec.support.engine"
local schema = require "spec.support.schema"

local C = c.lib
local MODELS = os.getenv("DROVER_MODELS") or "../shared/models"
local path = MODELS .. "/lambkin/lambkin-q8_0.gguf"
local STOP = C.DROVER_FINISH_STOP


-- A generator of its own, so that the schemas are the same everywhere.
local function generator(seed)
  local state = seed
  return function(a, b)
    state = (state * 16807) % 2147483647
    if not b then
      a, b = 1, a
    end
    return a + math.floor(state / 2147483647 * (b - a + 1))
  end
end


describe("structured output #oracle", function()
  local e

  setup(function()
    e = assert(engine.open(path, { batch = 16, context = 512 },
                           ffi.load("build/libdrover_dev.so")))
  end)
  before_each(function() e.replies = {} end)
  teardown(engine.close_all)

  it("fits 200 random schemas at temperature 1, and most finish", function()
    local random, schemas, finished = generator(4), {}, 0
    for i = 1, 200 do
      schemas[i] = schema.random(random)
      assert(e:queue{
        call = i, seed = i, temperature = 1, max_tokens = 400,
        format = C.DROVER_FORMAT_SCHEMA, schema = schemas[i],
        messages = { { role = "user",
                       content = "Tell me of a fox, as JSON." } },
      })
    end
    e:drain()
    for i = 1, 200 do
      local r = e.replies[i]
      assert.is_nil(r.why)
      if r.finish == STOP then
        finished = finished + 1
        local ok, why = schema.fits(r.text, schemas[i])
        assert.is_true(ok, (why or "does not fit") .. "\n" .. r.text .. "\n"
                           .. schemas[i])
      end
    end
    assert.is_true(finished >= 150, finished .. " finished")
  end)

  it("is any object with json_object, and ends with it", function()
    local finished = 0
    for i = 1, 20 do
      assert(e:queue{ call = i, seed = 100 + i, temperature = 1,
                      max_tokens = 300, format = C.DROVER_FORMAT_JSON,
                      prompt = "<|im_start|>user\nExtract the name and age as "
                        .. "JSON: Ada is 36 years old.<|im_end|>\n"
                        .. "<|im_start|>assistant\n" })
    end
    e:drain()
    for i = 1, 20 do
      local r = e.replies[i]
      if r.finish == STOP then
        finished = finished + 1
        assert.is_true(schema.fits(r.text, '{"type":"object"}'))
      end
    end
    assert.is_true(finished >= 10, finished .. " finished")
  end)

  it("draws the same with a mask first as with a draw first", function()
    local fields = { temperature = 1, max_tokens = 60, seed = 3,
                     format = C.DROVER_FORMAT_SCHEMA, prompt = "fox",
                     schema = '{"properties":{"a":{"type":"string"},'
                       .. '"b":{"type":"integer"}},"required":["a","b"]}' }
    local first = e:ask(fields).text
    fields.min_p = 1e-30                     -- a filter that takes nothing
    assert.equal(first, e:ask(fields).text)
    fields.min_p, fields.top_k = nil, 100000
    assert.equal(first, e:ask(fields).text)
    fields.top_k, fields.temperature = nil, 0
    local greedy = e:ask(fields)
    assert.is_truthy(greedy.text:find('^{"a"') or greedy.text:find("^{%s+\"a\""))
  end)

  it("goes through names and arguments of a tool's call", function()
    local r = e:ask{ temperature = 1, seed = 9, max_tokens = 200, prompt = "x",
                     format = C.DROVER_FORMAT_SCHEMA,
                     schema = '{"properties":{"name":{"enum":["turn","go"]},'
                       .. '"arguments":{"properties":{"to":{"enum":["n","s"]},'
                       .. '"far":{"type":"integer"}},"required":["to","far"],'
                       .. '"additionalProperties":false}},'
                       .. '"required":["name","arguments"],'
                       .. '"additionalProperties":false}' }
    assert.equal(STOP, r.finish)
    assert.is_truthy(r.text:find('"arguments"', 1, true))
  end)

  it("cuts at max_tokens as any reply", function()
    local r = e:ask{ prompt = "x", max_tokens = 5, temperature = 1,
                     format = C.DROVER_FORMAT_JSON }
    assert.equal(C.DROVER_FINISH_LENGTH, r.finish)
    assert.equal(5, r.completion_tokens)
  end)
end)
