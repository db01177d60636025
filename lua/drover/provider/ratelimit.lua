-- What a reply's headers say about its node's own limits: two families of
-- names, one table. Pure.
--
-- SPDX-License-Identifier: MIT
local times = require "drover.provider.retry_after"

local _M = {}

-- How each family spells a bucket's three figures.
local OPENAI = "x-ratelimit-%s-%s"              -- of what, whose
local ANTHROPIC = "anthropic-ratelimit-%s-%s"   -- whose, of what


local function names_of(format, bucket, swap)
  local names = {}
  for _, what in ipairs { "limit", "remaining", "reset" } do
    names[what] = swap and format:format(bucket, what)
                  or format:format(what, bucket)
  end
  return names
end


-- The buckets of each kind. Where several are said, the one of which the
-- least is left counts: Anthropic's `tokens` is the tightest, but may be
-- missing.
local requests = { names_of(OPENAI, "requests"),
                   names_of(ANTHROPIC, "requests", true) }
local tokens = { names_of(OPENAI, "tokens"),
                 names_of(ANTHROPIC, "tokens", true),
                 names_of(ANTHROPIC, "input-tokens", true),
                 names_of(ANTHROPIC, "output-tokens", true) }


-- limit, left and reset (seconds) of the tightest of these buckets.
local function tightest(list, headers, from)
  local limit, left, reset
  for i = 1, #list do
    local names = list[i]
    local value = headers[names.remaining]
    local count = value and times.number(value)
    if count and count < (left or math.huge) then
      left = count
      limit = headers[names.limit] and times.number(headers[names.limit])
      reset = headers[names.reset] and times.reset(headers[names.reset], from)
    end
  end
  return limit, left, reset
end


-- { requests_limit, requests_left, requests_reset, tokens_limit, tokens_left,
-- tokens_reset }, what is not said absent; or nil when nothing is left to
-- say. `headers` by lower-case name; `now` in seconds since 1970.
function _M.read(headers, now)
  local from = times.sent(headers, now)
  local out = {}
  out.requests_limit, out.requests_left, out.requests_reset =
    tightest(requests, headers, from)
  out.tokens_limit, out.tokens_left, out.tokens_reset =
    tightest(tokens, headers, from)
  return (out.requests_left or out.tokens_left) and out or nil
end


return _M
