-- Streams over real sockets: commit, failover before it, errors after it,
-- cancel, and one settle whatever happens.
local drover = require "drover"
local testing = require "drover.testing"

local servers, router = {}, nil


local function serve(replies)
  local server = testing.server(replies)
  servers[#servers + 1] = server
  return server
end


local function over(list, more)
  local conf = { nodes = {}, policy = "fallback", retry = { min = 0, max = 0 } }
  for i, server in ipairs(list) do
    conf.nodes[i] = { id = "n" .. i, url = server.url }
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


local function ask(more)
  local request = { model = "m",
                    messages = { { role = "user", content = "hi" } } }
  for name, value in pairs(more or {}) do
    request[name] = value
  end
  return request
end


local function text_of(stream)
  local parts = {}
  for event in stream:events() do
    parts[#parts + 1] = event.text
  end
  return table.concat(parts)
end


local function kinds(attempts)
  local list = {}
  for i, one in ipairs(attempts) do
    list[i] = one.node .. " " .. one.kind
  end
  return list
end


local function assert_settled()
  assert.equal(0, router:stats().inflight)
  assert.is_nil(next(router.active))
  assert.equal(0, require("drover.loop.calls").count())
end


-- The first n events of a stream of text, then what `more` says.
local function cut(n, more)
  local reply = testing.stream { "one", "two", "three" }
  reply.cut = n
  for name, value in pairs(more or {}) do
    reply[name] = value
  end
  return reply
end


describe("router:stream()", function()
  after_each(cleanup)

  it("gives the text as it comes, and the whole at the end", function()
    local server = serve { testing.stream { "Hel", "lo \"w\"\n", "ü" } }
    local stream = assert(over({ server }):stream(ask()))
    assert.equal("Hello \"w\"\nü", text_of(stream))
    local reply = assert(stream:join())
    assert.equal("Hello \"w\"\nü", reply.choices[1].message.content)
    assert.equal("stop", reply.choices[1].finish_reason)
    assert.equal(8, reply.usage.total_tokens)
    assert.equal("chatcmpl-test", reply.id)
    assert.equal("n1", reply.drover.node)
    assert.is_true(reply.drover.first_token_seconds > 0)
    assert.equal(reply, stream:join())
    assert_settled()
  end)

  it("asks for usage, and keeps it from who did not ask", function()
    local server = serve { testing.stream { "a" } }
    over({ server })
    for event in router:stream(ask()):events() do
      assert.is_nil(event.usage)
    end
    local usage
    local asked = ask { stream_options = { include_usage = true } }
    for event in router:stream(asked):events() do
      usage = event.usage or usage
    end
    assert.equal(6, usage.total_tokens)
    for _, request in ipairs(server:requests()) do
      assert.truthy(request.body:find('"include_usage":true', 1, true))
    end
    assert.equal(2, router:nodes()[1].output_tokens)
  end)

  it("holds back what is no content, and gives it all in order", function()
    local server = serve { testing.stream { "a" } }
    local stream = over({ server }):stream(ask())
    local first = stream:next()
    assert.is_nil(first.text)
    assert.truthy(first.raw:find('"role":"assistant"', 1, true))
    assert.equal("a", stream:next().text)
    stream:cancel()
  end)

  it("gives tool calls, reasoning and refusals", function()
    local function chunk(delta)
      return { choices = { { index = 0, delta = delta } } }
    end
    local server = serve { { sse = {
      chunk { reasoning_content = "think" },
      chunk { tool_calls = { { index = 0, id = "c1", ["function"] = {
        name = "f", arguments = "{\"a\"" } } } },
      chunk { tool_calls = { { index = 0, ["function"] = {
        arguments = ":1}" } }, { index = 1, id = "c2", ["function"] = {
        name = "g" } } } },
      chunk { refusal = "no" },
      "[DONE]",
    } } }
    local stream = over({ server }):stream(ask())
    local seen = {}
    for event in stream:events() do
      local call = event.tool_call
      seen[#seen + 1] = event.reasoning or event.refusal or event.finish_reason
                        or call.index .. call.arguments
    end
    assert.same({ "think", '0{"a"', "0:1}", "1", "no", "tool_calls" }, seen)
    local message = stream:join().choices[1].message
    assert.equal("think", message.reasoning_content)
    assert.equal('{"a":1}', message.tool_calls[1]["function"].arguments)
    assert.equal("{}", message.tool_calls[2]["function"].arguments)
    assert.equal("c2", message.tool_calls[2].id)
  end)

  it("goes elsewhere while nothing has been seen", function()
    for _, bad in ipairs {
      cut(0), cut(1), cut(1, { reset = true }),
      { sse = { { choices = {}, error = { message = "x", code = 503 } } } },
      { sse = { "not json" } }, { sse = { "[DONE]" } },
      testing.error(503, "full"), { body = "<html>" },
    } do
      local a, b = serve { bad }, serve { testing.stream { "ok" } }
      local stream = assert(over({ a, b }):stream(ask()))
      assert.equal("ok", text_of(stream))
      assert.equal(2, #stream.drover.attempts)
      assert.equal("n2", stream.drover.node)
      assert_settled()
      cleanup()
    end
  end)

  it("never goes elsewhere once text was seen", function()
    for _, case in ipairs {
      { cut(3), "truncated" }, { cut(3, { reset = true }), "reset" },
      { { sse = { { choices = { { delta = { content = "one" } } } },
                  { choices = {}, error = { message = "x", code = 503 } } } },
        "overloaded" },
      { { sse = { { choices = { { delta = { content = "one" } } } },
                  "not json" } }, "malformed" },
    } do
      local a, b = serve { case[1] }, serve { testing.stream { "ok" } }
      local stream = assert(over({ a, b }):stream(ask()))
      assert.truthy(text_of(stream):find("^one"))
      assert.equal(case[2] == "reset" and stream.err.kind or case[2],
                   stream.err.kind)
      assert.equal("n1", stream.err.node)
      assert.is_true(stream.err.maybe_billed)
      assert.same({ "n1 " .. stream.err.kind }, kinds(stream.err.attempts))
      local reply, e = stream:join()
      assert.is_nil(reply)
      assert.equal(stream.err, e)
      assert.equal(0, #b:requests())
      assert_settled()
      cleanup()
    end
  end)

  it("is whole with a finish reason and no end mark", function()
    local reply = testing.stream { "a" }
    reply.cut = 3
    local stream = over({ serve { reply } }):stream(ask())
    assert.equal("a", text_of(stream))
    assert.is_nil(stream.err)
    assert.equal("stop", stream:join().choices[1].finish_reason)
  end)

  it("is whole with its end mark, however the connection ends", function()
    local reply = testing.stream { "a" }
    reply.cut, reply.reset = 5, true
    local stream = over({ serve { reply } }):stream(ask())
    assert.equal("a", text_of(stream))
    assert.is_nil(stream.err)
    assert.same({ "n1 ok" }, kinds(stream.drover.attempts))
  end)

  it("takes a whole answer where a stream was asked for", function()
    local stream = assert(over({ serve { testing.reply("all") } })
                          :stream(ask()))
    assert.equal("all", text_of(stream))
    assert.equal(7, stream:join().usage.total_tokens)
  end)

  it("is joined where a whole answer was asked for", function()
    local reply = over({ serve { testing.stream { "a", "b" } } }):chat(ask())
    assert.equal("ab", reply.choices[1].message.content)
    assert.equal(7, reply.usage.total_tokens)
    assert_settled()
  end)

  it("ends at the first-token deadline, at the idle one, at the total",
     function()
    local late = { connect = 1, first_token = 0.05, idle = 5, total = 5 }
    local _, e = over({ serve { { hold = true } } }, {
      retry = { attempts = 1 } }):stream(ask(), { timeout = late })
    assert.equal("timeout", e.kind)
    assert.equal("first_token", e.phase)
    cleanup()
    local slow = testing.stream { "a", "b" }
    slow.pause = 0.12
    local stream = over({ serve { slow } }):stream(ask(), {
      timeout = { first_token = 5, idle = 0.05 } })
    assert.equal("a", text_of(stream))
    assert.equal("timeout", stream.err.kind)
    assert.equal("stream", stream.err.phase)
    assert_settled()
  end)

  it("can be cancelled, any number of times", function()
    local slow = testing.stream { "a", "b", "c" }
    slow.pause = 0.05
    local server = serve { slow }
    local stream = over({ server }):stream(ask())
    stream:cancel()
    stream:cancel()
    assert.equal("cancelled", stream.err.kind)
    assert.equal("stream", stream.err.phase)
    assert.equal("n1: cancelled (HTTP 200)", tostring(stream.err))
    assert.is_nil(stream:next())
    local _, e = stream:join()
    assert.equal("cancelled", e.kind)
    assert_settled()
  end)

  it("has one reader, which the second is told", function()
    local slow = testing.stream { "a", "b" }
    slow.pause = 0.05
    local stream = over({ serve { slow } }):stream(ask())
    local task = drover.go(function() return text_of(stream) end)
    local ok, why = pcall(text_of, stream)
    assert.is_false(ok)
    assert.truthy(why:find("two tasks", 1, true), why)
    assert.equal("ab", drover.wait(task))
    assert_settled()
  end)

  it("wakes its reader when somebody cancels it", function()
    local slow = testing.stream { "a", "b" }
    slow.pause = 0.2
    local stream = over({ serve { slow } }):stream(ask())
    local task = drover.go(function() return text_of(stream) end)
    drover.sleep(0.01)
    stream:cancel()
    assert.equal("a", drover.wait(task))
    assert_settled()
  end)

  it("has one reader at a time", function()
    local slow = testing.stream { "a", "b" }
    slow.pause = 0.1
    local stream = over({ serve { slow } }):stream(ask())
    local one = drover.go(function() return text_of(stream) end)
    local two = drover.go(function() return text_of(stream) end)
    assert.equal("ab", drover.wait(one))
    assert.has_error(function() drover.wait(two) end)
    assert_settled()
  end)

  it("is cancelled when it is dropped", function()
    local slow = testing.stream { "a", "b", "c" }
    slow.pause = 0.05
    over({ serve { slow } })
    local function open()
      assert(router:stream(ask()))
    end
    open()
    assert.equal(1, router:stats().inflight)
    collectgarbage()
    collectgarbage()
    assert_settled()
    assert.truthy(router:metrics():find(
      'drover_requests_total{node="n1",outcome="cancelled"} 1', 1, true))
  end)

  it("is settled once where a callback raises", function()
    local stream = over({ serve { testing.stream { "a", "b" } } }):stream(ask())
    assert.has_error(function()
      for _ in stream:events() do
        error("mine")
      end
    end)
    assert.equal("ab", stream:join().choices[1].message.content)
    assert_settled()
  end)

  it("interleaves with others inside tasks", function()
    local slow = testing.stream { "a", "b", "c" }
    slow.pause = 0.005
    over({ serve { slow } })
    local order, tasks = {}, {}
    for i = 1, 3 do
      tasks[i] = drover.go(function()
        for event in router:stream(ask()):events() do
          if event.text then
            order[#order + 1] = i
          end
        end
        return i
      end)
    end
    assert.same({ 1, 2, 3 }, { drover.wait(unpack(tasks)) })
    assert.equal(9, #order)
    assert.is_true(table.concat(order) ~= "111222333")
  end)

  it("ends at its end mark, though the connection is held", function()
    local held = testing.stream { "a", "b" }
    held.hold = true
    local server = serve { held }
    local stream = assert(over({ server }):stream(ask()))
    assert.equal("ab", text_of(stream))
    assert.equal(2, assert(stream:join()).usage.completion_tokens)
    assert.same({ "n1 ok" }, kinds(stream:join().drover.attempts))
    assert_settled()
  end)

  it("runs in a foreign coroutine, which it does not yield from", function()
    over({ serve { testing.stream { "a" } } })
    local co = coroutine.create(function()
      coroutine.yield("mine")
      return text_of(router:stream(ask()))
    end)
    assert.same({ true, "mine" }, { coroutine.resume(co) })
    assert.same({ true, "a" }, { coroutine.resume(co) })
  end)

  it("reads a long answer slowly without losing any", function()
    local pieces = {}
    for i = 1, 600 do
      pieces[i] = ("%04d"):format(i) .. ("x"):rep(2000)
    end
    local stream = over({ serve { testing.stream(pieces) } }):stream(ask())
    local n = 0
    for event in stream:events() do
      if event.text then
        n = n + 1
        assert.equal(pieces[n], event.text)
      end
      if n % 100 == 0 then
        drover.sleep(0.002)
      end
    end
    assert.equal(600, n)
  end)
end)
