local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local POLICIES = { "peak_ewma", "round_robin", "weighted_random",
                   "health_score", "least_inflight", "two_choices",
                   "fallback" }


-- A fixed sequence of numbers in [0, 1).
local function lots(seed)
  local x = seed or 1
  return function()
    x = (x * 16807) % 2147483647
    return x / 2147483647
  end
end


-- How often each row is chosen, in `n` decisions that claim nothing.
local function shares(r, n, model)
  local p, draw, got = router.pick(), lots(), {}
  if model then
    p.model = C.drover_hash(model, #model)
  end
  for i = 1, C.drover_node_count(r) do
    got[i] = 0
  end
  for _ = 1, n do
    C.drover_pick_begin(r, p, 10, draw())
    assert.equal(0, C.drover_pick_choose(r, p, router.err))
    got[p.node] = got[p.node] + 1
  end
  for i in ipairs(got) do
    got[i] = got[i] / n
  end
  return got
end


local function rows(r)
  return ffi.cast("drover_node *", C.drover_nodes(r))
end


describe("the built-in policies", function()
  it("have numbers and names", function()
    for i, name in ipairs(POLICIES) do
      assert.equal(i - 1, C.drover_policy(name))
      assert.equal(name, ffi.string(C.drover_policy_name(i - 1)))
    end
    assert.is_true(C.drover_policy_name(#POLICIES) == nil)
    assert.is_true(C.drover_policy_name(-1) == nil)
    assert.equal(C.DROVER_ENOTFOUND, C.drover_policy("none"))
  end)

  for _, name in ipairs(POLICIES) do
    describe(name, function()
      local r

      before_each(function() r = router.with(4, { policy = name }) end)
      after_each(function() router.close(r) end)

      it("chooses among all when nothing tells them apart", function()
        for _, share in ipairs(shares(r, 4000)) do
          assert.near(0.25, share, 0.06)
        end
      end)

      it("leaves out what is down, full, drained, tried or masked", function()
        local p = router.pick()
        rows(r)[1].inflight = 50
        C.drover_node_drain(r, "n2", 1)
        p.tried[0] = 4
        for rnd = 0, 0.99, 0.01 do
          C.drover_pick_begin(r, p, 1, rnd)
          rows(r)[1].inflight = 50
          assert.equal(0, C.drover_pick_choose(r, p, router.err))
          assert.equal(4, p.node)
        end
        p.masked[0] = 8
        rows(r)[1].inflight = 0
        assert.equal(0, C.drover_pick_choose(r, p, router.err))
        assert.equal(1, p.node)
      end)

      it("chooses only what takes the model", function()
        router.add(r, { id = "n5", models = { "small", "big" } })
        for i = 1, 4 do
          router.add(r, { id = "n" .. i, models = { "other" } })
        end
        assert.equal(1, shares(r, 50, "big")[5])
      end)

      it("works with one node, and with the highest row alone", function()
        for i = 1, 3 do
          C.drover_node_remove(r, "n" .. i)
        end
        assert.equal(1, shares(r, 200)[4])
      end)

      it("works when every figure is unknown or zero", function()
        for i = 1, 4 do
          rows(r)[i].weight = 0
          rows(r)[i].first_token_ms = 0
        end
        assert.is_true(shares(r, 100)[1] >= 0)
      end)
    end)
  end
end)


describe("the policy", function()
  local r
  after_each(function() router.close(r) end)

  it("round_robin takes turns, over all processes", function()
    r = router.with(3, { policy = "round_robin" })
    assert.same({ 1, 2 }, { router.turn(r, 1), router.turn(r, 1) })
    assert.equal(3, router.child(function() return router.turn(r, 1) end))
    assert.equal(1, router.turn(r, 1))
  end)

  it("round_robin gives the turn of a node that is down to nobody", function()
    r = router.with(4, { policy = "round_robin" })
    C.drover_node_drain(r, "n2", 1)
    local got = shares(r, 300)
    assert.near(1 / 3, got[1], 0.01)
    assert.near(1 / 3, got[3], 0.01)
  end)

  it("weighted_random follows the weights", function()
    r = router.with(0, { policy = "weighted_random" })
    for i, weight in ipairs{ 1, 2, 5, 0 } do
      router.add(r, { id = "n" .. i, weight = weight })
    end
    local got = shares(r, 8000)
    for i, share in ipairs{ 1 / 8, 2 / 8, 5 / 8, 0 } do
      assert.near(share, got[i], 0.02)
    end
  end)

  it("least_inflight takes the least loaded, ties by lot", function()
    r = router.with(4, { policy = "least_inflight" })
    rows(r)[1].inflight, rows(r)[2].inflight = 2, 1
    rows(r)[3].inflight, rows(r)[4].inflight = 1, 3
    local got = shares(r, 2000)
    assert.same({ 0, 0 }, { got[1], got[4] })
    assert.near(0.5, got[2], 0.05)
  end)

  it("two_choices never takes the worst, and weighs the load", function()
    r = router.with(3, { policy = "two_choices" })
    rows(r)[1].inflight, rows(r)[2].inflight, rows(r)[3].inflight = 9, 4, 5
    rows(r)[2].weight = 0.1                         -- 4 there is a lot
    local got = shares(r, 3000)
    assert.equal(0, got[2])
    assert.near(2 / 3, got[3], 0.05)
  end)

  it("peak_ewma weighs first-token time by what is in flight", function()
    r = router.with(2, { policy = "peak_ewma" })
    rows(r)[1].first_token_ms, rows(r)[2].first_token_ms = 100, 30
    assert.equal(1, shares(r, 100)[2])
    rows(r)[2].inflight = 3                         -- 120 against 100
    assert.equal(1, shares(r, 100)[1])
    rows(r)[1].weight = 0.5
    assert.equal(1, shares(r, 100)[2])
  end)

  it("peak_ewma compares load alone while a time is unknown", function()
    r = router.with(2, { policy = "peak_ewma" })
    rows(r)[1].first_token_ms = 5000
    rows(r)[2].inflight = 1
    assert.equal(1, shares(r, 100)[1])
  end)

  it("fallback stays in the lowest tier that has room", function()
    r = router.with(0, { policy = "fallback" })
    for i, tier in ipairs{ 2, 0, 0, 1 } do
      router.add(r, { id = "n" .. i, tier = tier })
    end
    local got = shares(r, 1000)
    assert.same({ 0, 0 }, { got[1], got[4] })
    assert.near(0.5, got[2], 0.06)
    C.drover_node_drain(r, "n2", 1)
    C.drover_node_drain(r, "n3", 1)
    assert.equal(1, shares(r, 50)[4])
    C.drover_node_drain(r, "n4", 1)
    assert.equal(1, shares(r, 50)[1])
  end)

  it("fallback takes the less loaded of a tier", function()
    r = router.with(2, { policy = "fallback" })
    rows(r)[2].inflight = 1
    assert.equal(1, shares(r, 100)[1])
  end)

  describe("health_score", function()
    local nan = 0 / 0

    local function report(id, memory, load, now)
      C.drover_node_report(r, id, ffi.new("drover_report", memory, load, nan,
                                          nan, nan), now)
    end

    it("draws in proportion to the score", function()
      r = router.with(2, { policy = "health_score", now = 10 })
      report("n1", 40, 0, 10)                       -- 0.3 + 0.4 + 0.225
      report("n2", 10, 60, 10)                      -- 0.075 + 0.16 + 0.225
      local got = shares(r, 8000)
      assert.near(0.925 / (0.925 + 0.46), got[1], 0.02)
    end)

    it("leaves out a score of 0.3 or less", function()
      r = router.with(2, { policy = "health_score", now = 10 })
      for _ = 1, 4 do                               -- 0.4 * (1 - load), slow
        router.hit(r, 1, 10, { code = C.DROVER_ETIMEOUT })
      end
      router.hit(r, 2, 10)
      assert.equal(1, shares(r, 500)[2])
    end)

    it("leaves out what was not seen for 30 s", function()
      r = router.with(2, { policy = "health_score", now = 10 })
      report("n2", 40, 0, 20)
      local p = router.pick()
      for rnd = 0, 0.9, 0.1 do
        C.drover_pick_begin(r, p, 41, rnd)
        C.drover_pick_choose(r, p, router.err)
        assert.equal(2, p.node)
      end
    end)

    it("lets all take part when none qualifies, and counts that", function()
      r = router.with(2, { policy = "health_score", now = 10 })
      local p = router.pick()
      C.drover_pick_begin(r, p, 1000, 0.9)
      assert.equal(0, C.drover_pick_choose(r, p, router.err))
      local totals = ffi.new("drover_totals")
      C.drover_router_totals(r, totals, 1000)
      assert.equal(1, totals.unqualified)
    end)
  end)
end)
