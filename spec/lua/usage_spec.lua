-- What an attempt is charged with: by the node's figures where they can be
-- believed, else by ours.
local openai = require "drover.provider.openai"
local usage = require "drover.usage"

local PROMPT = 100


-- prompt, completion, cached, estimated; `bytes` of text came.
local function of(raw, billed, bytes, call)
  call = call or {}
  call.request = call.request or {}
  local used, estimated = usage.of(openai.usage(raw), call, PROMPT, billed,
                                   function(x) return x end, bytes or 0)
  if not used then
    return nil
  end
  return { used.prompt_tokens, used.completion_tokens, used.cached_tokens,
           estimated }
end


local function raw(prompt, completion, cached)
  return { prompt_tokens = prompt, completion_tokens = completion,
           cached_tokens = cached }
end


describe("the tokens of an attempt", function()
  it("are the node's own", function()
    assert.same({ 7, 3, 2, false }, of(raw(7, 3, 2), true, 12))
    assert.same({ 7, 3, 0, false }, of(raw(7, 3), false))
    assert.same({ 7, 0, 0, false }, of(raw(7, 0), true, 0))
  end)

  it("are none where it did not begin", function()
    assert.is_nil(of(nil, false, 0))
  end)

  it("are the prompt where it may have begun and said nothing", function()
    assert.same({ PROMPT, 0, 0, true }, of(nil, true, 0))
  end)

  it("are the prompt and the text that came where it was cut", function()
    assert.same({ PROMPT, 10, 0, true }, of(nil, true, 35))
  end)

  local bad = {
    raw(2 ^ 63, 2 ^ 63), raw(-1, -5), raw("7", "3"), raw(0, 0), {}, "x", 5,
    raw(1e300, 1e300), raw(0 / 0, 0 / 0), raw({}, {}), raw(2 ^ 25, 2 ^ 25),
    raw(true, false),
  }
  for i, one in ipairs(bad) do
    it("are estimated where the figures are absurd, case " .. i, function()
      assert.same({ PROMPT, 10, 0, true }, of(one, true, 35))
    end)
  end

  it("are at most four times what was asked for", function()
    local call = { max_tokens = 5 }
    assert.same({ 7, 20, 0, false }, of(raw(7, 20), true, 0, call))
    assert.same({ 7, 10, 0, true }, of(raw(7, 21), true, 35, call))
    assert.same({ 7, 20, 0, true }, of(raw(7, 21), true, 3500, call))
    assert.same({ PROMPT, 20, 0, true }, of(nil, true, 3500, call))
    call.request.n = 3
    assert.same({ 7, 21, 0, false }, of(raw(7, 21), true, 0, call))
  end)

  it("have no more cached ones than there are", function()
    assert.same({ 7, 3, 7, false }, of(raw(7, 3, 900), true))
  end)

  it("are never zero for a reply with a text", function()
    assert.same({ 7, 1, 0, true }, of(raw(7, 0), true, 1))
    assert.same({ PROMPT, 3, 0, true }, of(raw(0, 3), true, 1))
  end)
end)
