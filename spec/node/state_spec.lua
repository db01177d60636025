local ffi = require "ffi"
local breaker = require "spec.support.breaker"
local c = require "spec.support.c"
local C = c.lib

local new_node, out_node, close = breaker.new_node, breaker.out_node, breaker.close
local near = breaker.near
local NEUTRAL, SUCCESS, FAILURE = breaker.NEUTRAL, breaker.SUCCESS, breaker.FAILURE
local LIMITED, REFUSED, SPENT = breaker.LIMITED, breaker.REFUSED, breaker.SPENT
local ACTIVE, DRAINING, OUT = breaker.ACTIVE, breaker.DRAINING, breaker.OUT


describe("a 429", function()
  it("keeps the row back until the time it asks for, without a probe", function()
    local n = new_node()
    local under_way = n.enter(100)
    assert.equal(OUT, n.turn(LIMITED, 100, 0.5, 7.5))
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.equal(C.DROVER_WHY_RATE, n.why())
    assert.equal(1, C.node_breaker_cooling(n.own, 107.4))
    near(7.5, n.out_for(100))
    assert.is_false(n.enter(107.4))
    n.settle(under_way, SUCCESS, 104)               -- does not end it
    assert.is_false(n.enter(107.4))
    local permit = n.enter(107.5)
    assert.equal(0, permit.probe)
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(1, C.node_breaker_part(n.own, 107.5))
    assert.equal(0, C.node_breaker_fails(n.own))
  end)

  for _, row in ipairs{ { 1e9, 300 }, { 1 / 0, 300 }, { 300.5, 300 },
                        { 0.01, 0.05 } } do
    it("that asks for " .. row[1] .. " s cools " .. row[2], function()
      local n = new_node()
      n.turn(LIMITED, 100, 0.5, row[1])
      near(row[2], n.out_for(100))
    end)
  end

  it("moves the deadline only later", function()
    local n = new_node()
    local a, b, d = n.enter(100), n.enter(100), n.enter(100)
    n.settle(a, LIMITED, 100, 0, 20)
    n.settle(b, LIMITED, 101, 0, 5)
    near(20, n.out_for(100))
    n.settle(d, LIMITED, 101, 0, 60)
    near(61, n.out_for(100))
  end)

  it("without Retry-After waits a growing, jittered time", function()
    local n, now = new_node(), 100
    local waits = {}
    for i = 1, 8 do
      n.turn(LIMITED, now, 1)
      waits[i] = math.floor(n.out_for(now) + 0.5)
      now = now + waits[i] + 1
    end
    assert.same({ 1, 2, 4, 8, 16, 32, 60, 60 }, waits)
    n.turn(LIMITED, now, 0.25)
    near(15, n.out_for(now))
    n.turn(SUCCESS, now + 16)                       -- and begins anew
    n.turn(LIMITED, now + 16, 1)
    near(1, n.out_for(now + 16))
    n.turn(LIMITED, now + 18, 0)
    near(0.05, n.out_for(now + 18))
  end)

  it("begins anew behind a closing too", function()
    local n = new_node()
    n.turn(LIMITED, 100, 1)
    for _ = 1, 5 do
      n.turn(FAILURE, 102)
    end
    close(n, 105)
    n.turn(LIMITED, 106, 1)
    near(1, n.out_for(106))
  end)

  it("counts once for all that were under way", function()
    local n, permits = new_node(), {}
    for i = 1, 20 do
      permits[i] = n.enter(100)
    end
    for i = 1, 20 do
      n.settle(permits[i], LIMITED, 100, 1)
    end
    near(1, n.out_for(100))
    n.turn(LIMITED, 102, 1)
    near(2, n.out_for(102))
  end)

  it("is no failure in a row, and does not interrupt one", function()
    local n = new_node()
    for i = 1, 4 do
      n.turn(FAILURE, 100 + i)
      n.turn(LIMITED, 100 + i, 0, 0.5)
    end
    assert.equal(4, C.node_breaker_fails(n.own))
    n.turn(FAILURE, 105)
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
  end)

  it("fails a probe, and its Retry-After holds there too", function()
    local n = out_node(100)
    n.turn(LIMITED, 103, 0, 40)
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
    near(40, n.out_for(103))
    assert.equal(1, n.enter(143.1).probe)
  end)

  it("that is late moves the deadline of a row that is out", function()
    local n = new_node()
    local late = n.enter(100)
    for _ = 1, 5 do
      n.turn(FAILURE, 100, 1)
    end
    n.settle(late, LIMITED, 101, 0, 2)
    near(5, n.out_for(100))
    n.settle(late, LIMITED, 101, 0, 30)
    near(31, n.out_for(100))
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
  end)

  it("cools a row behind five failures until the later of both", function()
    local n, permits = new_node(), {}
    for i = 1, 5 do
      permits[i] = n.enter(100)
    end
    n.turn(LIMITED, 100, 0, 50)
    for i = 1, 5 do
      n.settle(permits[i], FAILURE, 101)
    end
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
    near(50, n.out_for(100))
    assert.equal(1, n.enter(150.1).probe)
  end)

  it("keeps the credit of healthy minutes", function()
    local n = out_node(100, 1)
    n.turn(FAILURE, 106, 1)                         -- k is 2
    close(n, 117)
    n.turn(LIMITED, 117 + 121, 0, 1)                -- two minutes: k is 0
    for _ = 1, 5 do
      n.turn(FAILURE, 240, 1)
    end
    near(5, n.out_for(240))
  end)
end)


describe("a failure with Retry-After", function()
  it("counts and cools", function()
    local n = new_node()
    n.turn(FAILURE, 100, 0, 12)
    assert.equal(1, C.node_breaker_fails(n.own))
    assert.equal(C.DROVER_WHY_RATE, n.why())
    near(12, n.out_for(100))
    assert.equal(0, n.enter(112.1).probe)
  end)

  it("opens for the later of back-off and Retry-After", function()
    local n = new_node()
    for _ = 1, 4 do
      n.turn(FAILURE, 100)
    end
    n.turn(FAILURE, 100, 1, 77)
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
    near(77, n.out_for(100))
  end)
end)


describe("a refused key", function()
  it("goes off for 60 s, then twice as long each time, an hour at most",
     function()
    local n, now = new_node(), 100
    local waits = {}
    for i = 1, 8 do
      n.turn(REFUSED, now, 1)
      assert.equal(C.DROVER_OUT, n.row.state)
      assert.equal(C.DROVER_WHY_KEY, n.why())
      waits[i] = math.floor(n.out_for(now) + 0.5)
      now = now + waits[i] + 1
    end
    assert.same({ 60, 120, 240, 480, 960, 1920, 3600, 3600 }, waits)
  end)

  it("is tried by one probe, and comes back by two", function()
    local n = new_node()
    n.turn(REFUSED, 100)
    assert.is_false(n.enter(159))
    local permit = n.enter(160)
    assert.equal(1, permit.probe)
    assert.equal(0, C.node_breaker_ejected(n.own))
    n.settle(permit, NEUTRAL, 161)
    assert.equal(C.DROVER_WHY_KEY, n.why())
    close(n, 162)
    assert.equal(C.DROVER_WHY_SLOW_START, n.why())
  end)

  it("says nothing of the node: no share, no failure in a row", function()
    local n = new_node()
    n.turn(REFUSED, 100)
    assert.equal(0, C.node_breaker_fails(n.own))
    assert.is_true(C.node_share_rate(n.own, 100)
                   ~= C.node_share_rate(n.own, 100))
  end)

  it("does not begin with the doublings of another trouble", function()
    local n = out_node(100, 1)
    n.turn(FAILURE, 106, 1)                         -- k is 2
    n.turn(REFUSED, 117)
    near(60, n.out_for(117))
    n.turn(FAILURE, 178, 1)                         -- nor the other way round
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
    near(5, n.out_for(178))
  end)

  for _, row in ipairs{ { 0, 3600 }, { 60, 3600 }, { 7200, 7200 },
                        { 1e9, 86400 } } do
    it("without quota, asked to wait " .. row[1] .. " s, is off for "
       .. row[2], function()
      local n = new_node()
      n.turn(SPENT, 100, 1, row[1])
      assert.equal(C.DROVER_WHY_QUOTA, n.why())
      near(row[2], n.out_for(100))
      n.turn(SPENT, 100 + row[2], 1)
      near(3600, n.out_for(100 + row[2]))
    end)
  end

  it("is not asked in panic, and one that is out is", function()
    local n, permit = new_node(), ffi.new("struct breaker_permit")
    assert.equal(0, C.node_breaker_panic(n.own, permit))
    n.turn(LIMITED, 100, 0, 5)
    assert.equal(0, C.node_breaker_panic(n.own, permit))
    n.turn(REFUSED, 106)
    assert.equal(0, C.node_breaker_panic(n.own, permit))
    n = out_node(100)
    assert.equal(1, C.node_breaker_panic(n.own, permit))
    assert.equal(1, C.node_breaker_holds(n.own, permit))
    local before = n.own.breaker
    n.settle(permit, SUCCESS, 101)
    n.settle(permit, FAILURE, 101)
    assert.is_true(n.own.breaker == before)
    C.node_breaker_admin(n.row, n.own, DRAINING, -1)
    assert.equal(0, C.node_breaker_holds(n.own, permit))
    C.node_breaker_admin(n.row, n.own, ACTIVE, -1)
    n.turn(SUCCESS, 103)
    local second = n.enter(103.1)                   -- of one epoch with it
    assert.equal(1, C.node_breaker_panic(n.own, permit))
    n.settle(second, SUCCESS, 104)
    n.settle(permit, FAILURE, 104)
    assert.equal(0, C.node_breaker_fails(n.own))
  end)
end)
