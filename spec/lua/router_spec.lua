-- A router over real sockets: the fake server stands for the nodes.
local drover = require "drover"
local testing = require "drover.testing"

local servers, router = {}, nil


local function serve(replies)
  local server = testing.server(replies)
  servers[#servers + 1] = server
  return server
end


-- A router over these servers, tried in their order.
local function over(list, more)
  local conf = { nodes = {}, policy = "fallback", retry = { min = 0, max = 0 } }
  for i, server in ipairs(list) do
    conf.nodes[i] = { id = "n" .. i, url = server.url, price = 2 }
  end
  for name, value in pairs(more or {}) do
    conf[name] = value
  end
  router = assert(drover.new(conf))
  return router
end


local function cleanup()
  if router then
    router:close()
    router = nil
  end
  for _, server in ipairs(servers) do
    server:stop()
  end
  servers = {}
end


local function ask(text)
  return { model = "m",
           messages = { { role = "user", content = text or "hi" } } }
end


local function kinds(attempts)
  local list = {}
  for i, one in ipairs(attempts) do
    list[i] = one.node .. " " .. one.kind
  end
  return list
end


-- All that was taken has been given back.
local function assert_settled()
  assert.equal(0, router:stats().inflight)
  for _, node in ipairs(router:nodes()) do
    assert.equal(0, node.inflight)
  end
  assert.is_nil(next(router.active))
end


local dead = { url = "http://127.0.0.1:1/v1" }   -- nothing listens there


describe("router:chat()", function()
  after_each(cleanup)

  it("gives the reply, and what it took", function()
    local server = serve { testing.reply("hello") }
    local reply = assert(over({ server }):chat(ask()))
    assert.equal("hello", reply.choices[1].message.content)
    assert.equal(7, reply.usage.total_tokens)
    assert.equal("n1", reply.drover.node)
    assert.same({ "n1 ok" }, kinds(reply.drover.attempts))
    assert.equal(14e-6, reply.drover.cost)
    assert.is_true(reply.drover.seconds > 0)
    assert.is_nil(reply.drover.first_token_seconds)
    assert_settled()
  end)

  it("sends what was asked, once", function()
    local server = serve { testing.reply("x") }
    assert(over({ server }):chat(ask("über")))
    local all = server:requests()
    assert.equal(1, #all)
    assert.equal("/v1/chat/completions", all[1].path)
    assert.equal('{"model":"m","messages":[{"content":"über","role":"user"}]}',
                 all[1].body)
    assert.is_nil(all[1].headers.authorization)
  end)

  it("sends the node's key and the caller's headers", function()
    local server = serve { testing.reply("x") }
    router = drover.new { nodes = {
      { url = server.url, key = "sk-test-1234", models = { m = "theirs" } },
    } }
    assert(router:chat(ask(), { headers = { ["x-trace"] = "7" } }))
    local headers = server:requests()[1].headers
    assert.equal("Bearer sk-test-1234", headers.authorization)
    assert.equal("7", headers["x-trace"])
    assert.truthy(server:requests()[1].body:find('"model":"theirs"', 1, true))
  end)

  it("goes to another node at once where one is dead", function()
    local server = serve { testing.reply("x") }
    local reply = assert(over({ dead, server }):chat(ask()))
    assert.same({ "n1 unreachable", "n2 ok" }, kinds(reply.drover.attempts))
    assert.equal("n2", reply.drover.node)
    assert.is_false(reply.drover.attempts[1].maybe_billed)
    assert_settled()
  end)

  for _, case in ipairs {
    { 503, "overloaded" }, { 429, "rate_limited" }, { 401, "unauthorized" },
    { 402, "quota" }, { 500, "overloaded" }, { 504, "timeout" },
  } do
    it("goes to another node after HTTP " .. case[1], function()
      local bad = serve { testing.error(case[1], "no") }
      local good = serve { testing.reply("x") }
      local reply = assert(over({ bad, good }):chat(ask()))
      assert.same({ "n1 " .. case[2], "n2 ok" }, kinds(reply.drover.attempts))
      assert_settled()
    end)
  end

  for _, case in ipairs {
    { 400, "bad_request" }, { 404, "not_found" }, { 413, "too_large" },
  } do
    it("gives HTTP " .. case[1] .. " to the caller", function()
      local bad = serve { testing.error(case[1], "your fault") }
      local good = serve { testing.reply("x") }
      local reply, e = over({ bad, good }):chat(ask())
      assert.is_nil(reply)
      assert.equal(case[2], e.kind)
      assert.equal(case[1], e.status)
      assert.equal("n1", e.node)
      assert.equal("your fault", e.message)
      assert.is_false(e.retryable)
      assert.same({ "n1 " .. case[2] }, kinds(e.attempts))
      assert.equal(0, #good:requests())
      assert_settled()
    end)
  end

  it("asks the same node again where it is the only one", function()
    local server = serve { testing.error(503, "no"), testing.reply("x") }
    local reply = assert(over({ server }):chat(ask()))
    assert.same({ "n1 overloaded", "n1 ok" }, kinds(reply.drover.attempts))
    assert.equal(2, #server:requests())
  end)

  it("repeats once what may have been billed", function()
    local gone = { body = "", reset = true, cut = 0 }
    local a, b, c = serve { gone }, serve { gone }, serve { gone }
    local reply, e = over({ a, b, c }, {
      retry = { attempts = 5, min = 0, max = 0 },
    }):chat(ask())
    assert.is_nil(reply)
    assert.is_true(e.maybe_billed)
    assert.equal(2, #e.attempts)
    assert.equal(2, #a:requests() + #b:requests() + #c:requests())
    assert_settled()
  end)

  it("never repeats it where that is not wanted", function()
    local gone = { body = "", reset = true, cut = 0 }
    local a, b = serve { gone }, serve { gone }
    local _, e = over({ a, b }, {
      retry = { attempts = 5, ambiguous = "never" },
    }):chat(ask())
    assert.equal(1, #e.attempts)
    assert.equal(1, #a:requests() + #b:requests())
  end)

  it("stops at the total deadline", function()
    local server = serve { { hold = true } }
    local _, e = over({ server }):chat(ask(), { timeout = 0.05 })
    assert.equal("timeout", e.kind)
    assert.equal(1, #e.attempts)
    assert_settled()
  end)

  it("says what is wrong with a body that is no answer", function()
    for _, body in ipairs { "<html>", "{}", '{"choices":[]}', "",
                            '{"choices":{},"usage":"x"}' } do
      local server = serve { { body = body } }
      local _, e = over({ server }, { retry = { attempts = 1 } }):chat(ask())
      assert.equal("malformed", e.kind)
      assert.equal("decode", e.phase)
      cleanup()
    end
  end)

  it("reads an error in a body of 200", function()
    local server = serve { { body = { error = { message = "full",
                                                code = 503 } } } }
    local _, e = over({ server }, { retry = { attempts = 1 } }):chat(ask())
    assert.equal("overloaded", e.kind)
  end)

  it("shows no key and no prompt in an error", function()
    local server = serve {
      testing.error(400, "bad prompt SECRETPROMPT with sk-live-abc1234567"),
    }
    router = drover.new { nodes = {
      { id = "a", url = server.url, key = "sk-live-abc1234567" },
    } }
    local _, e = router:chat(ask("SECRETPROMPT"))
    assert.equal("a: bad_request (HTTP 400)", tostring(e))
    assert.is_nil(e.message:find("abc1234567", 1, true))
  end)

  it("asks the caller's retry function", function()
    local server = serve { testing.error(400, "no"), testing.reply("x") }
    local seen = {}
    local reply = assert(over({ server }, { retry = function(e, n, request)
      seen = { e.kind, n, request.model }
      return "retry", 0
    end }):chat(ask()))
    assert.same({ "bad_request", 1, "m" }, seen)
    assert.equal(2, #reply.drover.attempts)
  end)

  it("finds no node for a model that none takes", function()
    router = drover.new { nodes = { { url = dead.url, models = { "a" } } } }
    local _, e = router:chat(ask())
    assert.equal("not_found", e.kind)
    assert.equal("model_not_found", e.code)
    assert.equal("model", e.param)
    assert.matches("'m'", e.message)
    assert.same({}, e.attempts)
  end)

  it("is refused when the router is full", function()
    local server = serve { { hold = true } }
    over({ server }, { limits = { concurrent = 1 } })
    local task = drover.go(function()
      return router:chat(ask(), { timeout = 0.3 })
    end)
    local _, e = router:chat(ask())
    assert.equal("overloaded", e.kind)
    assert.equal("limit", e.phase)
    local _, first = drover.wait(task)
    assert.equal("timeout", first.kind)
    assert_settled()
  end)

  it("goes where opts.node says", function()
    local a, b = serve { testing.reply("a") }, serve { testing.reply("b") }
    over({ a, b })
    assert.equal("b", router:chat(ask(), { node = "n2" })
                            .choices[1].message.content)
    local _, e = router:chat(ask(), { node = "n9" })
    assert.equal("not_found", e.kind)
  end)

  it("takes JSON text as it is", function()
    local server = serve { testing.reply("x") }
    over({ server })
    local text = '{"model":"m","messages":[{"role":"user","content":"x"}],'
                 .. '"tools":[{"type":"function","function":{"name":"f",'
                 .. '"parameters":{"properties":{}}}}]}'
    assert(router:chat(drover.raw(text)))
    assert.equal(text, server:requests()[1].body)
  end)

  it("answers closed after close()", function()
    over({ dead })
    router:close()
    router:close()
    local _, e = router:chat(ask())
    assert.equal("closed", e.kind)
    router = nil
  end)

  for kind, stop in pairs {
    cancelled = function(flight) flight:cancel() end,
    closed = function() router:close() end,
  } do
    it("that waits to ask again ends at once as " .. kind, function()
      over({ serve { testing.error(503, "busy", {
        headers = { ["retry-after"] = "100" } }) } })
      local flight = assert(router:begin(ask()))
      local task = drover.go(function() return select(2, flight:reply()) end)
      local deadline = drover.now() + 20
      repeat drover.sleep(0.005) until flight.pause or drover.now() > deadline
      stop(flight)
      local e = drover.wait(task)
      assert.equal(kind, e.kind)
      assert.same({ "n1 overloaded" }, kinds(e.attempts))
      assert.is_true(drover.now() < deadline)
      assert.is_nil(next(router.active))
    end)
  end

  it("ends with closed when the router is closed meanwhile", function()
    local server = serve { { hold = true } }
    over({ server })
    local task = drover.go(function() return router:chat(ask()) end)
    drover.sleep(0)
    router:close()
    local reply, e = drover.wait(task)
    assert.is_nil(reply)
    assert.equal("closed", e.kind)
    router = nil
  end)
end)


describe("router:batch()", function()
  after_each(cleanup)

  local function many(n)
    local list = {}
    for i = 1, n do
      list[i] = ask("number " .. i)
    end
    return list
  end

  it("keeps the order, and counts what failed", function()
    local server = serve { testing.reply("x") }
    over({ server })
    local list = many(20)
    list[7] = { messages = 5 }
    local done = 0
    local results, failed = router:batch(list, {
      max_concurrent = 4, on_done = function() done = done + 1 end,
    })
    assert.equal(20, #results)
    assert.equal(1, failed)
    assert.equal(20, done)
    assert.is_true(drover.is_err(results[7]))
    assert.equal("bad_request", results[7].kind)
    assert.is_false(drover.is_err(results[8]))
    assert.equal(19, #server:requests())
    assert_settled()
  end)

  it("streams and joins", function()
    local server = serve { testing.stream { "a", "b" } }
    over({ server })
    local results = router:batch(many(5), { stream = true })
    for i = 1, 5 do
      assert.equal("ab", results[i].choices[1].message.content)
      assert.is_true(results[i].drover.first_token_seconds > 0)
    end
    assert_settled()
  end)

  it("sends a stream again that broke before anybody saw it", function()
    local broken = testing.stream { "a", "b", "c" }
    broken.cut = 3                      -- events: the role, "a", "b"
    over({ serve { broken }, serve { testing.stream { "x", "y" } } })
    local results, failed = router:batch(many(1), { stream = true })
    assert.equal(0, failed)
    assert.equal("xy", results[1].choices[1].message.content)
    assert.same({ "n1 truncated", "n2 ok" },
                kinds(results[1].drover.attempts))
    assert_settled()
  end)

  it("loses no slot where on_done raises", function()
    local server = serve { testing.reply("x") }
    over({ server })
    local results, failed, raised = router:batch(many(6), {
      max_concurrent = 2, on_done = function(i) error("at " .. i, 0) end,
    })
    assert.same({ 6, 0, "at 1" }, { #results, failed, raised })
    assert_settled()
  end)

  it("starts so many a second and no more", function()
    local server = serve { testing.reply("x") }
    over({ server })
    local before = require("drover.loop").get().now()
    router:batch(many(6), { rps = 50 })
    local took = require("drover.loop").get().now() - before
    assert.is_true(took >= 0.1)
  end)

  it("of nothing is nothing", function()
    over({ dead })
    assert.same({}, (router:batch({})))
  end)

  it("raises where its options are wrong", function()
    over({ dead })
    for field, opts in pairs {
      ["opts.rsp"] = { rsp = 5 }, ["opts.policy"] = { policy = "nope" },
      ["opts.max_concurrent"] = { max_concurrent = 0 },
    } do
      local ok, why = pcall(router.batch, router, { ask() }, opts)
      assert.is_false(ok)
      assert.truthy(tostring(why):find(field, 1, true), why)
    end
  end)
end)


describe("nodes", function()
  after_each(cleanup)

  it("come and go at run time", function()
    local a, b = serve { testing.reply("a") }, serve { testing.reply("b") }
    over({ a })
    assert.is_true(router:add { id = "b", url = b.url })
    assert.is_true(router:drain("n1"))
    assert.equal("b", router:chat(ask()).choices[1].message.content)
    assert.is_true(router:drain("n1", false))
    assert.is_true(router:remove("b"))
    assert.equal("a", router:chat(ask()).choices[1].message.content)
    local ok, e = router:remove("nobody")
    assert.is_nil(ok)
    assert.equal("not_found", e.kind)
  end)

  it("tell how they are", function()
    over({ dead })
    assert.is_true(router:report("n1", { memory_gb = 20, load = 10 }))
    local node = router:nodes()[1]
    assert.equal(20, node.memory_gb)
    assert.equal(10, node.load)
    router:pick():done { status = 200 }
    assert.equal(5, router:nodes()[1].load)
    assert.equal("up", node.state)
    assert.has_error(function() router:report("n1", { lood = 1 }) end)
    local stats = router:stats()
    assert.equal(1, stats.total_nodes)
    assert.equal(stats.nodes.n1.url, dead.url)
  end)

  it("are counted in the metrics", function()
    local server = serve { testing.reply("x") }
    over({ dead, server }):chat(ask())
    local text = router:metrics()
    for _, line in ipairs {
      'drover_attempts_total{node="n1",kind="unreachable"} 1',
      'drover_attempts_total{node="n2",kind="ok"} 1',
      'drover_requests_total{node="n2",outcome="ok"} 1',
      'drover_inflight{node="n2"} 0',
    } do
      assert.truthy(text:find(line, 1, true), line)
    end
  end)
end)


describe("router:pick()", function()
  after_each(cleanup)

  it("gives a ticket that is settled once", function()
    over({ dead })
    local ticket = assert(router:pick(ask()))
    assert.equal(dead.url, ticket.node.url)
    assert.equal(1, router:stats().inflight)
    assert.is_true(ticket:done { status = 200, first_token = 0.1, total = 0.5,
      usage = { prompt_tokens = 9, completion_tokens = 5 } })
    assert.is_false(ticket:done { status = 200 })
    assert.equal(0, router:stats().inflight)
    assert.equal(5, router:nodes()[1].output_tokens)
    assert.equal(14 * 2e-6, router:nodes()[1].cost)
  end)

  it("raises where done() is told nonsense", function()
    over({ dead })
    local ticket = router:pick()
    for _, outcome in ipairs { { kind = "nope" }, { state = 200 }, 5 } do
      assert.has_error(function() ticket:done(outcome) end)
    end
    assert.is_true(ticket:done { kind = "timeout" })
    assert.equal("timeout", router:nodes()[1].last_error)
  end)

  it("gives back a ticket that is dropped", function()
    over({ dead })
    local ticket = router:pick(ask())
    assert.truthy(ticket)
    ticket = nil
    collectgarbage()
    collectgarbage()
    assert.is_nil(ticket)
    assert.equal(0, router:stats().inflight)
  end)
end)
