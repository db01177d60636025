-- Pipelines over a router made of plain functions: what each step gets, what
-- an error says, what runs at once, what the ledger holds.
local err = require "drover.err"
local loop = require "drover.loop"
local p = require "drover.pipeline"


local function reply(text, more)
  local drover = { node = "n1", seconds = 0.5, attempts = {}, cost = 0.25 }
  for name, value in pairs(more or {}) do
    drover[name] = value
  end
  return {
    model = "m", usage = { prompt_tokens = 3, completion_tokens = 2 },
    choices = { { message = { role = "assistant", content = text } } },
    drover = drover,
  }
end


-- A router whose answer(text of the last message, request, flight) decides;
-- `flight` is nil for a call that nobody may cancel.
local function router_of(answer)
  local router = { requests = {}, opts = {} }
  function router:begin(request, opts)
    local flight = { gate = loop.get().gate() }
    function flight.reply()
      return self:chat(request, opts, flight)
    end
    function flight.cancel()
      flight.cancelled = true
      flight.gate:post()
    end
    return flight
  end
  function router:chat(request, opts, flight)
    self.requests[#self.requests + 1] = request
    self.opts[#self.opts + 1] = opts
    local last = request.messages[#request.messages].content
    local text, why = answer(last, request, flight)
    if not text then
      return nil, why
    end
    return type(text) == "table" and text or reply(text)
  end
  return router
end


local function echo()
  return router_of(function(text) return "<" .. text .. ">" end)
end


describe("p.ask", function()
  it("sends one chat and returns its text", function()
    local router = echo()
    local step = p.ask{ model = "m", system = "Be {{mood}}.",
                        prompt = "Say {{what}}", max_tokens = 9,
                        temperature = 0.5 }
    assert.equal("<Say hi>",
                 p.run(router, step, { mood = "kind", what = "hi" }))
    assert.same({
      model = "m", max_tokens = 9, temperature = 0.5,
      messages = { { role = "system", content = "Be kind." },
                   { role = "user", content = "Say hi" } },
    }, router.requests[1])
  end)

  it("takes a function for the prompt", function()
    local step = p.ask{ prompt = function(x) return x .. "!" end }
    assert.equal("<hi!>", p.run(echo(), step, "hi"))
  end)

  it("puts messages between system and prompt", function()
    local router = echo()
    local step = p.ask{ system = "S", prompt = "P", messages = {
      { role = "user", content = "{{.}}" },
      { role = "assistant", content = "A" } } }
    assert(p.run(router, step, "Q"))
    local roles = {}
    for i, message in ipairs(router.requests[1].messages) do
      roles[i] = message.role .. " " .. message.content
    end
    assert.same({ "system S", "user Q", "assistant A", "user P" }, roles)
  end)

  it("keeps fields of the chain's input for the prompt", function()
    local step = p.chain(function() return { a = 1 } end,
                         p.ask{ prompt = "{{q}}: {{a}}", keep = "q" })
    assert.equal("<why: 1>", p.run(echo(), step, { q = "why" }))
  end)

  it("never scans what a model wrote", function()
    local step = p.chain(p.ask{ prompt = "{{.}}" }, p.ask{ prompt = "{{.}}" })
    local router = router_of(function(text) return text end)
    assert.equal("{{key}}", p.run(router, step, "{{key}}"))
  end)

  it("says which value is missing", function()
    local text, why = p.run(echo(), p.ask{ prompt = "{{a.b}}" }, { a = {} })
    assert.is_nil(text)
    assert.equal("bad_request", why.kind)
    assert.equal("ask.prompt: no value for {{a.b}}", why.message)
  end)

  it("says so when the reply holds no text", function()
    local router = router_of(function() return { choices = {} } end)
    local text, why = p.run(router, p.ask{ prompt = "x" }, {})
    assert.is_nil(text)
    assert.equal("malformed", why.kind)
  end)

  local refused = {
    { "ask.json: not built yet", { prompt = "x", json = {} } },
    { "ask: unknown option promt", { promt = "x" } },
    { "ask: prompt or messages expected", { model = "m" } },
    { "ask.model: a string expected, got number", { prompt = "x", model = 1 } },
    { "ask.prompt: a text or a function", { prompt = 7 } },
    { "ask.prompt: template, byte 3", { prompt = "a {{b" } },
    { "ask.messages%[1%].role: a text expected", { messages = { "x" } } },
  }
  for _, row in ipairs(refused) do
    it("refuses with " .. row[1], function()
      local ok, message = pcall(p.ask, row[2])
      assert.is_false(ok)
      assert.matches(row[1], message)
    end)
  end
end)


describe("p.chain", function()
  it("says where it was written wrong", function()
    local _, message = pcall(function()
      local step = p.chain(p.ask{ promt = "x" })
      return step
    end)
    assert.matches("pipeline_spec.lua:%d+: ask: unknown option promt", message)
  end)

  it("feeds each result to the next step", function()
    local step = p.chain(function(x) return x + 1 end,
                         function(x) return x * 10 end)
    assert.equal(30, p.run(echo(), step, 2))
  end)

  it("stops at the first error and says at which step", function()
    local last = spy.new(function() return "never" end)
    local step = p.chain(
      p.ask{ prompt = "{{.}}" },
      function() return nil, err.new("quota", "no money") end,
      function(x) return last(x) end)
    local y, why = p.run(echo(), step, "x")
    assert.is_nil(y)
    assert.equal("quota", why.kind)
    assert.equal(2, why.step)
    assert.spy(last).was_not.called()
  end)

  it("makes errors of what a plain function failed with", function()
    local rows = {
      { function() return nil, "bad sql" end, "malformed", "bad sql" },
      { function() return nil, { kind = "quota", message = "m" } end, "quota",
        "m" },
      { function() end, "malformed", "the step returned nothing" },
    }
    for _, row in ipairs(rows) do
      local _, why = p.run(echo(), p.chain(row[1]), 1)
      assert.is_true(err.is(why))
      assert.same({ row[2], row[3], 1 }, { why.kind, why.message, why.step })
    end
  end)

  it("passes false on as a value", function()
    local step = p.chain(function() return false end,
                         function(x) return tostring(x) end)
    assert.equal("false", p.run(echo(), step, 1))
  end)

  it("wants functions", function()
    assert.error_matches(function() p.chain(print, "x") end,
                         "chain step 2: a step is a function, got string")
    assert.error_matches(function() p.chain() end, "at least one step")
  end)
end)


describe("p.parallel", function()
  it("wants a step", function()
    for _, steps in ipairs{ {}, { partial = true } } do
      local ok, why = pcall(p.parallel, steps)
      assert.is_false(ok)
      assert.matches("parallel: at least one step", why)
    end
  end)

  it("gives the results by key", function()
    local step = p.parallel{ a = p.ask{ prompt = "a {{.}}" },
                             b = function(x) return #x end }
    assert.same({ a = "<a hey>", b = 3 }, p.run(echo(), step, "hey"))
  end)

  it("fails as a whole when one fails, and names it", function()
    local step = p.parallel{ a = function() return 1 end,
                             b = function() return nil, "no" end }
    local y, why = p.run(echo(), step, "x")
    assert.is_nil(y)
    assert.equal("b", why.item)
  end)

  it("cancels what still runs when one fails", function()
    local router = router_of(function(_, _, flight)
      flight.gate:wait()
      assert.is_true(flight.cancelled)
      return nil, err.new("cancelled")
    end)
    local ask = p.ask{ prompt = "never answered" }
    local step = p.parallel{
      a = ask, b = p.map(ask),
      c = function() return nil, err.new("quota", "no money") end,
    }
    local y, why, ledger = p.run(router, step, { 1, 2 })
    assert.is_nil(y)
    assert.same({ "quota", "c" }, { why.kind, why.item })
    assert.same({ "cancelled", "cancelled", "cancelled" },
                { ledger[1].kind, ledger[2].kind, ledger[3].kind })
  end)

  it("keeps the error beside the results when partial", function()
    local step = p.parallel{ partial = true, a = function() return 1 end,
                             b = function() return nil, "no" end }
    local y = p.run(echo(), step, "x")
    assert.equal(1, y.a)
    assert.is_true(err.is(y.b))
  end)

  it("raises what a step raises", function()
    local step = p.parallel{ a = function() error("oops", 0) end }
    assert.error_matches(function() p.run(echo(), step, "x") end, "oops")
  end)
end)


describe("p.map", function()
  it("keeps the order and never runs more than it may", function()
    local gates, open, most = {}, 0, 0
    local router = router_of(function(text)
      open = open + 1
      most = math.max(most, open)
      local gate = loop.get().gate()
      gates[#gates + 1] = gate
      gate:wait()
      open = open - 1
      return text
    end)
    local step = p.map(p.ask{ prompt = "{{.}}" }, { max_concurrent = 2 })
    local task = loop.get().spawn(p.run, router, step,
                                  { "a", "b", "c", "d", "e" })
    local newest = 1
    while newest <= 5 do                -- the newest first: ends out of order
      local gate = gates[newest]
      newest = newest + 1
      gate:post()
      loop.get().sleep(0)
    end
    local ok, list, ledger = loop.get().join(task)
    assert.is_true(ok)
    assert.same({ "a", "b", "c", "d", "e" }, list)
    assert.equal(2, most)
    assert.equal(5, #ledger)
  end)

  it("starts nothing after the first failure", function()
    local router = router_of(function(text)
      if text == "2" then
        return nil, err.new("not_found", "no such model")
      end
      return text
    end)
    local step = p.map(p.ask{ prompt = "{{.}}" }, { max_concurrent = 1 })
    local y, why = p.run(router, step, { 1, 2, 3, 4 })
    assert.is_nil(y)
    assert.equal("not_found", why.kind)
    assert.equal(2, why.item)
    assert.equal(2, #router.requests)
  end)

  it("gives an empty list for an empty list", function()
    assert.same({}, p.run(echo(), p.map(print), {}))
  end)

  it("says so when it gets no list", function()
    local _, why = p.run(echo(), p.map(print), "text")
    assert.equal("map: a list expected, got string", why.message)
  end)

  it("refuses unknown options by name", function()
    assert.error_matches(function() p.map(print, { concurrent = 3 }) end,
                         "map: unknown option concurrent")
    assert.error_matches(function() p.map(print, { max_concurrent = 0 }) end,
                         "map.max_concurrent")
  end)
end)


describe("a pipeline over a real router", function()
  local drover = require "drover"
  local testing = require "drover.testing"
  local server, router

  after_each(function()
    router:close()
    server:stop()
  end)

  it("asks a node and writes what it cost", function()
    server = testing.server{ testing.reply("Oslo") }
    router = assert(drover.new{ nodes = { { id = "n", url = server.url,
                                            price = 1 } } })
    local step = p.chain(p.ask{ model = "m", prompt = "Capital of {{.}}?" },
                         p.map(function(x) return x end))
    local _, why, ledger = p.run(router, step, "Norway")
    assert.same({ "bad_request", 2 }, { why.kind, why.step })
    assert.same({ "n", "ok", 5, 2 }, { ledger[1].node, ledger[1].kind,
                ledger[1].input_tokens, ledger[1].output_tokens })
    assert.is_true(math.abs(ledger.cost - 7e-6) < 1e-12)
    assert.matches("Capital of Norway?", server:requests()[1].body, 1, true)
  end)

  it("gives back the slots of what it cancels", function()
    server = testing.server{ { hold = true } }
    router = assert(drover.new{ nodes = { { url = server.url } } })
    local never = p.ask{ model = "m", prompt = "never answered" }
    local step = p.parallel{ a = never, b = never,
                             c = function() return nil, "no" end }
    local _, why = p.run(router, step, "x")
    assert.equal("c", why.item)
    assert.equal(0, router:stats().inflight)
  end)

  it("streams the last answer", function()
    server = testing.server{ testing.stream{ "One", " two" } }
    router = assert(drover.new{ nodes = { { url = server.url } } })
    local seen = {}
    local y = p.run(router, p.ask{ model = "m", prompt = "count" }, {}, {
      emit = function(text) seen[#seen + 1] = text end,
    })
    assert.same({ "One two", { "One", " two" } }, { y, seen })
  end)
end)


describe("p.run", function()
  it("returns a ledger of the calls", function()
    local step = p.chain(p.ask{ prompt = "{{.}}" }, p.ask{ prompt = "{{.}}" })
    local _, ledger = p.run(echo(), step, "x")
    assert.equal(2, #ledger)
    assert.equal("n1", ledger[1].node)
    assert.equal("m", ledger[1].model)
    assert.equal("ok", ledger[1].kind)
    assert.equal(0.5, ledger[1].seconds)
    assert.same({ 6, 4, 0.5 }, { ledger.input_tokens, ledger.output_tokens,
                                 ledger.cost })
  end)

  it("has no cost where no node has a price", function()
    local router = router_of(function()
      local r = reply("x")
      r.drover.cost = nil
      return r
    end)
    local _, ledger = p.run(router, p.ask{ prompt = "x" }, {})
    assert.is_nil(ledger.cost)
  end)

  it("returns the ledger beside an error too", function()
    local router = router_of(function()
      return nil, err.new("quota", "no", { node = "n2" })
    end)
    local _, why, ledger = p.run(router, p.ask{ prompt = "x" }, {})
    assert.equal("quota", why.kind)
    assert.same({ "n2", "quota" }, { ledger[1].node, ledger[1].kind })
  end)

  it("gives each call what is left of the time", function()
    local router = echo()
    assert(p.run(router, p.ask{ prompt = "x" }, {}, { timeout = 5,
                                                      key = "tenant" }))
    local opts = router.opts[1]
    assert.is_true(opts.timeout > 0 and opts.timeout <= 5)
    assert.equal("tenant", opts.key)
  end)

  it("gives a call a time that requests take, however little is left", function()
    local router = echo()
    local function late(x, run)
      run.deadline = loop.get().now() + 5e-4
      return p.ask{ prompt = "x" }(x, run)
    end
    local _, why = p.run(router, late, {}, { timeout = 5 })
    assert.is_true(why and why.kind == "timeout"
                   or router.opts[1].timeout == 0.001)
    local calm = echo()
    assert(p.run(calm, p.ask{ prompt = "x" }, {}, { timeout = 1e9 }))
    assert.equal(86400, calm.opts[1].timeout)
  end)

  it("starts no call after the deadline", function()
    local router = echo()
    local function late(x, run)
      run.deadline = -1
      return p.ask{ prompt = "x" }(x, run)
    end
    local _, why = p.run(router, late, {}, { timeout = 5 })
    assert.equal("timeout", why.kind)
    assert.equal(0, #router.requests)
  end)

  it("streams the last ask alone", function()
    local router = echo()
    function router.stream(_, request)
      local text = "[" .. request.messages[1].content .. "]"
      local i = 0
      return {
        events = function()
          return function()
            i = i + 1
            return i <= #text and { text = text:sub(i, i) } or nil
          end
        end,
        join = function() return reply(text) end,
      }
    end
    local seen = {}
    local step = p.chain(
      p.ask{ prompt = "{{.}}" },
      function(x, run) run:emit("- ") return x end,
      p.ask{ prompt = "{{.}}" })
    local y = p.run(router, step, "x", {
      emit = function(text) seen[#seen + 1] = text end,
    })
    assert.equal("[<x>]", y)
    assert.equal("- [<x>]", table.concat(seen))
    assert.equal(1, #router.requests)
  end)

  it("refuses unknown options by name", function()
    assert.error_matches(function()
      p.run(echo(), print, {}, { timout = 3 })
    end, "run: unknown option timout")
    assert.error_matches(function() p.run({}, print, {}) end,
                         "run: a router expected")
    assert.error_matches(function()
      p.run(echo(), print, {}, { timeout = 0 })
    end, "run.timeout")
  end)
end)
