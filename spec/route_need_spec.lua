-- Decisions when few nodes or none will do: why, how long, and panic.
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


describe("no node", function()
  local r
  after_each(function() router.close(r) end)

  local function refused(p)
    return { tonumber(p.refused_scope), tonumber(p.refused_kind) }
  end

  local function cool(row, now, seconds)
    assert(router.hit(r, row, now, { code = C.DROVER_ERATELIMITED,
                                     retry_after = seconds }))
  end

  it("because all cool: says rate limited, and when the first is back",
     function()
    r = router.with(3)
    for row, seconds in ipairs{ 30, 12, 50 } do
      cool(row, 10, seconds)
    end
    local rc, p = pick(r, 11)
    assert.equal(C.DROVER_ERATELIMITED, rc)
    assert.near(11, p.wait, 0.02)
    assert.same({ tonumber(C.DROVER_SCOPE_NODE),
                  tonumber(C.DROVER_LIMIT_UPSTREAM) }, refused(p))
    assert.equal(0, (pick(r, 22.02)))
  end)

  it("because some cool and the others are out: says rate limited", function()
    r = router.with(2)
    put_out(r, 1, 10)
    cool(2, 10, 40)
    local rc, p = pick(r, 10.1)
    assert.equal(C.DROVER_ERATELIMITED, rc)
    assert.near(39.9, p.wait, 0.02)
  end)

  it("because all are out: says when the first probe is", function()
    r = router.with(2)
    put_out(r, 1, 10)
    put_out(r, 2, 13)
    local stats = ffi.new("drover_node_stats")
    C.drover_node_stat(r, 1, stats, 12)
    local rc, p = pick(r, 12)
    assert.equal(C.DROVER_ENONODE, rc)
    assert.near(stats.out_for, p.wait, 1e-9)
    rc, p = pick(r, 15)                             -- probes the first
    assert.same({ 0, 1 }, { rc, p.node })
    local code, second = pick(r, 15)
    assert.equal(C.DROVER_ENONODE, code)
    assert.is_true(second.wait > 0 and second.wait <= 1)
  end)

  it("because their keys are refused: says that none is up", function()
    r = router.with(1)
    router.hit(r, 1, 10, { code = C.DROVER_EUNAUTHORIZED })
    local rc, p = pick(r, 20)
    assert.equal(C.DROVER_ENONODE, rc)
    assert.near(50, p.wait, 0.02)
  end)

  it("because one is full and the other cools: says overloaded", function()
    r = router.with(2, { node = { capacity = 1 } })
    cool(2, 10, 40)
    pick(r, 10)
    local rc, p = pick(r, 10)
    assert.equal(C.DROVER_EOVERLOADED, rc)
    assert.equal(0, p.wait)
    assert.same({ tonumber(C.DROVER_SCOPE_NODE),
                  tonumber(C.DROVER_LIMIT_CONCURRENT) }, refused(p))
  end)

  it("because the last is out of its rate: the wait is the shorter", function()
    r = router.with(2)
    cool(1, 10, 40)
    local nan = 0 / 0
    for _, reset in ipairs{ 60, 20 } do
      local u = ffi.new("drover_upstream", nan, 0, reset, nan, nan, nan)
      C.drover_node_upstream(r, 2, C.drover_nodes(r)[2].version, u, 10)
      local rc, p = pick(r, 10)
      assert.equal(C.DROVER_ERATELIMITED, rc)
      assert.near(math.min(40, reset), p.wait, 0.02)
    end
  end)

  it("is not remembered in the next decision", function()
    r = router.with(1)
    cool(1, 10, 5)
    local _, p = pick(r, 10)
    assert.is_true(p.wait > 0)
    assert.equal(0, C.drover_pick_node(r, p, 15.1, 0, err))
    assert.same({ 0, 0, 0 }, { p.wait, tonumber(p.refused_kind),
                               tonumber(p.panic) })
  end)
end)


describe("panic", function()
  local r
  after_each(function() router.close(r) end)

  local function panics()
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(r, totals, 10)
    return totals.panics
  end

  -- Four nodes of one place each, those of `out` put out.
  local function pool(out, policy)
    r = router.with(4, { node = { capacity = 1 }, policy = policy })
    for _, row in ipairs(out) do
      put_out(r, row, 10)
    end
  end

  for _, policy in ipairs{ "peak_ewma", "round_robin", "weighted_random",
                           "health_score", "least_inflight", "two_choices",
                           "fallback" } do
    it("uses nodes that are out when the one that is up is full, by "
       .. policy, function()
      pool({ 1, 2, 4 }, policy)
      local _, first = pick(r, 10.1, 0.4)
      assert.equal(3, first.node)
      local rc, p = pick(r, 10.1, 0.4)
      assert.equal(0, rc)
      assert.is_true(p.node ~= 3)
      assert.equal(C.DROVER_OUT, C.drover_nodes(r)[p.node].state)
      assert.equal(1, panics())
      C.drover_ticket_sent(r, p)                    -- a success proves nothing
      C.drover_ticket_done(r, p, router.outcome(), 10.2)
      assert.equal(C.DROVER_OUT, C.drover_nodes(r)[p.node].state)
      for _ = 1, 3 do
        assert.equal(0, (pick(r, 10.2, 0.4)))
      end
      assert.equal(C.DROVER_EOVERLOADED, (pick(r, 10.2, 0.4)))
      assert.equal(4, C.drover_inflight(r, 0))
    end)
  end

  it("leaves nodes that are out alone while one that is up has room", function()
    pool({ 1, 2, 4 })
    for _ = 1, 20 do
      assert.equal(3, (router.turn(r, 10.1, 0.4)))
    end
    assert.equal(0, panics())
  end)

  it("is over with the decision", function()
    pool({ 1, 2, 4 })
    local _, first = pick(r, 10.1)
    local rc, p = pick(r, 10.1)
    assert.same({ 0, 1 }, { rc, p.panic })
    for _, held in ipairs{ first, p } do
      C.drover_ticket_done(r, held, router.outcome(), 10.1)
    end
    for i = 1, 20 do
      assert.equal(0, C.drover_pick_node(r, p, 10.1, i / 21, err))
      assert.equal(3, p.node)
      C.drover_ticket_done(r, p, router.outcome(), 10.1)
    end
  end)

  it("does not come for batches", function()
    pool({ 1, 2, 4 })
    pick(r, 10.1)
    local batch = { priority = C.DROVER_BATCH }
    assert.equal(C.DROVER_EOVERLOADED, (pick(r, 10.1, 0, batch)))
    assert.equal(0, (pick(r, 10.1)))
  end)

  it("does not come for a retry where the one that is up has room", function()
    pool({ 1, 2, 4 })
    local _, p = pick(r, 10.1)
    C.drover_ticket_sent(r, p)
    C.drover_ticket_done(r, p, router.outcome{ code = C.DROVER_ERESET }, 10.1)
    assert.equal(C.DROVER_ENONODE, C.drover_pick_node(r, p, 10.1, 0, err))
    assert.matches("tried", why())
  end)

  it("does not come while half of them are up, nor when none is", function()
    pool({ 1, 2 })
    pick(r, 10.1)
    pick(r, 10.1)
    assert.equal(C.DROVER_EOVERLOADED, (pick(r, 10.1)))
    router.close(r)
    pool({ 1, 2, 3, 4 })
    assert.equal(C.DROVER_ENONODE, (pick(r, 10.1)))
    assert.equal(0, panics())
  end)

  it("never uses a node that cools or whose key is refused", function()
    pool({ 1 })
    router.hit(r, 2, 10, { code = C.DROVER_ERATELIMITED, retry_after = 60 })
    router.hit(r, 4, 10, { code = C.DROVER_EUNAUTHORIZED })
    assert.equal(3, select(2, pick(r, 10.1)).node)
    assert.equal(1, select(2, pick(r, 10.1)).node)
    assert.equal(C.DROVER_EOVERLOADED, (pick(r, 10.1)))
    assert.equal(1, panics())
  end)

  it("counts the nodes of the model alone", function()
    r = router.with(0)
    for i, models in ipairs{ { "a" }, { "a" }, { "b" }, { "b" } } do
      router.add(r, { id = "n" .. i, models = models, capacity = 1 })
    end
    put_out(r, 1, 10)
    local a = C.drover_hash("a", 1)
    pick(r, 10.1, 0, { model = a })                 -- one of two is up
    assert.equal(C.DROVER_EOVERLOADED, (pick(r, 10.1, 0, { model = a })))
  end)

  it("is not taken for the row that a request must have", function()
    pool({ 1, 2, 4 })
    pick(r, 10.1)
    assert.equal(C.DROVER_ENONODE, (pick(r, 10.1, 0, { only = 1 })))
  end)
end)


describe("an operator who has mended a node", function()
  it("brings it back at once and in full", function()
    local r = router.with(2)
    put_out(r, 1, 10)
    assert.equal(0, C.drover_node_clear(r, "n1", 10.1))
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[1].state)
    assert.equal(1, C.drover_nodes(r)[1].weight)
    local seen = {}
    for _ = 1, 2 do
      seen[router.turn(r, 10.2)] = true
    end
    assert.same({ true, true }, seen)
    router.close(r)
  end)
end)
