-- Whether, where and when a failed attempt is followed by another.
local backoff = require "drover.backoff"
local err = require "drover.err"
local retry = require "drover.retry"
local retry_after = require "drover.provider.retry_after"

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
    local function pause(s)
      return retry.pause(usual, err.new("rate_limited", nil,
                                        { retry_after = s }), 1, 0.5)
    end
    assert.equal(2, pause(2))
    assert.equal(0.25, pause(0))
    assert.is_nil(pause(121))
  end)
end)


describe("retry_after.read()", function()
  local rows = {
    { { ["retry-after"] = "2" }, 2 }, { { ["retry-after"] = "1.5" }, 1.5 },
    { { ["retry-after"] = "0" }, 0 },
    { { ["retry-after-ms"] = "0", ["retry-after"] = "1" }, 1 },
    { { ["retry-after-ms"] = "1500" }, 1.5 },
    { { ["retry-after"] = "-1" } }, { { ["retry-after"] = "inf" } },
    { { ["retry-after"] = "nan" } }, { { ["retry-after"] = "0x10" } },
    { { ["retry-after"] = "" } }, { { ["retry-after"] = "1e309" } },
    { { ["retry-after"] = ("9"):rep(8192) } },
    { { ["retry-after"] = "99999999999999999999" }, 1e20 },
    { { ["retry-after"] = "Sun, 06 Nov 1994 08:49:47 GMT",
        date = "Sun, 06 Nov 1994 08:49:37 GMT" }, 10 },
    { { ["retry-after"] = "Sunday, 06-Nov-94 08:49:47 GMT",
        date = "Sun, 06 Nov 1994 08:49:37 GMT" }, 10 },
    { { ["retry-after"] = "Sun Nov  6 08:49:47 1994",
        date = "Sun, 06 Nov 1994 08:49:37 GMT" }, 10 },
    { { ["retry-after"] = "Sun, 06 Nov 1994 08:49:07 GMT",
        date = "Sun, 06 Nov 1994 08:49:37 GMT" }, 0 },
    { { ["x-ratelimit-remaining-requests"] = "0",
        ["x-ratelimit-reset-requests"] = "6m0s",
        ["x-ratelimit-remaining-tokens"] = "5",
        ["x-ratelimit-reset-tokens"] = "1h" }, 360 },
    { {}, 34.4, "34.4s" },
    { {}, 9.816, nil, "Please try again in 9.816s. Visit …" },
    { {}, 0.132, nil, "try again in 132ms" },
  }
  for i, row in ipairs(rows) do
    it("reads spelling " .. i, function()
      local got = retry_after.read(row[1], row[3], row[4])
      if row[2] then
        assert.is_true(math.abs(row[2] - got) < 1e-9)
      else
        assert.is_nil(got)
      end
    end)
  end
end)
