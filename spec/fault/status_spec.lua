-- Rows 25 to 43 and 58 of the fault matrix: what a node says in an answer
-- that came whole: statuses, error bodies, odd JSON, odd usage.
local matrix = require "spec.support.matrix"

local hex = require("spec.support.fault_server").hex
local TIGHT = { connect = 5, first_token = 5, idle = 5, total = 0.3 }
local SHORT = { connect = 5, first_token = 5, idle = 5, total = 0.7 }


-- A fault whose answer has these header lines too.
local function with(fault, ...)
  return fault .. ";hex=" .. hex(table.concat({ ... }, "\r\n") .. "\r\n")
end


-- A date header, and a Retry-After that is a date, in one of three forms.
local function dated(form)
  return with("status=429", "Date: Sun, 06 Nov 1994 08:49:37 GMT",
              "Retry-After: " .. form)
end


-- The node that failed is kept back for `seconds`, no more than 300 of a rate.
local function kept_back(seconds, cap)
  return function(result)
    local left = result.nodes[1].out_for
    local most = math.min(seconds, cap or 300)
    assert.is_true(left > most / 2 - 0.5 and left < most + 0.1, left)
  end
end


-- A rate limit that says `seconds`: nobody waits so long.
local function limited(number, fault, seconds)
  return { row = number, fault = fault, class = "refused", sends = 1,
           kind = "rate_limited", status = 429, billed = false,
           retry_after = seconds, timeout = SHORT,
           check = kept_back(seconds) }
end


-- What was estimated says so, costs something, and not the absurd.
local function estimated(result)
  local by = result.reply.drover
  assert.is_true(by.estimated)
  assert.is_true(by.cost > 0 and by.cost < 4 * 64 * 2e-6 + 1e-3, by.cost)
  assert.matches("\ndrover_usage_estimated_total 1\n", result.metrics)
  assert.is_true(result.nodes[1].output_tokens > 0)
  assert.is_true(result.nodes[1].output_tokens < 4 * 64 + 1)
end


describe("in an answer,", function()
  teardown(matrix.stop)

  matrix.specs(it, {
    -- 25, 26: errors inside a 200
    { row = 25, fault = "error200=502", class = "ambiguous",
      kind = "overloaded" },
    { row = 25, fault = "error200=429",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited" },
    { row = 25, fault = "error200=401", class = "elsewhere",
      kind = "unauthorized" },
    { row = 26, fault = "ok;after=2;error", way = "stream", class = "final",
      kind = "overloaded", phase = "stream", billed = true, seen = 2 },
    { row = 26, fault = "ok;after=2;error=401", way = "stream",
      class = "final", kind = "unauthorized", billed = true, seen = 2 },

    -- 27, 28: no answer in it
    { row = 27, fault = "json=object", way = "chat", class = "ambiguous",
      kind = "malformed", billed = true },
    { row = 27, fault = "json=empty", way = "chat", class = "ambiguous",
      kind = "malformed", billed = true },
    { row = 27, fault = "json=nochoices", way = "chat", class = "ambiguous",
      kind = "malformed", billed = true },
    { row = 27, fault = "json=null", way = "chat", class = "ambiguous",
      kind = "malformed", billed = true },
    { row = 27, fault = "ok;n=0;nofinish", way = "stream", class = "ambiguous",
      kind = "malformed", billed = true },
    { row = 27, fault = "json=tools", way = "chat", class = "good",
      text = false },
    { row = 28, fault = "json=choices", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 28, fault = "json=choicestr", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 28, fault = "json=choice", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 28, fault = "json=message", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 28, fault = "json=content", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 28, fault = "json=array", way = "chat", class = "ambiguous",
      kind = "malformed" },
    { row = 28, fault = "json=number", way = "chat", class = "ambiguous",
      kind = "malformed" },
    -- a chunk of another shape passes as it came, and is no content
    { row = 28, fault = "json=choices;after=0;nofinish", way = "stream",
      class = "ambiguous", kind = "malformed" },
    { row = 28, fault = "json=choice;after=0;nofinish", way = "stream",
      class = "ambiguous", kind = "malformed" },
    { row = 28, fault = "json=message;after=0;nofinish", way = "stream",
      class = "ambiguous", kind = "malformed" },
    { row = 28, fault = "json=content;after=0;nofinish", way = "stream",
      class = "ambiguous", kind = "malformed" },

    -- 29: usage
    { row = 29, fault = "ok;usage=none", class = "good",
      check = estimated },
    { row = 29, fault = "ok;usage=null", class = "good",
      check = estimated },
    { row = 29, fault = "ok;usage=zero", class = "good",
      check = estimated },
    { row = 29, fault = "ok;usage=huge", class = "good",
      check = estimated },
    { row = 29, fault = "ok;usage=negative", class = "good",
      check = estimated },
    { row = 29, fault = "ok;usage=string", class = "good",
      check = estimated },
    { row = 29, fault = "ok;usage=strings", class = "good",
      check = estimated },

    -- 30 to 36: the caller's, and the key's
    { row = 30, fault = "status=400", class = "final", kind = "bad_request",
      status = 400, billed = false, reads = { state = "up" } },
    { row = 30, fault = "status=404", class = "final", kind = "not_found",
      status = 404, billed = false, reads = { state = "up" } },
    { row = 30, fault = "status=422", class = "final", kind = "bad_request",
      status = 422, billed = false, reads = { state = "up" } },
    { row = 31, fault = "status=400;code=context_length_exceeded",
      class = "final", kind = "context_too_long", billed = false },
    { row = 32, fault = "status=401", class = "elsewhere",
      kind = "unauthorized", billed = false, reads = { state = "out" },
      check = kept_back(60) },
    { row = 32, fault = "status=403", class = "elsewhere",
      kind = "unauthorized", billed = false, reads = { state = "out" },
      check = kept_back(60) },
    { row = 33, fault = "status=402", class = "elsewhere", kind = "quota",
      billed = false, reads = { state = "out" },
      check = kept_back(3600, 86400) },
    { row = 33, fault = "status=429;code=insufficient_quota",
      class = "elsewhere", kind = "quota", billed = false },
    { row = 33, fault = "status=429;code=credit_balance_exhausted",
      class = "elsewhere", kind = "quota", billed = false },
    { row = 33, fault = "status=429;code=project_spend_limit_exceeded",
      class = "elsewhere", kind = "quota", billed = false },
    { row = 33, fault = "status=429;body=" .. hex(
        '{"error":{"type":"rate_limit_error","details":'
        .. '{"error_code":"enforced_spend_limit_reached"}}}'),
      class = "elsewhere", kind = "quota", billed = false },
    { row = 34, fault = "status=408", class = "ambiguous", kind = "timeout",
      status = 408, billed = true },
    { row = 35, fault = "status=409", class = "final", kind = "bad_request" },
    { row = 35, fault = "status=423", class = "final", kind = "bad_request" },
    { row = 35, fault = "status=425", class = "refused",
      kind = "bad_request", billed = false },
    { row = 36, fault = "status=413", class = "final", kind = "too_large",
      billed = false, reads = { state = "up" } },

    -- 37 to 41: rate limits
    { row = 37, fault = "status=429",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited", status = 429, billed = false },
    limited(38, "status=429;ra=1", 1), limited(38, "status=429;ra=1.5", 1.5),
    limited(38, "status=429;ra=120", 120),
    { row = 38, fault = "status=429;ra=0",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited", billed = false },
    limited(39, dated "Sun, 06 Nov 1994 08:49:47 GMT", 10),
    limited(39, dated "Sunday, 06-Nov-94 08:49:47 GMT", 10),
    limited(39, dated "Sun Nov  6 08:49:47 1994", 10),
    { row = 39, fault = dated "Sun, 06 Nov 1994 08:49:07 GMT",
      class = "refused", sends = false, kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=-1",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=inf",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=nan",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=0x10", class = "refused",
      timeout = TIGHT,
      sends = false, kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=",
      class = "refused", timeout = TIGHT, sends = false,
      kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=long", class = "refused",
      timeout = TIGHT,
      sends = false, kind = "rate_limited" },
    { row = 40, fault = "status=429;ra=99999999999999999999",
      class = "refused", sends = 1, kind = "rate_limited" },
    limited(41, with("status=429", "Retry-After-Ms: 1500"), 1.5),
    limited(41, with("status=429", "x-ratelimit-remaining-requests: 0",
                     "x-ratelimit-reset-requests: 6m0s"), 360),
    { row = 41, fault = with("status=503", "x-should-retry: false"),
      class = "final", kind = "overloaded" },

    -- 42, 43, 58
    { row = 42, fault = "status=500", class = "ambiguous",
      kind = "overloaded", billed = true },
    { row = 42, fault = "status=502", class = "ambiguous",
      kind = "overloaded", billed = true },
    { row = 42, fault = "status=504", class = "ambiguous", kind = "timeout",
      billed = true },
    { row = 42, fault = "status=503", class = "refused", kind = "overloaded",
      billed = false },
    { row = 43, fault = "status=529", class = "refused", kind = "overloaded",
      billed = false },
    { row = 43, fault = "status=503;ra=20", class = "refused", sends = 1,
      kind = "overloaded", billed = false, retry_after = 20,
      check = kept_back(20) },
    { row = 58, fault = "status=451", class = "final", kind = "bad_request" },
    { row = 58, fault = "status=418", class = "final", kind = "bad_request" },
    { row = 58, fault = "status=599", class = "ambiguous",
      kind = "overloaded" },
  })
end)
