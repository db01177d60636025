-- Answers of nodes that are errors: any status, headers and body become one
-- of our kinds; the head's lines become headers.
local broken = require "spec.fuzz.lua.broken"
local err = require "drover.err"
local reader = require "drover.reader"
local openai = require "drover.provider.openai"

local BODIES = {
  '{"error":{"message":"Rate limit reached","type":"tokens","code":'
  .. '"rate_limit_exceeded"}}',
  '{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay"'
  .. ':"34.4s"},{"violations":[{"quotaId":"PerDay"}]}]}}',
  '[{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}]',
  '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
  '{"detail":"Not Found"}', '{"error":"oops"}', '{"message":"x","code":3}',
  '{"error":{"message":{"a":[1,2]},"code":{"x":1},"param":[]}}', "", "<html>",
  '{"error":{"innererror":{"code":"ResponsibleAIPolicyViolation"}}}',
  '{"error":{"metadata":{"reasons":["x"],"limit_source":"u"}}}', "null", "[]",
}
local STATUSES = { 200, 201, 301, 400, 401, 402, 403, 404, 408, 409, 413, 422,
                   425, 429, 498, 500, 502, 503, 504, 524, 529, 599, 0 }
local LINES = { "retry-after: 5", "Retry-After-Ms: 20", "x-should-retry: false",
                "x-amzn-errortype: ThrottlingException:x", "date: x", ":", "a:",
                "x-ratelimit-remaining-tokens: 0", "retry-after: 7" }

local _M = {}


function _M.make(chance)
  return { status = chance:choose(STATUSES),
           head = broken.text(chance, broken.words(chance, LINES, 4)
                                      :gsub("(%d)(%a)", "%1\n%2")),
           body = broken.text(chance, chance:choose(BODIES)),
           now = chance:one_in(2) and 1767225600 or nil }
end


function _M.check(input)
  local headers = reader.headers(input.head)
  for name, value in pairs(headers) do
    assert(name == name:lower() and not name:find("[:\n]"), "a header's name")
    assert(type(value) == "string", "a header's value")
  end
  local c = openai.classify(input.status, headers, input.body, input.now)
  assert(err.is_kind(c.kind), "kind " .. tostring(c.kind))
  assert(type(c.retryable) == "boolean", "retryable")
  assert(c.maybe_billed == nil or type(c.maybe_billed) == "boolean", "billed")
  for _, name in ipairs { "message", "code", "type", "param" } do
    assert(c[name] == nil or type(c[name]) == "string", name)
  end
  assert(#(c.message or "") <= 512, "a long message")
  local after = c.retry_after
  assert(after == nil or after >= 0 and after <= 1e12, "retry_after")
  openai.decode(input.body)
end


return _M
