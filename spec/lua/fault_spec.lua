-- Many requests over nodes that fail in many ways: each ends once, each body
-- on the wire is one attempt in a ledger, and all that was taken comes back.
local C = require "drover.core"
local drover = require "drover"
local libc = require "drover.testing.libc"
local random = require "drover.random"
local testing = require "drover.testing"

local SEEDS, REQUESTS = { 1, 2, 3 }, 60


local function cut(n, more)
  local reply = testing.stream { "a", "b", "c" }
  reply.cut = n
  for name, value in pairs(more or {}) do
    reply[name] = value
  end
  return reply
end


-- What a node may do, by the number drawn.
local faults = {
  function() return testing.error(503, "full") end,
  function() return testing.error(500, "broken") end,
  function() return testing.error(429, "slow") end,
  function() return testing.error(400, "yours") end,
  function() return { body = "<html>" } end,
  function() return { body = "", cut = 0 } end,
  function() return { body = "", cut = 0, reset = true } end,
  function() return cut(0) end,
  function() return cut(1) end,
  function() return cut(2) end,
  function() return cut(3, { reset = true }) end,
  function() return { sse = { "{" } } end,
  function() return { hold = true } end,
}


local function replies(rnd, count)
  local list = {}
  for i = 1, count do
    local n = math.floor(rnd() * 26) + 1
    local fault = faults[n]
    list[i] = fault and fault() or n % 2 == 0 and testing.reply("ok")
              or testing.stream { "o", "k" }
  end
  return list
end


local function request()
  return { model = "m", messages = { { role = "user", content = "hi" } } }
end


-- One request in one of the ways. Returns its ledger.
local function one(router, draw)
  local opts = { timeout = { total = 0.5, first_token = 0.2, idle = 0.2 } }
  if draw < 0.4 then
    local reply, e = router:chat(request(), opts)
    return reply and reply.drover.attempts or e.attempts
  end
  local stream, e = router:stream(request(), opts)
  if not stream then
    return e.attempts
  end
  if draw < 0.6 then
    stream:cancel()
    return stream.err.attempts
  end
  local reply
  reply, e = stream:join()
  return reply and reply.drover.attempts or e.attempts
end


local function run(seed)
  local rnd = random.new(seed)
  local servers, nodes = {}, {}
  for i = 1, 3 do
    servers[i] = testing.server(replies(rnd, 200))
    nodes[i] = { id = "n" .. i, url = servers[i].url }
  end
  local router = drover.new { nodes = nodes, policy = "round_robin",
                              retry = { min = 0, max = 0.01 } }
  local sent, ended, tasks = 0, 0, {}
  for i = 1, REQUESTS do
    local draw = rnd()
    tasks[i] = drover.go(function()
      local ledger = one(router, draw)  -- waits: `sent` is read after it
      sent = sent + #ledger
      ended = ended + 1
    end)
    if i % 10 == 0 then
      drover.wait(unpack(tasks, i - 9, i))
    end
  end
  return router, servers, sent, ended
end


describe("a router over nodes that fail", function()
  for _, seed in ipairs(SEEDS) do
    it("ends each request once and loses nothing, seed " .. seed, function()
      local router, servers, sent, ended = run(seed)
      assert.equal(REQUESTS, ended)
      assert.equal(0, router:stats().inflight)
      assert.equal(REQUESTS, router:stats().total_requests)
      assert.is_nil(next(router.active))
      assert.equal(0, require("drover.loop.calls").count())
      local received, counted = 0, 0
      for _, server in ipairs(servers) do
        received = received + #server:requests()
        server:stop()
      end
      for _, n in (router:metrics()):gmatch(
        "drover_attempts_total{node=\"([^\"]*)\",kind=\"[^\"]*\"} (%d+)") do
        counted = counted + tonumber(n)
      end
      assert.equal(received, sent)
      assert.equal(received, counted)
      router:close()
    end)
  end
end)


-- ---- one request over one or two nodes ----

local DONE = { prompt_tokens = 5, completion_tokens = 2, total_tokens = 7 }
local servers, router = {}, nil


-- A router over servers with these lists of replies, in this order.
local function over(lists, more)
  local conf = { nodes = {}, policy = "fallback", retry = { min = 0, max = 0 } }
  for i, list in ipairs(lists) do
    servers[i] = testing.server(list)
    conf.nodes[i] = { id = "n" .. i, url = servers[i].url,
                      price = { input = 1e6, output = 1e6 } }
  end
  for name, value in pairs(more or {}) do
    conf[name] = value
  end
  router = assert(drover.new(conf))
  return router
end


local function cleanup()
  router:close()
  for i, server in pairs(servers) do
    server:stop()
    servers[i] = nil
  end
end


local function chat_of(choices, usage)
  return { status = 200, body = { id = "x", choices = choices,
                                  usage = usage } }
end


local function says(content, usage)
  return chat_of({ { index = 0, finish_reason = "stop", message = {
    role = "assistant", content = content } } }, usage)
end


describe("each attempt", function()
  after_each(cleanup)

  it("tells how long we wait, and is known as the same request", function()
    over({ { testing.error(503, "full") }, { testing.reply "ok" } })
    for _ = 1, 2 do
      assert(router:chat(request(), { timeout = 30 }))
    end
    local first, second = servers[1]:requests(), servers[2]:requests()
    assert.equal(2, #second)
    local seen = {}
    for i = 1, 2 do
      local a, b = first[i].headers, second[i].headers
      assert.matches("^drover%-%x+%-%d+$", a["idempotency-key"])
      assert.equal(a["idempotency-key"], b["idempotency-key"])
      assert.is_nil(seen[a["idempotency-key"]])
      seen[a["idempotency-key"]] = true
      local left, later = tonumber(a["x-request-timeout-ms"]),
                          tonumber(b["x-request-timeout-ms"])
      assert.is_true(later > 0 and later <= left and left <= 30000)
    end
  end)

  it("leaves a caller's own words for that to stand", function()
    over({ { testing.reply "ok" } })
    assert(router:chat(request(), { headers = {
      ["Idempotency-Key"] = "mine", ["X-Request-Timeout-Ms"] = "7" } }))
    local headers = servers[1]:requests()[1].headers
    assert.equal("mine", headers["idempotency-key"])
    assert.equal("7", headers["x-request-timeout-ms"])
  end)
end)


describe("what an attempt is charged with", function()
  after_each(cleanup)

  it("is the node's usage", function()
    over({ { says("hello", DONE) } })
    local reply = assert(router:chat(request()))
    assert.is_nil(reply.drover.estimated)
    assert.is_nil(reply.drover.attempts[1].estimated)
    assert.equal(7, reply.drover.cost)
    assert.equal(2, router:nodes()[1].output_tokens)
  end)

  for name, usage in pairs { none = false, zero = { prompt_tokens = 0,
                                                    completion_tokens = 0 },
                             absurd = { prompt_tokens = 2 ^ 63,
                                        completion_tokens = -1 } } do
    it("is estimated where the usage is " .. name, function()
      over({ { says(("x"):rep(35), usage or nil) } })
      local reply = assert(router:chat(request()))
      assert.is_true(reply.drover.estimated)
      assert.is_true(reply.drover.attempts[1].estimated)
      local node = router:nodes()[1]
      assert.equal(10, node.output_tokens)
      assert.is_true(node.input_tokens > 0)
      assert.equal(node.input_tokens + 10, reply.drover.cost)
    end)
  end

  it("is the prompt and the text that came where a stream is cut", function()
    local reply = testing.stream { ("x"):rep(35), "y" }
    reply.cut = 2
    over({ { reply } })
    local _, e = router:stream(request()):join()
    assert.equal("truncated", e.kind)
    assert.is_true(e.attempts[1].estimated)
    assert.equal(10, router:nodes()[1].output_tokens)
    assert.is_true(router:nodes()[1].input_tokens > 0)
  end)

  it("is what the limit of tokens keeps of its booking", function()
    local function ask()
      local asked = request()
      asked.max_tokens = 900
      return router:chat(asked)
    end
    over({ { says("hello", DONE), testing.error(503, "full"),
             testing.error(500, "broken"), says(("x"):rep(3150)) } }, {
      limits = { tpm = 60, burst = { tokens = 1000 } },
      retry = { attempts = 1 } })
    assert(ask())                       -- 7 tokens
    for _, kind in ipairs { "overloaded", "overloaded" } do
      local _, e = ask()                -- none, and the prompt's
      assert.equal(kind, e.kind)
    end
    assert(ask())                       -- 900 and the prompt's
    local _, e = ask()
    assert.equal("rate_limited", e.kind)
    assert.equal(0, #e.attempts)
  end)

  it("is nothing where the node refused, and the prompt where it may not have",
     function()
    over({ { testing.error(503, "full") }, { testing.error(500, "broken") } })
    local _, e = router:chat(request())
    local nodes = router:nodes()
    assert.equal(0, nodes[1].input_tokens)
    assert.is_true(nodes[2].input_tokens > 0)
    assert.equal(0, nodes[2].output_tokens)
    assert.is_nil(e.attempts[1].estimated)
    assert.is_true(e.attempts[2].estimated)
    assert.is_true(e.maybe_billed)
  end)
end)


describe("a failed request", function()
  after_each(cleanup)

  it("says what was empty", function()
    for _, reply in ipairs { { body = "" }, { body = "{}" }, chat_of {},
                             says(nil), { sse = { "[DONE]" } } } do
      over({ { reply } }, { retry = { attempts = 1 } })
      local _, e = router:chat(request())
      assert.same({ "malformed", "empty_response" }, { e.kind, e.code })
      cleanup()
    end
    over({ { chat_of { { finish_reason = "tool_calls", message = {
      tool_calls = { { id = "a", ["function"] = { name = "f" } } } } } } } })
    assert(router:chat(request()))
  end)

  it("is not tried again where the node says so", function()
    over({ { testing.error(503, "x", { headers = {
      ["x-should-retry"] = "false" } }) }, { testing.reply "ok" } })
    local _, e = router:chat(request())
    assert.equal("overloaded", e.kind)
    assert.is_false(e.retryable)
    assert.equal(1, #e.attempts)
  end)

  it("goes by the status though the body was cut", function()
    local cut_short = testing.error(429, "slow down")
    cut_short.cut = 120
    over({ { cut_short } }, { retry = { attempts = 1 } })
    local _, e = router:chat(request())
    assert.same({ "rate_limited", 429, false },
                { e.kind, e.status, e.maybe_billed })
  end)

  it("is not tried again in less time than it took to fail", function()
    over({ { { hold = true } }, { testing.reply "ok" } })
    local _, e = router:stream(request(), {
      timeout = { first_token = 0.2, total = 0.3 } })
    assert.same({ "timeout", "first_token" }, { e.kind, e.phase })
    assert.equal(1, #e.attempts)
    cleanup()
    over({ { { hold = true } }, { testing.reply "ok" } })
    assert(router:stream(request(), {
      timeout = { first_token = 0.1, total = 20 } }))
  end)

  it("that goes on without content is broken", function()
    local events = {}
    for i = 1, 5000 do
      events[i] = '{"choices":[]}'
    end
    over({ { { sse = events } }, { testing.stream { "ok" } } })
    local stream = assert(router:stream(request()))
    assert.equal("malformed", stream.flight.ledger[1].kind)
    assert.equal("ok", stream:join().choices[1].message.content)
  end)

  it("is retried by a function until the deadline", function()
    over({ { testing.error(400, "no") } }, {
      retry = function() return "retry", 0.03 end })
    local _, e = router:chat(request(), { timeout = 0.2 })
    assert.equal("bad_request", e.kind)
    assert.is_true(#e.attempts > 1 and #e.attempts < 8)
  end)
end)


-- A port that nobody listens on.
local function nobody()
  local fd, port = libc.listen()
  libc.close(fd)
  return "http://127.0.0.1:" .. port .. "/v1"
end


-- The value of a series of the router's metrics.
local function metric(name)
  return tonumber(router:metrics():match("\n" .. name .. " (%d+)"))
end


describe("the budget of retries", function()
  after_each(cleanup)

  it("lets no more than a fifth and its reserve be sent again", function()
    over({ { testing.error(503, "full") } })
    for _ = 1, 100 do
      router:chat(request())
      C.drover_node_clear(router.handle, "n1", drover.now())
    end
    local sends = #servers[1]:requests()
    assert.is_true(sends > 100 and sends <= 1.2 * 100 + 11, sends)
    assert.is_true(metric("drover_retry_denied_total") > 0)
    assert.equal(0, router:stats().inflight)
  end)

  it("holds over a function", function()
    over({ { testing.error(503, "full") } }, {
      retry = function() return "retry", 0 end })
    for _ = 1, 10 do
      router:chat(request())
      C.drover_node_clear(router.handle, "n1", drover.now())
    end
    assert.is_true(#servers[1]:requests() <= 1.2 * 10 + 11)
  end)

  it("does not pay for what never left, once a request", function()
    over({ { testing.reply "ok" } }, { nodes = {
      { id = "a", url = nobody() }, { id = "b", url = nobody() },
      { id = "c", url = nobody() } } })
    for _ = 1, 40 do                    -- the reserve is used up
      C.drover_retry_take(router.handle, drover.now())
    end
    local denied = metric("drover_retry_denied_total")
    local _, e = router:chat(request())
    assert.equal("unreachable", e.kind)
    assert.equal(2, #e.attempts)
    assert.equal(denied + 1, metric("drover_retry_denied_total"))
    assert.equal(0, router:stats().inflight)
  end)
end)


describe("a node that asks for time", function()
  after_each(cleanup)

  it("is left alone for that, and then asked again", function()
    over({ { testing.error(429, "slow", { headers = {
      ["retry-after-ms"] = "60" } }), testing.reply "ok" } })
    local begun = drover.now()
    local reply = assert(router:chat(request()))
    assert.equal(2, #reply.drover.attempts)
    assert.is_true(drover.now() - begun >= 0.06)
  end)

  it("is not waited for past the deadline", function()
    over({ { testing.error(429, "slow", { headers = {
      ["retry-after"] = "3" } }) } })
    local begun = drover.now()
    local _, e = router:chat(request(), { timeout = 2 })
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
    assert(router:chat(request()))
    assert(router:chat(request()))
    local _, e = router:chat(request())
    assert.truthy(e)
    assert.equal(0, #e.attempts)
    assert.equal(2, #servers[1]:requests())
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
    router:close()
    router = assert(drover.new { nodes = { {
      id = "n1", url = servers[1].url, key = { file = path } } } })
    local _, e = router:chat(request())
    assert.equal("unauthorized", e.kind)
    _, e = router:chat(request())
    assert.equal("no_node", e.kind)
    router.fleet:refresh_keys(router.handle, drover.now())
    _, e = router:chat(request())
    assert.equal("no_node", e.kind)
    write "sk-second-key"
    router.fleet:refresh_keys(router.handle, drover.now())
    assert(router:chat(request()))
    assert.equal("Bearer sk-second-key",
                 servers[1]:requests()[2].headers.authorization)
    os.remove(path)
  end)
end)


describe("a stream with a quirk", function()
  after_each(cleanup)

  it("is whole, and counted", function()
    local bare = testing.stream { "a" }
    bare.cut = 3                        -- its finish reason, no end mark
    local unfinished = { sse = { { choices = { { delta = { content = "a" } } } },
                                 "[DONE]" } }
    over({ { testing.stream { "a" }, bare, unfinished } })
    for i = 0, 2 do
      local reply = assert(router:stream(request()):join())
      assert.equal("stop", reply.choices[1].finish_reason)
      assert.equal(i, metric("drover_stream_quirks_total") or 0)
    end
  end)
end)
