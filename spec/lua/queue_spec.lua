-- Requests that wait for a turn, in a plain program: who goes first, who gives
-- up, and that nobody is left in the queue.
local drover = require "drover"
local testing = require "drover.testing"

local hi = { { role = "user", content = "hi" } }


describe("a request with limits.wait", function()
  local router, server

  local function open(conf, more)
    conf.wait = conf.wait or 10
    local all = { nodes = { { id = "n", url = "http://127.0.0.1:9/v1" } },
                  limits = conf }
    for k, v in pairs(more or {}) do
      all[k] = v
    end
    router = drover.new(all)
    return router
  end

  local function waiting()
    return router:stats().waiting
  end

  before_each(function() server = nil end)
  after_each(function()
    if not router.closed then
      assert.equal(0, waiting())
      router:close()
    end
    if server then
      server:stop()
    end
  end)

  it("waits until another ends", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local task = drover.go(function() return router:pick() end)
    assert.equal(1, waiting())
    first:done()
    local second, e = drover.wait(task)
    assert(second, tostring(e))
    assert.equal("n", second.node.id)
    second:done()
    assert.equal(0, router:stats().inflight)
  end)

  it("drives the loop itself outside of tasks", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    drover.go(function()
      drover.sleep(0.01)
      first:done()
    end)
    assert(router:pick()):done()
  end)

  it("waits for a rate as long as it says", function()
    open { rpm = 600, burst = { requests = 1 } }
    local from = drover.now()
    for _ = 1, 4 do
      assert(router:pick()):done()
    end
    local took = drover.now() - from
    assert.is_true(took >= 0.299, took)
  end)

  it("gives up when its turn shows that the rate takes longer", function()
    open { concurrent = 1, wait = 30, per = { tenant = { rpm = 1 } } }
    local first = assert(router:pick(nil, { key = "ann" }))
    local from = drover.now()
    local bob = drover.go(function()
      assert(router:pick(nil, { key = "bob" })):done()
    end)
    local ann = drover.go(function()    -- behind bob, whatever its own rate
      return router:pick(nil, { key = "ann" })
    end)
    assert.equal(2, waiting())
    first:done()
    drover.wait(bob)
    local second, e = drover.wait(ann)
    assert.is_nil(second)
    assert.equal("tenant_rpm", e.code)
    assert.is_true(drover.now() - from < 15)
  end)

  it("is not passed by those that come later", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local order = {}
    local tasks = {}
    for i = 1, 5 do
      tasks[i] = drover.go(function()
        local ticket = assert(router:pick())
        order[#order + 1] = i
        drover.sleep(0.001)
        ticket:done()
      end)
    end
    assert.equal(5, waiting())
    first:done()
    drover.wait(unpack(tasks))
    assert.same({ 1, 2, 3, 4, 5 }, order)
  end)

  it("goes by priority", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local order, tasks = {}, {}
    for i, priority in ipairs { "batch", "default", "interactive" } do
      tasks[i] = drover.go(function()
        local ticket = assert(router:pick(nil, { priority = priority }))
        order[#order + 1] = priority
        ticket:done()
      end)
    end
    first:done()
    drover.wait(unpack(tasks))
    assert.same({ "interactive", "default", "batch" }, order)
  end)

  it("shares with other tenants", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local order, tasks = {}, {}
    for i, key in ipairs { "ann", "ann", "ann", "ann", "bob" } do
      tasks[i] = drover.go(function()
        local ticket = assert(router:pick({ messages = hi, max_tokens = 500 },
                                          { key = key }))
        order[#order + 1] = key
        ticket:done()
      end)
    end
    first:done()
    drover.wait(unpack(tasks))
    assert.is_true(order[1] == "bob" or order[2] == "bob",
                   table.concat(order, " "))
  end)

  it("gives up when its time is over, and says when to come again", function()
    open { concurrent = 1, wait = 0.02 }
    local first = assert(router:pick())
    local ticket, e = router:pick()
    assert.is_nil(ticket)
    assert.same({ "overloaded", "router", "limit" },
                { e.kind, e.code, e.phase })
    assert.matches("^limits%.concurrent: .*waited 0%.0", e.message)
    assert.is_true(e.retry_after > 0)
    first:done()
  end)

  it("is refused at once where its wait would be too long", function()
    open { rpm = 1, wait = 5 }
    assert(router:pick())
    local from = drover.now()
    local ticket, e = router:pick()
    assert.is_nil(ticket)
    assert.same({ "rate_limited", "router_rpm" }, { e.kind, e.code })
    assert.is_true(e.retry_after > 50 and e.retry_after <= 60)
    assert.is_true(drover.now() - from < 1)
  end)

  it("is refused at once where the queue is full", function()
    open({ concurrent = 1 }, { queue = { size = 1 } })
    local first = assert(router:pick())
    local task = drover.go(function() return router:pick() end)
    local ticket, e = router:pick()
    assert.is_nil(ticket)
    assert.equal("overloaded", e.kind)
    assert.is_true(e.retry_after > 0)
    first:done()
    assert(drover.wait(task)):done()
  end)

  it("does not wait where limits.wait is 0", function()
    open { concurrent = 1, wait = 0 }
    local first = assert(router:pick())
    local ticket, e = router:pick()
    assert.is_nil(ticket)
    assert.equal("overloaded", e.kind)
    assert.equal("limits.concurrent: as many requests as may be are in flight",
                 e.message)
    first:done()
  end)

  it("does not wait for dollars", function()
    open({ dollars_per_day = 1 }, { nodes = {
      { url = "http://127.0.0.1:9", price = 1000 } } })
    assert(router:pick { messages = hi, max_tokens = 991 })
    local _, e = router:pick { messages = hi, max_tokens = 991 }
    assert.equal("quota", e.kind)
  end)

  it("does not wait past its own deadline", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local _, e = router:chat({ messages = hi }, { timeout = 0.02 })
    assert.equal("overloaded", e.kind)
    first:done()
  end)

  it("is not sent when its turn comes behind its deadline", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local task = drover.go(function()
      return router:chat({ messages = hi }, { timeout = 0.1 })
    end)
    assert.equal(1, waiting())
    local deadline = drover.now() + 0.1
    first:done()                        -- it is called, and cannot answer
    repeat until drover.now() > deadline
    local reply, e = drover.wait(task)
    assert.is_nil(reply)
    assert.same({ "timeout", 0 }, { e.kind, #e.attempts })
    assert.equal(0, router:stats().inflight)
  end)

  it("leaves the queue when it is cancelled", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local flight = assert(router:begin { messages = hi })
    local task = drover.go(function() return flight:reply() end)
    assert.equal(1, waiting())
    flight:cancel()
    assert.equal(0, waiting())
    flight:cancel()
    local reply, e = drover.wait(task)
    assert.is_nil(reply)
    assert.equal("cancelled", e.kind)
    assert.equal(0, #e.attempts)
    first:done()
  end)

  it("leaves the queue when its router is closed", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local task = drover.go(function() return router:pick() end)
    local chat = drover.go(function() return router:chat { messages = hi } end)
    router:close()
    for _, one in ipairs { task, chat } do
      local _, e = drover.wait(one)
      assert.equal("closed", e.kind)
    end
    assert.is_false(first:done())
  end)

  it("wakes those behind it when it leaves", function()
    open { concurrent = 1 }
    local first = assert(router:pick())
    local flight = assert(router:begin { messages = hi })
    local head = drover.go(function() return flight:reply() end)
    local next_one = drover.go(function() return router:pick() end)
    flight:cancel()
    first:done()
    assert(drover.wait(next_one)):done()
    drover.wait(head)
  end)

  it("streams when its turn has come", function()
    server = testing.server { testing.stream { "a", "b" } }
    open({ concurrent = 1 }, { nodes = { { url = server.url } } })
    local first = assert(router:pick())
    local task = drover.go(function()
      local stream = assert(router:stream { messages = hi })
      return stream:join()
    end)
    assert.equal(1, waiting())
    first:done()
    local reply = assert(drover.wait(task))
    assert.equal("ab", reply.choices[1].message.content)
  end)

  it("is woken by another router of its name", function()
    open({ concurrent = 1 }, { name = "queue-spec" })
    local other = drover.new { name = "queue-spec", limits = { wait = 10,
      concurrent = 1 }, nodes = { { id = "n",
                                    url = "http://127.0.0.1:9/v1" } } }
    local first = assert(other:pick())
    local task = drover.go(function() return router:pick() end)
    assert.equal(1, other:stats().waiting)
    first:done()
    assert(drover.wait(task)):done()
    other:close()
  end)

  it("leaves nothing behind, whatever happens to it", function()
    open { concurrent = 3, rpm = 60000, per = { tenant = { concurrent = 2 } } }
    local random = require("drover.random").new(7)
    local words = { "interactive", "default", "batch" }
    local tasks, flights, picks, ended, served = {}, {}, 0, 0, 0
    for i = 1, 200 do
      local opts = { key = "t" .. math.floor(random() * 5),
                     priority = words[1 + math.floor(random() * 3)],
                     timeout = random() < 0.2 and 0.02 or 5 }
      tasks[i] = drover.go(function()
        drover.sleep(random() * 0.1)
        if random() < 0.3 then
          local flight = assert(router:begin({ messages = hi }, opts))
          flights[#flights + 1] = flight
          return flight:reply()
        end
        picks = picks + 1
        local ticket, e = router:pick({ messages = hi }, opts)
        drover.sleep(random() * 0.003)
        served = served + (ticket and ticket:done() and 1 or 0)
        ended = ended + ((ticket or drover.is_err(e)) and 1 or 0)
      end)
    end
    for _ = 1, 20 do
      drover.sleep(0.005)
      for i = 1, #flights do
        flights[i]:cancel()
      end
    end
    drover.wait(unpack(tasks))
    local stats = router:stats()
    assert.same({ 0, 0, 0 }, { stats.waiting, stats.inflight,
                               stats.reserved_tokens })
    assert.equal(picks, ended)
    assert.is_true(picks > 100 and served > 0, served)
    assert.is_nil(next(router.active))
  end)

  it("is not held up by what waits for another model", function()
    open { per = { model = { named = { big = { concurrent = 1 } } } } }
    local first = assert(router:pick { model = "big" })
    local task = drover.go(function() return router:pick { model = "big" } end)
    assert.equal(1, waiting())
    assert(router:pick { model = "small" }):done()
    first:done()
    assert(drover.wait(task)):done()
  end)

  it("loses nothing of a batch", function()
    server = testing.server { testing.reply "x" }
    open({ concurrent = 2 }, { nodes = { { url = server.url } } })
    local list = {}
    for i = 1, 30 do
      list[i] = { messages = hi }
    end
    local results, failed = router:batch(list, { max_concurrent = 30 })
    assert.equal(0, failed, tostring(results[1]))
    assert.equal(30, #server:requests())
  end)

  it("loses nothing of a batch under a rate", function()
    server = testing.server { testing.reply "x" }
    open({ rpm = 6000, burst = { requests = 1 } }, { nodes = { { url = server.url } } })
    local list = {}
    for i = 1, 20 do
      list[i] = { messages = hi }
    end
    local from = drover.now()
    local results, failed = router:batch(list, { max_concurrent = 20 })
    assert.equal(0, failed, tostring(results[20]))
    -- One in 10 ms; those that wait wake by themselves, not by the tick.
    local took = drover.now() - from
    assert.is_true(took >= 0.189 and took < 3, took)
  end)

  it("lets others go before a batch", function()
    server = testing.server { testing.reply "x" }
    open({ concurrent = 1 }, { nodes = { { url = server.url } } })
    local first = assert(router:pick())
    local order = {}
    local batch = drover.go(function()
      local _, e = router:batch({ { messages = hi } }, {
        on_done = function() order[#order + 1] = "batch" end, timeout = 2 })
      return e
    end)
    local chat = drover.go(function()
      local ticket = assert(router:pick())
      order[#order + 1] = "pick"
      ticket:done()
    end)
    assert.equal(2, waiting())
    first:done()
    drover.wait(batch, chat)
    assert.same({ "pick", "batch" }, order)
  end)

  it("goes to the node that has room, with a policy in Lua too", function()
    open({ concurrent = 1 }, { policy = function(nodes)
      return nodes.count > 0 and 1 or nil
    end })
    local first = assert(router:pick())
    local task = drover.go(function() return router:pick() end)
    assert.equal(1, waiting())
    first:done()
    assert(drover.wait(task)):done()
  end)
end)


describe("queue.hold", function()
  local router
  after_each(function()
    assert.equal(0, router:stats().waiting)
    router:close()
  end)

  it("holds requests until there is a node", function()
    router = drover.new { nodes = {}, queue = { hold = 10 } }
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = drover.go(function() return router:pick() end)
    end
    assert.equal(3, router:stats().waiting)
    assert.matches("inference_requests_pending 3\n", router:metrics())
    assert(router:add { id = "late", url = "http://127.0.0.1:9/v1" })
    for _, task in ipairs(tasks) do
      local ticket, e = drover.wait(task)
      assert(ticket, tostring(e))
      assert.equal("late", ticket.node.id)
      ticket:done()
    end
  end)

  it("gives up with no_node", function()
    router = drover.new { nodes = {}, queue = { hold = 0.02 } }
    local _, e = router:pick()
    assert.equal("no_node", e.kind)
    assert.matches("waited 0%.0", e.message)
  end)

  it("holds while all nodes are drained", function()
    router = drover.new { queue = { hold = 10 },
                          nodes = { { id = "n",
                                      url = "http://127.0.0.1:9/v1" } } }
    router:drain("n")
    local task = drover.go(function() return router:pick() end)
    assert.equal(1, router:stats().waiting)
    router:drain("n", false)
    assert(drover.wait(task)):done()
  end)

  it("is for nodes, not for room", function()
    router = drover.new { queue = { hold = 10 }, limits = { concurrent = 1 },
                          nodes = { { url = "http://127.0.0.1:9/v1" } } }
    local first = assert(router:pick())
    local _, e = router:pick()
    assert.equal("overloaded", e.kind)
    first:done()
  end)

  it("does not hold what a policy refuses", function()
    router = drover.new { queue = { hold = 10 },
                          nodes = { { url = "http://127.0.0.1:9/v1" } },
                          policy = function(nodes)
                            return nodes.count > 100 and 1 or nil
                          end }
    local _, e = router:pick()
    assert.same({ "no_node", "policy_none" }, { e.kind, e.code })
    assert.equal("the policy takes none of the nodes", e.message)
  end)
end)


describe("router:batch() with rps", function()
  it("starts evenly, not in bursts", function()
    local server = testing.server { testing.reply "x" }
    local starts = {}
    local router = drover.new { nodes = { { url = server.url } },
                                policy = function(nodes)
      starts[#starts + 1] = drover.now()
      return nodes.count > 0 and 1 or nil
    end }
    starts = {}                 -- without those of the trial
    local list = {}
    for i = 1, 15 do
      list[i] = { messages = hi }
    end
    local _, failed = router:batch(list, { rps = 200, max_concurrent = 15 })
    assert.equal(0, failed)
    assert.equal(15, #starts)
    for i = 2, 15 do
      local after = starts[i] - starts[1]
      assert.is_true(after >= (i - 1) * 0.005 - 0.001, i .. ": " .. after)
    end
    router:close()
    server:stop()
  end)
end)
