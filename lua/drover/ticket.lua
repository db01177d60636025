-- What router:pick returns: one decision, for a caller that sends by itself.
-- Settled by done(), once; a ticket that is dropped counts as cancelled.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local check = require "drover.check"
local cost = require "drover.cost"
local err = require "drover.err"

local _M = {}

local NAN = 0 / 0

local mt = {}
mt.__index = mt

local fields = {
  status = { "number", 0, 999 },
  kind = { "string" },
  first_token = { "number", 0 },
  total = { "number", 0 },
  usage = { "table" },
}

local held = setmetatable({}, { __mode = "k" })      -- guard -> what to settle
local template = newproxy(true)


local function settle(inner, outcome)
  local router = inner.router
  if inner.settled or router.closed then
    inner.settled = true
    return false
  end
  inner.settled = true
  local now = C.drover_clock()
  local row = inner.pick.node
  C.drover_ticket_done(router.handle, inner.pick, outcome, now)
  C.drover_request_done(router.handle, row, outcome.code, inner.overhead, NAN)
  return true
end


local function empty_outcome(code)
  local outcome = ffi.new("drover_outcome")
  outcome.code = code
  outcome.first_token_ms, outcome.token_ms = NAN, NAN
  return outcome
end


getmetatable(template).__gc = function(guard)
  local inner = held[guard]
  if inner then
    settle(inner, empty_outcome(C.DROVER_ECANCELLED))
  end
end


-- A ticket of an open pick.
function _M.new(router, row, pick, overhead)
  C.drover_ticket_sent(router.handle, pick)
  local guard = newproxy(template)
  local inner = { router = router, pick = pick, overhead = overhead,
                  settled = false }
  held[guard] = inner
  return setmetatable({
    guard = guard, inner = inner, row = row,
    node = { id = row.id, url = row.url, row = pick.node },
  }, mt)
end


local function code_of(row, outcome)
  if outcome.kind then
    return outcome.kind == "ok" and 0 or err.code(outcome.kind)
  end
  local status = outcome.status
  if not status or status >= 200 and status < 400 then
    return 0
  end
  local classify = row.provider.classify
  return classify and err.code(classify(status, {}, "").kind)
         or C.DROVER_EINTERNAL
end


local function per_token(outcome, usage)
  local count = usage and usage.completion_tokens or 0
  if not outcome.total or count == 0 then
    return NAN
  end
  local first = outcome.first_token
  if first and count > 1 then
    return math.max(0, outcome.total - first) * 1000 / (count - 1)
  end
  return outcome.total * 1000 / count
end


-- Say how it went: { status, kind, first_token, total (seconds), usage }.
-- Returns true the first time, false after that.
function mt:done(outcome)
  outcome = outcome or {}
  local why = type(outcome) ~= "table" and "must be a table"
              or check.fields(outcome, fields, "outcome")
              or not err.is_kind(outcome.kind or "ok")
                 and "kind: must be ok or an err.kind"
  if why then
    error("ticket:done: " .. why, 2)
  end
  local usage = self.row.provider.usage(outcome.usage)
  local o = empty_outcome(code_of(self.row, outcome))
  o.prompt_tokens = usage and usage.prompt_tokens or 0
  o.completion_tokens = usage and usage.completion_tokens or 0
  o.cached_tokens = usage and usage.cached_tokens or 0
  o.first_token_ms = outcome.first_token and outcome.first_token * 1000 or NAN
  o.token_ms = per_token(outcome, usage)
  o.dollars = cost.dollars(self.row.price, usage) or 0
  held[self.guard] = nil
  return settle(self.inner, o)
end


return _M
