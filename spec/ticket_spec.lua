local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local err = router.err
local stats = ffi.new("drover_node_stats")


local function take(r, row)
  local p = router.pick()
  C.drover_pick_begin(r, p, 1, 0.5)
  assert.equal(0, C.drover_pick_claim(r, p, row or 1, err))
  return p
end


local function stat(r, row)
  assert.equal(0, C.drover_node_stat(r, row or 1, stats, 1))
  return stats
end


local function attempts(r, kind, node)
  return router.series(router.expose(r), ('drover_attempts_total{node="%s",kind="%s"}')
    :format(node or "n1", kind)) or 0
end


describe("a ticket", function()
  local r

  before_each(function() r = router.with(2) end)
  after_each(function() router.close(r) end)

  it("is settled once", function()
    local p = take(r)
    local copy = ffi.new("drover_pick", p)
    C.drover_ticket_sent(r, p)
    assert.equal(0, C.drover_ticket_done(r, p, router.outcome(), 1))
    assert.equal(0, p.ticket)
    assert.equal(C.DROVER_ECLOSED,
                 C.drover_ticket_done(r, p, router.outcome(), 1))
    assert.equal(C.DROVER_ECLOSED,
                 C.drover_ticket_done(r, copy, router.outcome(), 1))
    assert.equal(C.DROVER_ECLOSED, C.drover_ticket_sent(r, p))
    assert.equal(1, attempts(r, "ok"))
    assert.equal(0, C.drover_inflight(r, 0))
  end)

  it("is refused when its number serves another by now", function()
    local p = take(r)
    local stale = ffi.new("drover_pick", p)
    C.drover_ticket_done(r, p, router.outcome(), 1)
    local q = take(r)
    assert.equal(stale.ticket, q.ticket)
    assert.equal(C.DROVER_ECLOSED,
                 C.drover_ticket_done(r, stale, router.outcome(), 1))
    assert.equal(1, C.drover_inflight(r, 1))
    assert.equal(0, C.drover_ticket_done(r, q, router.outcome(), 1))
  end)

  it("is refused with numbers that are none", function()
    local p = take(r)
    for _, number in ipairs{ 2, 4096, 4097, 4294967295 } do
      local bad = ffi.new("drover_pick", p)
      bad.ticket = number
      assert.equal(C.DROVER_ECLOSED, C.drover_ticket_sent(r, bad))
      assert.equal(C.DROVER_ECLOSED,
                   C.drover_ticket_done(r, bad, router.outcome(), 1))
    end
    assert.equal(1, C.drover_inflight(r, 0))
  end)

  it("counts as an attempt when it was sent, not else", function()
    C.drover_ticket_done(r, take(r), router.outcome{ code = C.DROVER_ECANCELLED },
                         1)
    assert.equal(0, stat(r).requests)
    local p = take(r)
    assert.equal(0, C.drover_ticket_sent(r, p))
    C.drover_ticket_done(r, p, router.outcome{
      prompt_tokens = 9, completion_tokens = 40, cached_tokens = 4,
      dollars = 0.25 }, 1)
    p = take(r)
    C.drover_ticket_sent(r, p)
    C.drover_ticket_done(r, p, router.outcome{ code = C.DROVER_ETIMEOUT }, 1)
    local s = stat(r)
    assert.same({ 2, 1, 9, 40, 4, 0.25 }, { s.requests, s.failures,
      s.input_tokens, s.output_tokens, s.cached_tokens, s.dollars })
    assert.equal(C.DROVER_ETIMEOUT, s.last_code)
    assert.equal(0, stat(r, 2).requests)
  end)

  it("is one of as many as the zone was made for", function()
    local small = router.with(1, { tickets_max = 3 })
    local open = {}
    for i = 1, 3 do
      open[i] = take(small)
    end
    local p = router.pick()
    assert.equal(C.DROVER_ERESOURCE, C.drover_pick_node(small, p, 1, 0, err))
    assert.equal(3, C.drover_inflight(small, 0))
    C.drover_ticket_done(small, open[2], router.outcome(), 1)
    open[2] = take(small)
    assert.equal(3, C.drover_inflight(small, 0))
    router.close(small)
  end)

  it("is settled as cancelled when its handle closes", function()
    local name = "ticket.close"
    local keep = assert(router.open{ name = name, shared = true })
    router.add(keep, { id = "n1" })
    local one = assert(router.open{ name = name, shared = true })
    local p = take(one)
    take(one)
    C.drover_ticket_sent(one, p)
    assert.equal(2, C.drover_inflight(keep, 1))
    router.close(one)
    assert.equal(0, C.drover_inflight(keep, 1))
    assert.equal(1, attempts(keep, "cancelled"))
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(keep, totals, 1)
    assert.equal(0, totals.members)
    router.close(keep)
  end)

  it("belongs to its process: a child has tickets of its own", function()
    local p = take(r)
    assert.equal(0, router.child(function()
      assert(C.drover_ticket_sent(r, p) == C.DROVER_ECLOSED)
      local copy = ffi.new("drover_pick", p)
      local own = take(r)
      assert(C.drover_ticket_done(r, copy, router.outcome(), 1)
             == C.DROVER_ECLOSED)
      assert(C.drover_inflight(r, 0) == 2)
      C.drover_ticket_done(r, own, router.outcome(), 1)
      router.close(r)                               -- settles nothing of ours
    end))
    assert.equal(1, C.drover_inflight(r, 0))
    assert.equal(0, C.drover_ticket_done(r, p, router.outcome(), 1))
  end)
end)


describe("the tick", function()
  local r

  before_each(function() r = router.with(2, { members_max = 3 }) end)
  after_each(function() router.close(r) end)

  it("takes back all that a dead process held", function()
    router.child(function()
      take(r, 1)
      C.drover_ticket_sent(r, take(r, 2))
    end)
    assert.equal(2, C.drover_inflight(r, 0))
    assert.equal(1, C.drover_tick(r, 2))
    assert.equal(0, C.drover_tick(r, 2))
    for i = 0, 2 do
      assert.equal(0, C.drover_inflight(r, i))
    end
    assert.equal(0, C.drover_nodes(r)[2].inflight)
    assert.equal(0, attempts(r, "lost", "n1"))
    assert.equal(1, attempts(r, "lost", "n2"))
  end)

  it("keeps the counters of the dead", function()
    for _ = 1, 5 do
      router.child(function() router.hit(r, 1, 1) end)
      C.drover_tick(r, 2)
    end
    assert.equal(5, attempts(r, "ok"))
  end)

  it("does not hurt a node for what its client lost", function()
    for _ = 1, 6 do
      router.child(function() C.drover_ticket_sent(r, take(r, 1)) end)
      C.drover_tick(r, 2)
    end
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[1].state)
    assert.equal(0, stat(r).fails)
    local rate = C.drover_nodes(r)[1].error_rate
    assert.is_true(rate ~= rate)
  end)

  it("leaves the living alone", function()
    local p = take(r, 1)
    router.child(function() assert(C.drover_tick(r, 2) == 0) end)
    assert.equal(1, C.drover_inflight(r, 1))
    assert.equal(0, C.drover_ticket_done(r, p, router.outcome(), 2))
  end)

  it("makes room for members when all slots were taken by the dead", function()
    for _ = 1, 3 do
      router.child(function() take(r, 1) end)
    end
    local p = router.pick()
    assert.equal(C.DROVER_ERESOURCE, C.drover_pick_node(r, p, 1, 0, err))
    assert.matches("members", ffi.string(err.text))
    assert.equal(3, C.drover_tick(r, 2))
    assert.equal(0, C.drover_pick_node(r, p, 1, 0, err))
    C.drover_ticket_done(r, p, router.outcome(), 2)
  end)

  it("writes the sums into the rows", function()
    local p = take(r, 1)
    ffi.cast("drover_node *", C.drover_nodes(r))[1].inflight = 40
    C.drover_tick(r, 2)
    assert.equal(1, C.drover_nodes(r)[1].inflight)
    C.drover_ticket_done(r, p, router.outcome(), 2)
  end)
end)
