-- What router:pick returns: one decision, for a caller that sends by itself.
-- Settled by done(), once; a ticket that is dropped counts as cancelled.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local check = require "drover.check"
local cost = require "drover.cost"
local err = require "drover.err"
local tokens = require "drover.tokens"
local usages = require "drover.usage"

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
  retry_after = { "number", 0 },
}

-- Kinds of failures after which a node may have worked for nothing.
local billed = { timeout = true, reset = true, truncated = true,
                 malformed = true, cancelled = true, internal = true }

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


-- An outcome of which nothing is known but its kind: it was handed out, so
-- the prompt may have been worked on.
local function empty_outcome(pick, code)
  local outcome = ffi.new("drover_outcome")
  outcome.code = code
  outcome.tokens = pick.prompt_tokens
  outcome.first_token_ms, outcome.token_ms = NAN, NAN
  return outcome
end


getmetatable(template).__gc = function(guard)
  local inner = held[guard]
  if inner then
    settle(inner, empty_outcome(inner.pick, C.DROVER_ECANCELLED))
  end
end


-- A ticket of an open pick.
function _M.new(router, row, pick, call, overhead)
  C.drover_ticket_sent(router.handle, pick)
  local guard = newproxy(template)
  local inner = { router = router, pick = pick, overhead = overhead,
                  settled = false }
  held[guard] = inner
  return setmetatable({
    guard = guard, inner = inner, row = row, call = call,
    node = { id = row.id, url = row.url, row = pick.node },
  }, mt)
end


-- The code of an outcome, and whether the node may have worked on it.
local function code_of(row, outcome)
  local kind, status = outcome.kind, outcome.status
  if kind then
    return kind == "ok" and 0 or err.code(kind), billed[kind]
  elseif not status or status >= 200 and status < 400 then
    return 0
  end
  local classify = row.provider.classify
  if not classify then
    return C.DROVER_EINTERNAL, true
  end
  local c = classify(status, {}, "")
  return err.code(c.kind), c.maybe_billed
end


local function per_token(outcome, count)
  if not outcome.total or count == 0 then
    return NAN
  end
  local first = outcome.first_token
  if first and count > 1 then
    return math.max(0, outcome.total - first) * 1000 / (count - 1)
  end
  return outcome.total * 1000 / count
end


-- Nobody showed us the answer's text: as long as answers have been lately.
local function expected(self)
  local p, n = self.inner.pick, tonumber(self.call.request.n) or 1
  local length = tokens.expect(self.inner.router.lengths, self.call.model)
  return tokens.bytes(math.min(p.max_tokens, n * length))
end


local function nothing()
  return 0
end


-- What it used, or by all that is known may have used. Returns the tokens of
-- the answer where the node named them.
local function charge(self, o, usage, worked)
  local router, call, ok = self.inner.router, self.call, o.code == 0
  local used, estimated = usages.of(usage, call, self.inner.pick.prompt_tokens,
                                    ok or worked, ok and expected or nothing,
                                    self)
  o.tokens = used and used.prompt_tokens + used.completion_tokens or 0
  o.dollars = cost.dollars(self.row.price, used) or 0
  if not used then
    return 0
  end
  local count = used.completion_tokens
  o.prompt_tokens, o.completion_tokens = used.prompt_tokens, count
  o.cached_tokens = used.cached_tokens or 0
  if estimated then
    C.drover_count(router.handle, C.DROVER_USAGE_ESTIMATED)
    return 0
  end
  tokens.learn(router.lengths, call.model,
               count / (tonumber(call.request.n) or 1))
  return count
end


-- Say how it went: { status, kind, first_token, total, retry_after (seconds),
-- usage }.
-- Returns true the first time, false after that.
function mt:done(outcome)
  outcome = outcome or {}
  local why = type(outcome) ~= "table" and "must be a table"
              or check.fields(outcome, fields, "outcome")
              or not err.is_kind(outcome.kind or "ok")
                 and "outcome.kind: must be ok or an err.kind"
  if why then
    error("ticket:done: " .. why, 2)
  end
  if self.inner.settled or self.inner.router.closed then
    return settle(self.inner)
  end
  local usage = self.row.provider.usage(outcome.usage)
  local code, worked = code_of(self.row, outcome)
  local o = empty_outcome(self.inner.pick, code)
  o.retry_after = outcome.retry_after or 0
  o.first_token_ms = outcome.first_token and outcome.first_token * 1000 or NAN
  o.token_ms = per_token(outcome, charge(self, o, usage, worked))
  held[self.guard] = nil
  return settle(self.inner, o)
end


return _M
