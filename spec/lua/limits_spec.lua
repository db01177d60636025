-- What limits let pass, whom they stop, and in which words; through a real
-- router, most of it by tickets (router:pick), so that nothing is sent.
local drover = require "drover"
local limits = require "drover.limits"
local redis = require "drover.redis"
local testing = require "drover.testing"
local tokens = require "drover.tokens"

local hi = { { role = "user", content = "hi" } }


describe("limits.read()", function()
  it("completes named limits from those of their scope", function()
    local l = assert(limits.read({ per = { tenant = {
      rpm = 10, tpm = 100, burst = { requests = 3 },
      named = { ann = { rpm = 20, burst = { tokens = 7 } },
                bob = { tpm = false }, vip = { rpm = false } },
    } } }, "limits")).per.tenant
    assert.same({ rpm = 20, tpm = 100, burst = { requests = 3, tokens = 7 } },
                l.named.ann)
    assert.same({ rpm = 10, tpm = false, burst = { requests = 3 } },
                l.named.bob)
    assert.same({ rpm = false, tpm = 100, burst = {} }, l.named.vip)
  end)

  it("has 100 at once and no wait by default", function()
    local l = assert(limits.read(nil, "limits"))
    assert.equal(100, l.concurrent)
    assert.equal(0, l.wait)
    assert.is_nil(limits.compile(l))
  end)

  it("gives local nodes a price of 0 under dollars", function()
    local l = assert(limits.read({ dollars_per_day = 1 }, "limits"))
    local row = { id = "a", group = "a", where = "nodes[1]",
                  engine_path = "x.gguf" }
    assert.is_nil(limits.assign(l, { row }))
    assert.same({ input = 0, output = 0 }, row.price)
  end)

  it("lets a node's own limits lift those of all nodes", function()
    local l = assert(limits.read({ per = { node = {
      rpm = 10, named = { b = { rpm = 5 } } } } }, "limits"))
    local rows = {
      { id = "a", group = "a", where = "nodes[1]",
        own_limits = { rpm = false, tpm = 9 } },
      { id = "b#2", group = "b", where = "nodes[2]" },
      { id = "c", group = "c", where = "nodes[3]" },
    }
    assert.is_nil(limits.assign(l, rows))
    assert.same({ rpm = false, tpm = 9 }, rows[1].node_limits)
    assert.equal(5, rows[2].node_limits.rpm)
    assert.equal(10, rows[3].node_limits.rpm)
  end)
end)


describe("limits.redis", function()
  local rows = {
    { "redis://cache", "cache", 6379, 0 },
    { "redis://:s3cret@cache:7000/3", "cache", 7000, 3, "s3cret" },
    { "redis://user:a@b@10.0.0.1:1/", "10.0.0.1", 1, 0, "a@b", "user" },
    { "redis://[::1]:6380/1", "::1", 6380, 1 },
  }
  for _, row in ipairs(rows) do
    it("reads " .. row[1], function()
      local r = assert(redis.read({ url = row[1] }, "limits.redis"))
      assert.same({ row[2], row[3], row[4], row[5], row[6] },
                  { r.host, r.port, r.db, r.password, r.user })
      assert.same({ 2, 2, "drover" }, { r.hosts, r.lease, r.prefix })
    end)
  end

  for _, url in ipairs { "redis://", "redis://a:0", "redis://a:x",
                         "redis://user@a", "redis://a/x", "rediss://a",
                         "redis://a b", "redis://a:1:2" } do
    it("refuses " .. url, function()
      local r, why = redis.read({ url = url }, "limits.redis")
      assert.is_nil(r)
      assert.matches("^limits%.redis%.url: must be", why)
    end)
  end

  it("does not say a password in a refusal", function()
    local _, why = redis.read({ url = "redis://:s3cret@a:99999" },
                              "limits.redis")
    assert.is_nil(why:find("s3cret", 1, true))
  end)
end)


describe("an estimate", function()
  it("counts bytes, messages, parts and tools", function()
    assert.equal(9, tokens.of_messages(hi))
    assert.equal(8 + 2 + 256, tokens.of_messages {
      { role = "user", content = { { type = "text", text = "12345" },
                                   { type = "image_url" } } } })
    local plain = tokens.of_request { messages = hi }
    local tools = tokens.of_request { messages = hi, tools = {
      { type = "function", ["function"] = { name = ("x"):rep(350) } } } }
    assert.is_true(tools - plain >= 100)
    local call = { { role = "assistant", tool_calls = {
      { id = "a", ["function"] = { arguments = ("x"):rep(350) } } } } }
    assert.is_true(tokens.of_messages(call) >= 108)
  end)

  it("is never zero", function()
    assert.equal(1, tokens.of_request {})
    assert.is_true(tokens.of_request { input = "a text" } > 1)
  end)

  it("ends with tables that hold themselves", function()
    local t = {}
    t.t = t
    assert.is_true(tokens.of_request { tools = t } > 1)
  end)

  it("of an answer follows those that came", function()
    local lengths = tokens.lengths()
    assert.equal(256, tokens.expect(lengths, "m"))
    for _ = 1, 100 do
      tokens.learn(lengths, "m", 10)
    end
    assert.equal(11, tokens.expect(lengths, "m"))
    assert.equal(256, tokens.expect(lengths, "other"))
  end)

  it("remembers a bounded number of models", function()
    local lengths = tokens.lengths()
    for i = 1, 3000 do
      tokens.learn(lengths, "m" .. i, 10)
    end
    local count = 0
    for _ in pairs(lengths.of) do
      count = count + 1
    end
    assert.is_true(count <= 1025, count)
  end)
end)


describe("a limit", function()
  local router

  local function open(conf, node)
    local n = { id = "n", url = "http://127.0.0.1:9/v1" }
    for k, v in pairs(node or {}) do
      n[k] = v
    end
    router = drover.new { nodes = { n }, limits = conf }
    return router
  end
  after_each(function()
    if router then
      router:close()
      router = nil
    end
  end)

  -- Pick; what was refused, as kind, code, the message's field.
  local function refused(request, opts)
    local ticket, e = router:pick(request, opts)
    assert.is_nil(ticket)
    assert.equal("limit", e.phase)
    assert.equal(0, #e.attempts)
    return e.kind, e.code, e.message:match("^([%w_.]+): "), e.retry_after
  end

  it("of requests a minute says which and when", function()
    open { rpm = 60 }
    assert(router:pick())
    local kind, code, field, wait = refused()
    assert.same({ "rate_limited", "router_rpm", "limits.rpm" },
                { kind, code, field })
    assert.is_true(wait > 0 and wait <= 1, wait)
  end)

  it("has a burst where one is named", function()
    open { rpm = 60, burst = { requests = 3 } }
    for _ = 1, 3 do
      assert(router:pick())
    end
    assert.equal("rate_limited", (refused()))
  end)

  it("of tenants is each tenant's own", function()
    open { per = { tenant = { rpm = 60, named = {
      big = { rpm = 120, burst = { requests = 2 } },
      free = { rpm = false } } } } }
    assert(router:pick(nil, { key = "ann" }))
    assert(router:pick(nil, { key = "bob" }))
    local kind, code, field = refused(nil, { key = "ann" })
    assert.same({ "rate_limited", "tenant_rpm", "limits.per.tenant.rpm" },
                { kind, code, field })
    assert(router:pick(nil, { key = "big" }))
    assert(router:pick(nil, { key = "big" }))
    refused(nil, { key = "big" })
    for _ = 1, 5 do
      assert(router:pick(nil, { key = "free" }))
      assert(router:pick())
    end
  end)

  it("of models is each model's own", function()
    open { per = { model = { named = { big = { rpm = 60 } } } } }
    assert(router:pick { model = "big" })
    local _, code, field = refused { model = "big" }
    assert.same({ "model_rpm", "limits.per.model.rpm" }, { code, field })
    assert(router:pick { model = "small" })
    assert(router:pick { model = "small" })
  end)

  it("of a node sends the rest to the others", function()
    router = drover.new { limits = { per = { node = { rpm = 60 } } }, nodes = {
      { id = "a", url = "http://127.0.0.1:9/v1" },
      { id = "b", url = "http://127.0.0.1:9/v2" } } }
    local seen = {}
    for _ = 1, 2 do
      seen[assert(router:pick()).node.id] = true
    end
    assert.same({ a = true, b = true }, seen)
    local kind, code, field, wait = refused()
    assert.same({ "rate_limited", "node_rpm", "limits.per.node.rpm" },
                { kind, code, field })
    assert.is_true(wait > 0 and wait <= 1)
  end)

  it("of a node counts all its keys, of a key its own", function()
    local keys = { "aaaa1111", "bbbb2222" }
    open({ per = { key = { rpm = 60 } } }, { keys = keys })
    assert(router:pick())
    assert(router:pick())
    assert.equal("key_rpm", select(2, refused()))
    router:close()
    open({}, { keys = keys, limits = { rpm = 60 } })
    assert(router:pick())
    assert.equal("node_rpm", select(2, refused()))
  end)

  it("of tokens books what is asked and gives back what is not used",
  function()
    open { tpm = 1000, burst = { tokens = 1000 } }
    local ask = { messages = hi, max_tokens = 900 }
    local ticket = assert(router:pick(ask))
    local kind, code, field = refused(ask)
    assert.same({ "rate_limited", "router_tpm", "limits.tpm" },
                { kind, code, field })
    assert.equal(909, router:stats().reserved_tokens)
    ticket:done { usage = { prompt_tokens = 5, completion_tokens = 5 } }
    assert.equal(0, router:stats().reserved_tokens)
    assert(router:pick(ask))
  end)

  it("of tokens lets pass what is larger than it, once", function()
    open { tpm = 100, burst = { tokens = 100 } }
    assert(router:pick { messages = hi, max_tokens = 100000 })
    assert.equal("router_tpm", select(2, refused { messages = hi }))
  end)

  it("of tokens is not fooled by an answer without usage", function()
    open { tpm = 1000, burst = { tokens = 1000 } }
    local ask = { messages = hi, max_tokens = 980 }
    assert(router:pick(ask)):done { status = 200 }
    -- 9 of the prompt and 256 of an answer stay booked.
    refused(ask)
    assert(router:pick { messages = hi, max_tokens = 700 })
  end)

  it("of tokens is charged nothing for what nobody worked on", function()
    open { tpm = 1000, burst = { tokens = 1000 } }
    local ask = { messages = hi, max_tokens = 985 }
    assert(router:pick(ask)):done { kind = "bad_request" }
    assert(router:pick(ask)):done { kind = "timeout" }
    refused(ask)                -- the prompt may have been billed
    assert(router:pick { messages = hi, max_tokens = 970 })
  end)

  it("books n answers for n", function()
    open { tpm = 1000, burst = { tokens = 1000 } }
    assert(router:pick { messages = hi, max_tokens = 100, n = 9 })
    refused { messages = hi, max_tokens = 100 }
  end)

  it("of tenants at once is exact", function()
    open { per = { tenant = { concurrent = 2 } } }
    local a = assert(router:pick(nil, { key = "ann" }))
    assert(router:pick(nil, { key = "ann" }))
    local kind, code = refused(nil, { key = "ann" })
    assert.same({ "rate_limited", "tenant_concurrent" }, { kind, code })
    assert(router:pick(nil, { key = "bob" }))
    a:done()
    assert(router:pick(nil, { key = "ann" }))
  end)

  local full = {
    { "models at once", { per = { model = { concurrent = 1 } } }, nil,
      "model_concurrent" },
    { "the router", { concurrent = 1 }, nil, "router" },
    { "a node's capacity", {}, { capacity = 1 }, "node" },
    { "nodes at once", { per = { node = { concurrent = 1 } } }, nil,
      "node" },
    { "keys at once", { per = { key = { concurrent = 1 } } }, nil,
      "key_concurrent" },
  }
  for _, row in ipairs(full) do
    it("of " .. row[1] .. " is overloaded when it is full", function()
      open(row[2], row[3])
      local ticket = assert(router:pick { model = "m" })
      local kind, code = refused { model = "m" }
      assert.same({ "overloaded", row[4] }, { kind, code })
      ticket:done()
      assert(router:pick { model = "m" })
    end)
  end

  it("of a node or key that is not there is a mistake", function()
    for scope, name in pairs { node = "gpu-O", key = "gpu#2" } do
      local ok, why = pcall(drover.new, {
        nodes = { { id = "gpu-0", url = "http://127.0.0.1:9/v1" } },
        limits = { per = { [scope] = { named = { [name] = { rpm = 1 } } } } },
      })
      assert.is_false(ok)
      assert.truthy(why:find(("limits.per.%s.named: no %s is called %s"):format(
        scope, scope, name), 1, true), why)
    end
  end)

  it("of dollars is a quota", function()
    open({ dollars_per_day = 1 }, { price = 1000 })
    local ask = { messages = hi, max_tokens = 991 }
    local ticket = assert(router:pick(ask))
    local kind, code, field = refused(ask)
    assert.same({ "quota", "router_dollars_per_day", "limits.dollars_per_day" },
                { kind, code, field })
    ticket:done { usage = { prompt_tokens = 9, completion_tokens = 491 } }
    assert.equal(0.5, router:nodes()[1].cost)
    refused(ask)
    assert(router:pick { messages = hi, max_tokens = 400 })
  end)

  it("of dollars counts what no usage was given for", function()
    open({ dollars_per_month = 1 }, { price = 1000 })
    for _ = 1, 3 do
      assert(router:pick { messages = hi, max_tokens = 300 }):done()
    end
    assert.equal("router_dollars_per_month",
                 select(2, refused { messages = hi, max_tokens = 300 }))
  end)

  it("refuses a node without a price at run time, under dollars", function()
    open({ dollars_per_day = 1 }, { price = 1 })
    local ok, why = pcall(router.add, router, { url = "http://127.0.0.1:8" })
    assert.is_false(ok)
    assert.matches("node%.price: is missing", why)
    assert(router:add { url = "http://127.0.0.1:8", price = 1 })
  end)

  it("is counted under the word of the error", function()
    open { per = { tenant = { rpm = 60 } } }
    router:pick(nil, { key = "ann" })
    refused(nil, { key = "ann" })
    assert.matches('drover_limit_refusals_total{limit="tenant_rpm"} 1\n',
                   router:metrics())
  end)
end)


describe("requests over HTTP", function()
  local server, router
  after_each(function()
    router:close()
    server:stop()
  end)

  it("are charged what they used", function()
    server = testing.server { testing.reply("hello", {
      prompt_tokens = 5, completion_tokens = 15 }) }
    router = drover.new { nodes = { { url = server.url } },
                          limits = { tpm = 60, burst = { tokens = 200 } } }
    -- 99 are booked and 20 used: the sixth finds 100, the seventh 80.
    local ask = { messages = hi, max_tokens = 90 }
    for _ = 1, 6 do
      assert(router:chat(ask))
    end
    local _, e = router:chat(ask)
    assert.equal("router_tpm", e.code)
    assert.equal(6, #server:requests())
    assert.equal(0, router:stats().reserved_tokens)
  end)

  it("take one request of a rate, however often they are sent", function()
    server = testing.server { testing.error(503, "busy"),
                              testing.reply "hello" }
    router = drover.new { nodes = { { url = server.url } },
                          retry = { min = 0, max = 0.001 },
                          limits = { rpm = 60 } }
    local reply = assert(router:chat { messages = hi })
    assert.equal(2, #reply.drover.attempts)
    local _, e = router:chat { messages = hi }
    assert.equal("router_rpm", e.code)
  end)

  it("without max_tokens book what answers have been lately", function()
    server = testing.server { testing.reply("x", { prompt_tokens = 1,
                                                   completion_tokens = 6 }) }
    router = drover.new { nodes = { { url = server.url } } }
    for _ = 1, 60 do
      assert(router:chat { model = "m", messages = hi })
    end
    assert(router:pick { model = "m", messages = hi })
    assert.equal(9 + 7, router:stats().reserved_tokens)
  end)
end)


describe("a local model", function()
  it("counts a prompt's tokens itself where tokens are limited", function()
    local path = require("drover.bundled").path()
    local router = drover.new { nodes = { { url = "local:" .. path } },
                                limits = { tpm = 1000000 } }
    local text = ("The capital of Norway is Oslo. "):rep(20)
    local ask = { model = "lambkin", max_tokens = 1,
                  messages = { { role = "user", content = text } } }
    local ticket = assert(router:pick(ask))
    local booked = router:stats().reserved_tokens
    assert.not_equal(tokens.of_request(ask) + 1, booked)
    ticket:done { kind = "cancelled" }
    local reply = assert(router:chat(ask))
    -- The template's own tokens are estimated: 8 a message.
    assert.is_true(math.abs(booked - 1 - reply.usage.prompt_tokens) <= 8,
                   booked .. " for " .. reply.usage.prompt_tokens)
    router:close()
  end)
end)
