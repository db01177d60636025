local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local err = router.err


local function pick(r, now, rnd, fields)
  local p = router.pick()
  for k, v in pairs(fields or {}) do
    p[k] = v
  end
  return C.drover_pick_node(r, p, now or 1, rnd or 0, err), p
end


local function why()
  return ffi.string(err.text)
end


-- Five failures in a row at `now`; the jitter is drawn from `rnd`.
local function put_out(r, row, now)
  for _ = 1, 5 do
    assert(router.hit(r, row, now, { code = C.DROVER_ERESET }))
  end
  assert.equal(C.DROVER_OUT, C.drover_nodes(r)[row].state)
end


describe("opening a router", function()
  for _, bad in ipairs{
    { "name", { name = "" } }, { "name", { name = ("n"):rep(64) } },
    { "nodes_max", { nodes_max = 513 } }, { "members_max", { members_max = 257 } },
    { "tickets_max", { tickets_max = 65537 } },
  } do
    it("refuses a bad " .. bad[1], function()
      local r, code, text = router.open(bad[2])
      assert.is_nil(r)
      assert.equal(C.DROVER_EINVAL, code)
      assert.matches(bad[1], text)
    end)
  end

  it("finds a zone by name in the same process and in children", function()
    local a = assert(router.open{ name = "route.a", shared = true })
    router.add(a, { id = "x" })
    local b = assert(router.open{ name = "route.a", shared = true,
                                  create = false })
    assert.equal(1, C.drover_node_find(b, "x"))
    assert.equal(1, C.drover_router_private(b))
    assert.equal(7, router.child(function()
      local inside = assert(router.open{ name = "route.a", shared = true,
                                         create = false })
      assert(C.drover_router_private(inside) == 0)
      assert(C.drover_router_private(a) == 0)
      return C.drover_node_find(inside, "x") + 6
    end))
    router.close(a)
    assert.equal(1, C.drover_node_find(b, "x"))
    router.close(b)
  end)

  it("does not find a zone that nobody made", function()
    local r, code, text = router.open{ name = "route.none", shared = true,
                                       create = false }
    assert.is_nil(r)
    assert.equal(C.DROVER_ENOTFOUND, code)
    assert.matches("route.none", text)
  end)

  it("keeps zones without shared apart", function()
    local a, b = router.with(1), router.open()
    assert.equal(0, C.drover_node_count(b))
    router.close(a)
    router.close(b)
  end)

  it("refuses more room than the zone was made for, clearly", function()
    local a = assert(router.open{ name = "route.b", shared = true,
                                  nodes_max = 8 })
    local b, code, text = router.open{ name = "route.b", shared = true,
                                       nodes_max = 9 }
    assert.is_nil(b)
    assert.equal(C.DROVER_ERESOURCE, code)
    assert.matches("made for 8 nodes", text)
    b, code, text = router.open{ name = "route.b", shared = true,
                                 queue_max = 1001 }
    assert.is_nil(b)
    assert.equal(C.DROVER_ERESOURCE, code)
    assert.matches('queue.size: router "route.b" was made for 1000', text)
    router.close(assert(router.open{ name = "route.b", shared = true,
                                     nodes_max = 4 }))
    router.close(a)
  end)
end)


describe("a decision", function()
  local r
  after_each(function() router.close(r) end)

  it("opens a ticket on the chosen row", function()
    r = router.with(2)
    local rc, p = pick(r)
    assert.equal(0, rc)
    assert.equal(1, p.node)
    assert.equal(C.drover_nodes(r)[1].version, p.version)
    assert.equal(1, C.drover_nodes(r)[1].inflight)
    assert.equal(1, C.drover_inflight(r, 0))
    assert.is_true(p.ticket > 0)
  end)

  it("books prompt and reply tokens until it is settled", function()
    r = router.with(1)
    local _, p = pick(r, 1, 0, { prompt_tokens = 100, max_tokens = 20 })
    assert.equal(120, C.drover_nodes(r)[1].inflight_tokens)
    C.drover_ticket_done(r, p, router.outcome(), 1)
    assert.equal(0, C.drover_nodes(r)[1].inflight_tokens)
    _, p = pick(r, 1, 0, { prompt_tokens = 4e9, max_tokens = 4e9 })
    assert.equal(4294967295, C.drover_nodes(r)[1].inflight_tokens)
    C.drover_ticket_done(r, p, router.outcome(), 1)
    assert.equal(0, C.drover_nodes(r)[1].inflight_tokens)
  end)

  it("says that the router is empty", function()
    r = router.with(0)
    assert.equal(C.DROVER_ENONODE, pick(r))
    assert.matches("no nodes", why())
  end)

  it("says that no node takes the model", function()
    r = router.with(1, { node = { models = { "a" } } })
    assert.equal(C.DROVER_ENOTFOUND,
                 (pick(r, 1, 0, { model = C.drover_hash("b", 1) })))
    assert.equal(0, (pick(r, 1, 0, { model = C.drover_hash("a", 1) })))
    assert.equal(0, (pick(r)))
  end)

  it("says that none is up", function()
    r = router.with(2)
    put_out(r, 1, 1)
    C.drover_node_drain(r, "n2", 1)
    assert.equal(C.DROVER_ENONODE, (pick(r, 1.1)))
    assert.matches("none of 2", why())
  end)

  it("says that all are full, and takes the next when there is room", function()
    r = router.with(2, { node = { capacity = 1 } })
    local _, p = pick(r)
    assert.equal(0, (pick(r)))
    assert.equal(C.DROVER_EOVERLOADED, (pick(r)))
    assert.matches("capacity", why())
    C.drover_ticket_done(r, p, router.outcome(), 1)
    local rc, q = pick(r)
    assert.same({ 0, 1 }, { rc, q.node })
  end)

  it("does not believe a row that only looks full", function()
    r = router.with(2, { node = { capacity = 1 } })
    for i = 1, 2 do                 -- a lost update of the advisory number
      ffi.cast("drover_node *", C.drover_nodes(r))[i].inflight = 1
    end
    assert.equal(0, (pick(r)))
    assert.equal(1, C.drover_pick_may(r, router.pick(), 2))
  end)

  it("does not pass a full row that only looks free", function()
    r = router.with(1, { node = { capacity = 1 } })
    assert.equal(0, (pick(r)))
    ffi.cast("drover_node *", C.drover_nodes(r))[1].inflight = 0
    assert.equal(C.DROVER_EOVERLOADED, (pick(r)))
    assert.equal(1, C.drover_nodes(r)[1].inflight)
  end)

  it("says that the router is full", function()
    r = router.with(2, { concurrent = 2 })
    assert.same({ 0, 0 }, { (pick(r)), (pick(r)) })
    local rc, p = pick(r)
    assert.equal(C.DROVER_EOVERLOADED, rc)
    assert.equal(0, p.ticket)
    assert.matches("2 requests in flight", why())
  end)

  it("tries another node on a retry, the same only when asked", function()
    r = router.with(2)
    local _, p = pick(r)
    C.drover_ticket_sent(r, p)
    assert.equal(1, C.drover_pick_tried(p, 1))
    assert.equal(0, C.drover_pick_tried(p, 2))
    C.drover_ticket_done(r, p, router.outcome{ code = C.DROVER_ERESET }, 1)
    assert.equal(0, C.drover_pick_node(r, p, 1, 0, err))
    assert.equal(2, p.node)
    C.drover_ticket_sent(r, p)
    C.drover_ticket_done(r, p, router.outcome(), 1)
    assert.equal(C.DROVER_ENONODE, C.drover_pick_node(r, p, 1, 0, err))
    assert.matches("tried", why())
    p.again = 1
    assert.equal(0, C.drover_pick_node(r, p, 1, 0, err))
    C.drover_ticket_done(r, p, router.outcome(), 1)
    p.again = 0
    C.drover_pick_reset(p)
    assert.equal(0, C.drover_pick_node(r, p, 1, 0, err))
  end)

  it("takes the row that it is told, or none", function()
    r = router.with(3)
    local rc, p = pick(r, 1, 0, { only = 2 })
    assert.same({ 0, 2 }, { rc, p.node })
    C.drover_node_drain(r, "n3", 1)
    assert.equal(C.DROVER_ENONODE, (pick(r, 1, 0, { only = 3 })))
    assert.equal(C.DROVER_ENONODE, (pick(r, 1, 0, { only = 9 })))
  end)

  it("masks a row that refuses, for this decision", function()
    r = router.with(2, { node = { capacity = 1 } })
    pick(r)
    local p = router.pick()
    C.drover_pick_begin(r, p, 1, 0)
    assert.equal(C.DROVER_EAGAIN, C.drover_pick_claim(r, p, 1, err))
    assert.equal(0, C.drover_pick_may(r, p, 1))
    assert.equal(C.DROVER_EAGAIN, C.drover_pick_claim(r, p, 1, err))
    assert.equal(0, C.drover_pick_claim(r, p, 2, err))
    assert.equal(2, p.node)
  end)

  it("refuses rows that are none, and a second ticket on one pick", function()
    r = router.with(1)
    local p = router.pick()
    C.drover_pick_begin(r, p, 1, 0)
    for _, row in ipairs{ 0, 2, 4294967295 } do
      assert.equal(C.DROVER_EINVAL, C.drover_pick_claim(r, p, row, err))
      assert.equal(0, C.drover_pick_may(r, p, row))
    end
    assert.equal(0, C.drover_pick_claim(r, p, 1, err))
    assert.equal(C.DROVER_EINVAL, C.drover_pick_claim(r, p, 1, err))
    assert.equal(1, C.drover_inflight(r, 0))
  end)

  it("takes any random number and any time", function()
    r = router.with(3, { policy = "two_choices" })
    for _, rnd in ipairs{ 0, 1, -1, 0 / 0, 1e300, 0.9999999999999999 } do
      local rc, p = pick(r, 1, rnd)
      assert.equal(0, rc)
      assert.equal(0, C.drover_ticket_done(r, p, router.outcome(), 1))
    end
    assert.equal(0, (pick(r, 0 / 0, 0.5)))
  end)
end)


describe("a probe", function()
  for _, policy in ipairs{ "peak_ewma", "health_score", "fallback",
                           "least_inflight", "weighted_random" } do
    it("is sent when it is due, whatever " .. policy .. " prefers", function()
      local r = router.with(0, { policy = policy })
      router.add(r, { id = "bad", tier = 5, weight = 0 })
      router.add(r, { id = "good" })
      put_out(r, 1, 1)
      for now = 1.1, 3.4, 0.2 do
        assert.equal(2, (router.turn(r, now, 0.3)))
      end
      local rc, p = pick(r, 6.1, 0.3)
      assert.same({ 0, 1 }, { rc, p.node })
      assert.equal(C.DROVER_PROBING, C.drover_nodes(r)[1].state)
      assert.equal(2, (router.turn(r, 6.2, 0.3)))   -- one at a time
      C.drover_ticket_sent(r, p)
      C.drover_ticket_done(r, p, router.outcome(), 6.3)
      assert.equal(1, (router.turn(r, 6.32, 0.3)))  -- the second
      assert.equal(C.DROVER_UP, C.drover_nodes(r)[1].state)
      router.close(r)
    end)
  end

  it("is offered to a policy of the caller's by pick_begin", function()
    local r = router.with(2)
    put_out(r, 2, 1)
    local p = router.pick()
    C.drover_pick_begin(r, p, 2, 0)
    assert.equal(0, p.node)
    C.drover_pick_begin(r, p, 7, 0)
    assert.equal(2, p.node)
    assert.equal(1, C.drover_pick_may(r, p, 2))
    p.tried[0] = 2
    C.drover_pick_begin(r, p, 7, 0)
    assert.equal(0, p.node)
    router.close(r)
  end)

  it("is not lost with a request that is cancelled", function()
    local r = router.with(1)
    put_out(r, 1, 1)
    local _, p = pick(r, 7)
    C.drover_ticket_done(r, p, router.outcome{ code = C.DROVER_ECANCELLED }, 8)
    assert.equal(C.DROVER_OUT, C.drover_nodes(r)[1].state)
    assert.equal(1, (router.turn(r, 8.02)))
    assert.equal(1, (router.turn(r, 8.04)))
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[1].state)
    router.close(r)
  end)

  it("is not held by a request that the router's limit refused", function()
    local r = router.with(2, { concurrent = 1 })
    put_out(r, 1, 1)
    local _, p = pick(r, 2)
    assert.equal(2, p.node)
    assert.equal(C.DROVER_EOVERLOADED, (pick(r, 7)))
    assert.equal(C.DROVER_OUT, C.drover_nodes(r)[1].state)
    C.drover_ticket_done(r, p, router.outcome(), 7)
    assert.equal(1, (router.turn(r, 7.1)))
    router.close(r)
  end)

  it("of a killed worker goes to the next at the tick", function()
    local r = router.with(1)
    put_out(r, 1, 1)
    router.child(function() assert(pick(r, 7) == 0) end)
    assert.equal(C.DROVER_PROBING, C.drover_nodes(r)[1].state)
    assert.equal(1, C.drover_tick(r, 7.2))
    assert.equal(1, (router.turn(r, 7.3)))
    router.close(r)
  end)

  it("is needed after five failures over all workers together", function()
    local r = router.with(1)
    for _ = 1, 5 do
      router.child(function()
        router.hit(r, 1, 1, { code = C.DROVER_EUNREACHABLE })
      end)
    end
    assert.equal(C.DROVER_OUT, C.drover_nodes(r)[1].state)
    local stats = ffi.new("drover_node_stats")
    C.drover_node_stat(r, 1, stats, 1)
    assert.equal(5, stats.fails)
    assert.equal(C.DROVER_EUNREACHABLE, stats.last_code)
    assert.is_true(stats.out_for >= 2.5 and stats.out_for <= 5)
    router.close(r)
  end)
end)
