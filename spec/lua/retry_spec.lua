-- Whether, where and when a failed attempt is followed by another.
local C = require "drover.core"
local backoff = require "drover.backoff"
local drover = require "drover"
local err = require "drover.err"
local libc = require "drover.testing.libc"
local pool = require "spec.support.pool"
local retry = require "drover.retry"
local testing = require "drover.testing"

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


-- ---- over real sockets ----

local over, cleanup, request = pool.over, pool.cleanup, pool.request
local chat_of, metric, says = pool.chat_of, pool.metric, pool.says


-- A port that nobody listens on.
local function nobody()
  local fd, port = libc.listen()
  libc.close(fd)
  return "http://127.0.0.1:" .. port .. "/v1"
end


describe("a failed request", function()
  after_each(cleanup)

  it("says what was empty", function()
    for _, reply in ipairs { { body = "" }, { body = "{}" }, chat_of {},
                             says(nil), { sse = { "[DONE]" } } } do
      over({ { reply } }, { retry = { attempts = 1 } })
      local _, e = pool.router:chat(request())
      assert.same({ "malformed", "empty_response" }, { e.kind, e.code })
      cleanup()
    end
    over({ { chat_of { { finish_reason = "tool_calls", message = {
      tool_calls = { { id = "a", ["function"] = { name = "f" } } } } } } } })
    assert(pool.router:chat(request()))
  end)

  it("is not tried again where the node says so", function()
    over({ { testing.error(503, "x", { headers = {
      ["x-should-retry"] = "false" } }) }, { testing.reply "ok" } })
    local _, e = pool.router:chat(request())
    assert.equal("overloaded", e.kind)
    assert.is_false(e.retryable)
    assert.equal(1, #e.attempts)
  end)

  it("goes by the status though the body was cut", function()
    local cut_short = testing.error(429, "slow down")
    cut_short.cut = 120
    over({ { cut_short } }, { retry = { attempts = 1 } })
    local _, e = pool.router:chat(request())
    assert.same({ "rate_limited", 429, false },
                { e.kind, e.status, e.maybe_billed })
  end)

  it("is not tried again in less time than it took to fail", function()
    over({ { { hold = true } }, { testing.reply "ok" } })
    local _, e = pool.router:stream(request(), {
      timeout = { first_token = 0.2, total = 0.3 } })
    assert.same({ "timeout", "first_token" }, { e.kind, e.phase })
    assert.equal(1, #e.attempts)
    cleanup()
    over({ { { hold = true } }, { testing.reply "ok" } })
    assert(pool.router:stream(request(), {
      timeout = { first_token = 0.5, total = 20 } }))
  end)

  it("that goes on without content is broken", function()
    local events = {}
    for i = 1, 5000 do
      events[i] = '{"choices":[]}'
    end
    over({ { { sse = events } }, { testing.stream { "ok" } } })
    local stream = assert(pool.router:stream(request()))
    assert.equal("malformed", stream.flight.ledger[1].kind)
    assert.equal("ok", stream:join().choices[1].message.content)
  end)

  it("counts for the node that failed last", function()
    over({ { testing.error(400, "no") }, { testing.reply "ok" } })
    pool.router:chat(request())
    assert.truthy(pool.router:metrics():find(
      'drover_requests_total{node="n1",outcome="bad_request"} 1', 1, true))
    cleanup()
    over({ { testing.error(503, "no") }, { testing.error(503, "no") } }, {
      retry = { attempts = 3, min = 0, max = 0 } })
    for _ = 1, 40 do                    -- the reserve is used up
      C.drover_retry_take(pool.router.handle, drover.now())
    end
    pool.router:chat(request())
    assert.truthy(pool.router:metrics():find(
      'drover_requests_total{node="n1",outcome="overloaded"} 1', 1, true))
    assert.equal(0, #pool.servers[2]:requests())
  end)

  it("that is cancelled before it is sent is never sent", function()
    over({ { testing.reply "ok" } })
    local flight = assert(pool.router:begin(request(), nil, false))
    flight:cancel()
    local _, e = flight:reply()
    assert.same({ "cancelled", 0 }, { e.kind, #e.attempts })
    assert.equal(0, #pool.servers[1]:requests())
    assert.equal(0, pool.router:stats().inflight)
  end)

  it("is sent once, however often it is asked for", function()
    over({ { testing.reply "one" }, { testing.reply "two" } })
    local flight = assert(pool.router:begin(request()))
    assert(flight:reply())
    assert.has_error(function() flight:reply() end,
                     "a flight is sent once; begin another")
    assert.equal(0, #pool.servers[2]:requests())
    assert.equal(0, pool.router:stats().inflight)
  end)

  it("is not sent again behind the deadline, whatever took the time", function()
    over({ { testing.error(503, "full") }, { testing.reply "late" } }, {
      retry = function()
        local deadline = drover.now() + 0.4
        repeat until drover.now() > deadline
        return "other_node"
      end })
    local reply, e = pool.router:chat(request(), { timeout = 0.4 })
    assert.is_nil(reply)
    assert.same({ "overloaded", 1 }, { e.kind, #e.attempts })
    assert.equal(0, #pool.servers[2]:requests())
    assert.equal(0, pool.router:stats().inflight)
  end)

  it("survives a function that spoils the error", function()
    over({ { testing.error(503, "full") }, { testing.reply "ok" } }, {
      retry = function(e)
        e.kind, e.attempts, e.retry_after, e.node = nil, nil, "x", {}
        return "retry"
      end })
    assert(pool.router:chat(request()))
    pool.router:drain("n2")
    local _, e = pool.router:chat(request())
    assert.same({ "overloaded", "n1" }, { e.kind, e.node })
  end)

  it("is retried by a function until the deadline", function()
    over({ { testing.error(400, "no") } }, {
      retry = function() return "retry", 0.6 end })
    local _, e = pool.router:chat(request(), { timeout = 1 })
    assert.same({ "bad_request", 2 }, { e.kind, #e.attempts })
  end)
end)


describe("the budget of retries", function()
  after_each(cleanup)

  it("lets no more than a fifth and its reserve be sent again", function()
    over({ { testing.error(503, "full") } })
    for _ = 1, 100 do
      pool.router:chat(request())
      C.drover_node_clear(pool.router.handle, "n1", drover.now())
    end
    local sends = #pool.servers[1]:requests()
    assert.is_true(sends > 100 and sends <= 1.2 * 100 + 11, sends)
    assert.is_true(metric("drover_retry_denied_total") > 0)
    assert.equal(0, pool.router:stats().inflight)
  end)

  it("holds over a function", function()
    over({ { testing.error(503, "full") } }, {
      retry = function() return "retry", 0 end })
    for _ = 1, 10 do
      pool.router:chat(request())
      C.drover_node_clear(pool.router.handle, "n1", drover.now())
    end
    assert.is_true(#pool.servers[1]:requests() <= 1.2 * 10 + 11)
  end)

  it("does not pay for what never left, once a request", function()
    over({ { testing.reply "ok" } }, { nodes = {
      { id = "a", url = nobody() }, { id = "b", url = nobody() },
      { id = "c", url = nobody() } } })
    for _ = 1, 40 do                    -- the reserve is used up
      C.drover_retry_take(pool.router.handle, drover.now())
    end
    local denied = metric("drover_retry_denied_total")
    local _, e = pool.router:chat(request())
    assert.equal("unreachable", e.kind)
    assert.equal(2, #e.attempts)
    assert.equal(denied + 1, metric("drover_retry_denied_total"))
    assert.equal(0, pool.router:stats().inflight)
  end)
end)


describe("a node that asks for time", function()
  after_each(cleanup)

  it("is left alone for that, and then asked again", function()
    over({ { testing.error(429, "slow", { headers = {
      ["retry-after-ms"] = "60" } }), testing.reply "ok" } })
    local begun = drover.now()
    local reply = assert(pool.router:chat(request()))
    assert.equal(2, #reply.drover.attempts)
    assert.is_true(drover.now() - begun >= 0.06)
  end)

  it("is not waited for past the deadline", function()
    over({ { testing.error(429, "slow", { headers = {
      ["retry-after"] = "3" } }) } })
    local begun = drover.now()
    local _, e = pool.router:chat(request(), { timeout = 2 })
    assert.same({ "rate_limited", 3, 1 }, { e.kind, e.retry_after,
                                            #e.attempts })
    assert.is_true(drover.now() - begun < 2)
  end)

  it("is kept back by its own headers before it says no", function()
    local reply = testing.reply "ok"
    reply.headers = { ["x-ratelimit-limit-requests"] = "60",
                      ["x-ratelimit-remaining-requests"] = "1",
                      ["x-ratelimit-reset-requests"] = "50s" }
    over({ { reply } }, { retry = { attempts = 1 } })
    assert(pool.router:chat(request()))
    assert(pool.router:chat(request()))
    local _, e = pool.router:chat(request())
    assert.truthy(e)
    assert.equal(0, #e.attempts)
    assert.equal(2, #pool.servers[1]:requests())
  end)
end)


describe("a key that was refused", function()
  after_each(cleanup)

  it("is not asked again, until its file holds another", function()
    local path = os.tmpname()
    local function write(text)
      local file = assert(io.open(path, "w"))
      file:write(text)
      file:close()
    end
    write "sk-first-key"
    over({ { testing.error(401, "no"), testing.reply "ok" } }, {
      retry = { attempts = 1 } })
    pool.router:close()
    pool.router = assert(drover.new { nodes = { {
      id = "n1", url = pool.servers[1].url, key = { file = path } } } })
    local _, e = pool.router:chat(request())
    assert.equal("unauthorized", e.kind)
    _, e = pool.router:chat(request())
    assert.equal("no_node", e.kind)
    pool.router.fleet:refresh_keys(pool.router.handle, drover.now())
    _, e = pool.router:chat(request())
    assert.equal("no_node", e.kind)
    write "sk-second-key"
    pool.router.fleet:refresh_keys(pool.router.handle, drover.now())
    assert(pool.router:chat(request()))
    assert.equal("Bearer sk-second-key",
                 pool.servers[1]:requests()[2].headers.authorization)
    os.remove(path)
  end)
end)
