-- drover_delta_scan(): what one chunk of a chat stream holds.
local ffi = require "ffi"
local c = require "spec.support.c"
local guard = require "spec.support.guard"

local C = c.lib
local page = guard.new(65536)
local delta, err = ffi.new("drover_delta"), ffi.new("drover_err")
local NAMES = { [1] = "text", [2] = "finish", [4] = "usage", [8] = "error",
                [16] = "other", [32] = "role" }


-- The flags by name, with the spans as bytes.
local function scan(text)
  local at, size = page:put(text)
  local rc = C.drover_delta_scan(at, size, delta, err)
  if rc ~= 0 then
    return rc
  end
  local seen = {}
  for bit_value, name in pairs(NAMES) do
    if bit.band(delta.flags, bit_value) ~= 0 then
      seen[name] = true
    end
  end
  if seen.text then
    seen.text = text:sub(delta.text_start + 1, delta.text_start + delta.text_size)
  end
  if seen.finish then
    seen.finish = text:sub(delta.finish_start + 1,
                           delta.finish_start + delta.finish_size)
  end
  return seen
end


local function choice(inside)
  return '{"id":"x","object":"chat.completion.chunk","created":1,"choices":['
         .. inside .. "]}"
end


describe("drover_delta_scan()", function()
  local rows = {
    { "an ordinary chunk", { text = " hello" },
      choice'{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}' },
    { "the fields in another order, with white space", { text = "a" },
      choice' { "finish_reason" : null , "delta" : { "content" : "a" } , "index" : 0 } ' },
    { "text still escaped", { text = "a\\n\\\"" },
      choice'{"index":0,"delta":{"content":"a\\n\\""}}' },
    { "empty text", {}, choice'{"index":0,"delta":{"content":""}}' },
    { "null text", {}, choice'{"index":0,"delta":{"content":null}}' },
    { "the first chunk", { role = true },
      choice'{"index":0,"delta":{"role":"assistant","content":"","refusal":null}}' },
    { "the last chunk", { finish = "stop" },
      choice'{"index":0,"delta":{},"finish_reason":"stop"}' },
    { "an escaped finish reason", { finish = "a\\n", other = true },
      choice'{"index":0,"delta":{},"finish_reason":"a\\n"}' },
    { "usage with no choice", { usage = true },
      '{"choices":[],"usage":{"prompt_tokens":1}}' },
    { "usage that is null", {}, '{"choices":[],"usage":null}' },
    { "usage that is a number", {}, '{"choices":[],"usage":5}' },
    { "an error object", { error = true }, '{"error":{"message":"no","choices":1}}' },
    { "an error that is text", { error = true }, '{"error":"no"}' },
    { "an error that is null", {}, '{"error":null}' },
    { "a tool call", { other = true },
      choice'{"index":0,"delta":{"tool_calls":[{"index":0}]}}' },
    { "an empty list of tool calls", { text = "a" },
      choice'{"index":0,"delta":{"tool_calls":[],"content":"a"}}' },
    { "reasoning", { other = true },
      choice'{"index":0,"delta":{"reasoning_content":"hm"}}' },
    { "empty reasoning", { text = "a" },
      choice'{"index":0,"delta":{"content":"a","reasoning":""}}' },
    { "another index", { text = "a", other = true },
      choice'{"index":1,"delta":{"content":"a"}}' },
    { "two choices", { text = "a", other = true },
      choice'{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}' },
    { "content in parts", { other = true },
      choice'{"index":0,"delta":{"content":[{"type":"text","text":"a"}]}}' },
    { "a key that is written with an escape", { text = "a" },
      choice'{"index":0,"delta":{"c\\u006fntent":"a"}}' },
    { "the first of two equal keys", { text = "a" },
      choice'{"delta":{"content":"a","content":"b"},"delta":{"content":"c"}}' },
    { "the same names at other depths", {},
      '{"x":{"choices":[{"delta":{"content":"a"}}],"error":1,"usage":{}}}' },
    { "an array", { other = true }, "[1,2]" },
    { "null", {}, "null" },
    { "choices that are an object", { other = true }, '{"choices":{}}' },
  }
  for _, row in ipairs(rows) do
    it("reads " .. row[1], function()
      assert.same(row[2], scan(row[3]))
    end)
  end

  it("tells whether the text has an escape", function()
    scan(choice'{"delta":{"content":"a\\nb"}}')
    assert.equal(0, delta.text_plain)
    scan(choice'{"delta":{"content":"\195\169"}}')
    assert.equal(1, delta.text_plain)
  end)

  it("agrees with the check on every prefix", function()
    local text = choice('{"index":0,"delta":{"content":"h\\u00e9 \195\169",'
                        .. '"x":[{}]},"finish_reason":"stop"}')
    for i = 0, #text - 1 do
      assert.equal(C.DROVER_EFORMAT, scan(text:sub(1, i)))
      assert.equal(0, delta.flags)
    end
  end)

  it("says at which byte a chunk is wrong", function()
    assert.equal(C.DROVER_EFORMAT, scan'{"choices":[{"delta":{"content":tru}}]}')
    assert.equal("not JSON: no such word, at byte 32", ffi.string(err.text))
  end)
end)
