local breaker = require "spec.support.breaker"
local c = require "spec.support.c"
local C = c.lib

local new_node, out_node, close = breaker.new_node, breaker.out_node, breaker.close
local near = breaker.near
local NEUTRAL, SUCCESS, FAILURE = breaker.NEUTRAL, breaker.SUCCESS, breaker.FAILURE
local LIMITED, REFUSED, ACTIVE = breaker.LIMITED, breaker.REFUSED, breaker.ACTIVE
local DRAINING, REMOVED, SAME = breaker.DRAINING, breaker.REMOVED, breaker.SAME
local OUT, BACK, UNIT = breaker.OUT, breaker.BACK, breaker.UNIT


describe("the breaker", function()
  it("opens at the fifth failure in a row", function()
    local n = new_node()
    for i = 1, 4 do
      assert.equal(SAME, n.turn(FAILURE, 100))
      assert.equal(C.DROVER_UP, n.row.state)
      assert.equal(i, C.node_breaker_fails(n.own))
    end
    assert.equal(OUT, n.turn(FAILURE, 100))
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
    assert.is_false(n.enter(101))
  end)

  it("starts to count again at a success", function()
    local n = new_node()
    for _ = 1, 4 do
      n.turn(FAILURE, 100)
    end
    n.turn(SUCCESS, 100)
    assert.equal(0, C.node_breaker_fails(n.own))
    n.turn(FAILURE, 100)
    assert.equal(C.DROVER_UP, n.row.state)
  end)

  for _, row in ipairs{ { 0, 2.5 }, { 0.5, 3.75 }, { 1, 5 } } do
    it("waits half of five seconds and a share " .. row[1], function()
      local n = out_node(100, row[1])
      near(row[2], n.out_for(100))
      assert.equal(0, C.node_breaker_due(n.own, 100 + row[2] - UNIT))
      assert.equal(1, C.node_breaker_due(n.own, 100 + row[2] + UNIT))
    end)
  end

  it("lets one request probe", function()
    local n = out_node(100)
    local permit = n.enter(103)
    assert.equal(1, permit.probe)
    assert.equal(C.DROVER_PROBING, n.row.state)
    assert.equal(C.DROVER_WHY_PROBE, n.why())
    assert.is_false(n.enter(103))
    assert.is_false(n.enter(132))
  end)

  it("gives a dead prober's permit to another when its lease is over", function()
    local n = out_node(100)
    assert(n.enter(103))
    assert.equal(1, n.enter(133.1).probe)
    assert.is_false(n.enter(134))
  end)

  it("closes at the second success, one probe at a time", function()
    local n = out_node(100)
    assert.equal(OUT, n.turn(SUCCESS, 103))
    assert.equal(C.DROVER_PROBING, n.row.state)
    local second = n.enter(103)
    assert.equal(1, second.probe)
    assert.is_false(n.enter(103))
    assert.equal(BACK, n.settle(second, SUCCESS, 104))
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(0, n.enter(104).probe)
  end)

  it("opens again when the second probe fails", function()
    local n = out_node(100)
    n.turn(SUCCESS, 103)
    n.turn(FAILURE, 103, 1)
    near(10, n.out_for(103))
    assert.equal(OUT, n.turn(SUCCESS, 114))         -- the first one again
    assert.equal(C.DROVER_PROBING, n.row.state)
  end)

  it("waits twice as long after each failed probe, 300 s at most", function()
    local n, now = out_node(100, 1), 100
    local waits = {}
    for i = 1, 9 do
      waits[i] = math.floor(n.out_for(now) + 0.5)
      now = now + waits[i] + 1
      n.turn(i % 2 == 0 and FAILURE or LIMITED, now, 1)
      assert.equal(C.DROVER_OUT, n.row.state)
    end
    assert.same({ 5, 10, 20, 40, 80, 160, 300, 300, 300 }, waits)
    assert.equal(C.DROVER_WHY_FAILURES, n.why())
  end)

  it("forgets one doubling for each healthy minute", function()
    local n = out_node(100, 1)
    n.turn(FAILURE, 106, 1)                         -- the next one: 20 s
    close(n, 117)
    for _ = 1, 5 do
      n.turn(FAILURE, 117 + 61, 1)
    end
    near(10, n.out_for(178))
  end)

  it("gives a permit back when the probe learned nothing", function()
    local n = out_node(100)
    n.turn(NEUTRAL, 104)
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.equal(1, n.enter(104.02).probe)
  end)

  it("keeps a first success when the next probe learned nothing", function()
    local n = out_node(100)
    n.turn(SUCCESS, 103)
    n.turn(NEUTRAL, 104)
    assert.equal(BACK, n.turn(SUCCESS, 104.02))
  end)

  it("ignores what began before it opened", function()
    local n = new_node()
    local early, late = n.enter(100), n.enter(100)
    for _ = 1, 5 do
      n.turn(FAILURE, 100)
    end
    local before = n.own.breaker
    n.settle(early, SUCCESS, 101)
    n.settle(late, FAILURE, 101)
    assert.is_true(n.own.breaker == before)
    close(n, 103)
    n.settle(late, FAILURE, 105)
    n.settle(late, REFUSED, 105)
    n.settle(late, LIMITED, 105, 0.5, 7)
    assert.equal(0, C.node_breaker_fails(n.own))
    assert.equal(C.DROVER_UP, n.row.state)
    assert.is_true(C.node_share_rate(n.own, 105)
                   ~= C.node_share_rate(n.own, 105))
  end)

  it("ignores a late prober, whoever has the permit now", function()
    local n = out_node(100)
    local slow = n.enter(103)
    local second = n.enter(134)
    assert.equal(SAME, n.settle(slow, SUCCESS, 135))
    assert.equal(SAME, n.settle(slow, FAILURE, 135))
    assert.equal(OUT, n.settle(second, SUCCESS, 135))
    n.settle(n.enter(135), SUCCESS, 135)
    n.settle(slow, FAILURE, 136)
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(0, C.node_breaker_fails(n.own))
  end)

  it("is not asked while the operator drains or removes the node", function()
    local n = new_node()
    local permit = n.enter(100)
    C.node_breaker_admin(n.row, n.own, DRAINING, ACTIVE)
    assert.equal(C.DROVER_DRAINING, n.row.state)
    assert.is_false(n.enter(100))
    assert.equal(0, C.node_breaker_holds(n.own, permit))
    assert.equal(0, C.node_breaker_admin(n.row, n.own, DRAINING, REMOVED))
    C.node_breaker_admin(n.row, n.own, ACTIVE, DRAINING)
    assert.equal(C.DROVER_UP, n.row.state)
    C.node_breaker_admin(n.row, n.own, REMOVED, -1)
    assert.equal(C.DROVER_REMOVED, n.row.state)
    assert.equal(0, C.node_breaker_due(n.own, 1e6))
  end)

  it("keeps its state under the operator's word", function()
    local n = out_node(100)
    C.node_breaker_admin(n.row, n.own, DRAINING, -1)
    C.node_breaker_admin(n.row, n.own, ACTIVE, -1)
    assert.equal(C.DROVER_OUT, n.row.state)
  end)

  it("forgets all when the operator has mended the node", function()
    local n = out_node(100)
    local late = n.enter(103)
    C.node_breaker_clear(n.row, n.own)
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(C.DROVER_WHY_NONE, n.why())
    assert.equal(1, C.node_breaker_part(n.own, 103))
    n.settle(late, FAILURE, 104)
    assert.equal(0, C.node_breaker_fails(n.own))
    for _ = 1, 5 do
      n.turn(FAILURE, 104, 1)
    end
    near(5, n.out_for(104))
  end)
end)


describe("slow start", function()
  it("ramps the weight from a tenth to all of it in 30 s", function()
    local n = new_node(4)
    for _ = 1, 5 do
      n.turn(FAILURE, 100)
    end
    close(n, 103)
    assert.near(0.4, n.row.weight, 1e-6)
    assert.equal(C.DROVER_WHY_SLOW_START, n.why())
    assert.near(133, C.node_breaker_slow_until(n.own), UNIT)
    for _, at in ipairs{ { 104, 0.1 }, { 106, 0.1 }, { 109, 0.2 },
                         { 118, 0.5 }, { 130, 0.9 }, { 133, 1 } } do
      C.node_breaker_tend(n.row, n.own, at[1])
      assert.near(4 * at[2], n.row.weight, 1e-2)
      assert.near(at[2], C.node_breaker_part(n.own, at[1]), 1e-2)
    end
    assert.equal(C.DROVER_WHY_NONE, n.why())
    assert.equal(4, n.row.weight)
    assert.equal(0, C.node_breaker_slow_until(n.own))
  end)

  it("ends with the next opening", function()
    local n = out_node(100)
    close(n, 103)
    for _ = 1, 5 do
      n.turn(FAILURE, 104)
    end
    assert.equal(1, C.node_breaker_part(n.own, 104))
    C.node_breaker_tend(n.row, n.own, 104)
    assert.equal(C.DROVER_OUT, n.row.state)
  end)

  it("mends a weight that another process left behind", function()
    local n = new_node(2)
    n.row.weight = 1.9
    C.node_breaker_tend(n.row, n.own, 104)
    assert.equal(2, n.row.weight)
  end)

  it("wakes a row that has cooled, at its time", function()
    local n = new_node()
    n.turn(LIMITED, 100, 0, 5)
    C.node_breaker_tend(n.row, n.own, 104.9)
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.equal(0, C.node_breaker_wake(n.row, n.own, 104.9))
    C.node_breaker_tend(n.row, n.own, 105)
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(1, n.row.weight)
  end)
end)


describe("a node that flaps", function()
  -- Up in even seconds, down in odd ones, asked 20 times a second for four
  -- minutes: with three failures in a row it would never go out, and with a
  -- fixed time out it would come back for ever.
  it("is out for longer and longer, and gets little", function()
    local n, tried, late_ok, late = new_node(), 0, 0, 0
    for step = 0, 240 * 20 - 1 do
      local now = 100 + step / 20
      local permit = n.enter(now)
      if permit then
        local up = math.floor(now) % 2 == 0
        n.settle(permit, up and SUCCESS or FAILURE, now, 0.5)
        tried = tried + 1
        if step >= 60 * 20 then
          late, late_ok = late + 1, late_ok + (up and 1 or 0)
        end
      end
    end
    assert.is_true(late < 0.05 * 180 * 20, tostring(late))
    assert.is_true(tried > 20)
  end)
end)
