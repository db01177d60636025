-- Whether, where and when a failed attempt is followed by another.
local backoff = require "drover.backoff"
local err = require "drover.err"
local retry = require "drover.retry"

local usual = { attempts = 3, min = 0.25, max = 8, ambiguous = "once" }


local function decide(kind, fields, count, flight, policy)
  return (retry.decide(policy or usual, err.new(kind, nil, fields),
                       count or 1, flight or { call = {} }))
end


describe("retry.decide()", function()
  local rows = {
    { "unreachable", nil, "retry" }, { "tls", nil, "retry" },
    { "rate_limited", nil, "retry" }, { "overloaded", nil, "retry" },
    { "unauthorized", { retryable = false }, "other_node" },
    { "quota", { retryable = false }, "other_node" },
    { "bad_request", nil, "stop" }, { "context_too_long", nil, "stop" },
    { "content_policy", nil, "stop" }, { "not_found", nil, "stop" },
    { "too_large", nil, "stop" }, { "cancelled", nil, "stop" },
    { "closed", nil, "stop" }, { "internal", nil, "stop" },
    { "reset", { maybe_billed = true }, "retry" },
    { "timeout", { maybe_billed = true }, "retry" },
  }
  for _, row in ipairs(rows) do
    it("says " .. row[3] .. " after " .. row[1], function()
      local fields = row[2] and { retryable = row[2].retryable,
                                  maybe_billed = row[2].maybe_billed }
      assert.equal(row[3], decide(row[1], fields))
    end)
  end

  it("repeats what may be billed once, not twice", function()
    local flight = { call = {} }
    assert.equal("retry", decide("reset", { maybe_billed = true }, 1, flight))
    assert.equal("stop", decide("reset", { maybe_billed = true }, 2, flight))
    assert.equal("retry", decide("unreachable", nil, 2, flight))
  end)

  it("never repeats what may be billed where that is wanted", function()
    local never = { attempts = 3, min = 0, max = 1, ambiguous = "never" }
    assert.equal("stop", decide("reset", { maybe_billed = true }, 1, nil,
                                never))
    assert.equal("retry", decide("unreachable", nil, 1, nil, never))
  end)

  it("stops at the number of attempts", function()
    assert.equal("retry", decide("unreachable", nil, 2))
    assert.equal("stop", decide("unreachable", nil, 3))
  end)

  it("asks the caller's function", function()
    local seen = {}
    local policy = { decide = function(e, attempt, request)
      seen = { e.kind, attempt, request.model }
      return "retry", 1.5
    end }
    local verdict, wait = retry.decide(policy, err.new("reset"), 2,
      { call = { request = { model = "m" } } })
    assert.same({ "reset", 2, "m" }, seen)
    assert.same({ "retry", 1.5 }, { verdict, wait })
  end)

  for name, f in pairs {
    raises = function() error("oops") end,
    ["answers nonsense"] = function() return "again" end,
    ["waits backwards"] = function() return "retry", -1 end,
  } do
    it("stops with an internal error where the function " .. name, function()
      local verdict, _, e = retry.decide({ decide = f }, err.new("reset"), 1,
                                         { call = {} })
      assert.equal("stop", verdict)
      assert.equal("internal", e.kind)
    end)
  end
end)


describe("the pause before the same node", function()
  it("is full jitter under a cap", function()
    assert.equal(0, backoff.wait(0.25, 8, 1, 0))
    assert.equal(0.25, backoff.wait(0.25, 8, 1, 0.5))
    assert.equal(0.5, backoff.wait(0.25, 8, 2, 0.5))
    assert.equal(4, backoff.wait(0.25, 8, 20, 0.5))
  end)

  it("is as long as the server says, within reason", function()
    local function pause(seconds, cooling, rnd)
      return retry.pause(usual, err.new("rate_limited", nil,
                                        { retry_after = seconds }), 1,
                         rnd or 0, cooling or 0)
    end
    assert.equal(2, pause(2))
    assert.equal(120, pause(120))
    assert.is_nil(pause(121))
    assert.is_nil(pause(1e9))
    assert.equal(0, pause(nil))
    assert.equal(0.05, pause(0))        -- the floor of who says "at once"
    assert.equal(3, pause(nil, 3))      -- what the table keeps back
    assert.equal(3, pause(2, 3))
    assert.is_nil(pause(nil, 300))
  end)

  it("is not the same for all that were told the same", function()
    local function pause(rnd)
      return retry.pause(usual, err.new("rate_limited", nil,
                                        { retry_after = 10 }), 1, rnd, 0)
    end
    assert.is_true(pause(0.9) > pause(0.1))
    assert.is_true(pause(0.999) < 12.5)
  end)
end)


describe("the class of a failure", function()
  local rows = {
    { "unsent", "unreachable", { phase = "connect" } },
    { "unsent", "tls", { phase = "connect" } },
    { "unsent", "timeout", { phase = "connect" } },
    { "unsent", "reset", { phase = "send" } },
    { "refused", "rate_limited", { status = 429 } },
    { "refused", "overloaded", { status = 503 } },
    { "refused", "timeout", { status = 503 } },
    { "refused", "resource", {} }, { "refused", "overloaded", {} },
    { "refused", "unauthorized", { retryable = false } },
    { "refused", "quota", { retryable = false } },
    { "refused", "bad_request", { status = 425, retryable = true } },
    { "ambiguous", "overloaded", { status = 500, maybe_billed = true } },
    { "ambiguous", "timeout", { maybe_billed = true } },
    { "ambiguous", "reset", { maybe_billed = true } },
    { "ambiguous", "malformed", { maybe_billed = true } },
    { "final", "bad_request", {} }, { "final", "not_found", {} },
    { "final", "context_too_long", {} }, { "final", "too_large", {} },
    { "final", "cancelled", { maybe_billed = true } },
    { "final", "overloaded", { status = 503, retryable = false } },
  }
  for i, row in ipairs(rows) do
    it("is " .. row[1] .. " in case " .. i, function()
      assert.equal(row[1], retry.class(err.new(row[2], nil, row[3])))
    end)
  end
end)


describe("the deadline of a retry", function()
  it("leaves no room for what takes as long as the attempt did", function()
    assert.is_true(retry.in_time(usual, 3, 2))
    assert.is_false(retry.in_time(usual, 1, 2))
    assert.is_false(retry.in_time(usual, 0, 0))
  end)

  it("is all that counts where the caller decides", function()
    local own = { decide = function() return "retry" end }
    assert.is_true(retry.in_time(own, 1, 2))
    assert.is_false(retry.in_time(own, 0, 2))
  end)
end)
