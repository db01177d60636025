local breaker = require "spec.support.breaker"
local c = require "spec.support.c"
local C = c.lib

local new_node, out_node, close = breaker.new_node, breaker.out_node, breaker.close
local SUCCESS, FAILURE, LIMITED = breaker.SUCCESS, breaker.FAILURE, breaker.LIMITED
local OUT = breaker.OUT


describe("the share of successes", function()
  -- Outcomes at `now`, alternating so that five in a row never fail.
  local function mixed(n, ok, bad, now)
    local turn
    while ok + bad > 0 do
      if ok > 0 then
        turn, ok = n.turn(SUCCESS, now), ok - 1
      end
      for _ = 1, math.min(bad, 2) do
        turn, bad = n.turn(FAILURE, now), bad - 1
      end
    end
    return turn
  end

  it("opens below half of ten outcomes, at a failure", function()
    local n = new_node()
    mixed(n, 4, 5, 100)
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(OUT, n.turn(FAILURE, 100))
    assert.equal(C.DROVER_WHY_SHARE, n.why())
    assert.near(0.4, C.node_share_rate(n.own, 100), 1e-6)
  end)

  it("does not open at half", function()
    local n = new_node()
    for _ = 1, 40 do
      n.turn(SUCCESS, 100)
      n.turn(FAILURE, 100)
    end
    assert.equal(C.DROVER_UP, n.row.state)
  end)

  it("does not judge by fewer than ten", function()
    local n = new_node()
    mixed(n, 3, 6, 100)
    assert.equal(C.DROVER_UP, n.row.state)
  end)

  it("forgets what is older than 30 s", function()
    local n = new_node()
    mixed(n, 3, 6, 99)
    assert.near(1 / 3, C.node_share_rate(n.own, 99 + 29.9), 1e-6)
    assert.is_true(C.node_share_rate(n.own, 129) ~= C.node_share_rate(n.own, 129))
    n.turn(FAILURE, 129)
    assert.equal(C.DROVER_UP, n.row.state)
  end)

  it("leaves out what comes ten periods late", function()
    local n = new_node()
    n.turn(SUCCESS, 100)
    n.turn(FAILURE, 70)
    assert.equal(1, C.node_share_rate(n.own, 100))
    n.turn(FAILURE, 94)                             -- late, but not so late
    assert.near(1 / 2, C.node_share_rate(n.own, 100), 1e-6)
  end)

  it("counts a 429, but does not open at one", function()
    local n, now = new_node(), 100
    for _ = 1, 3 do
      n.turn(SUCCESS, now)
      n.turn(SUCCESS, now)
    end
    for _ = 1, 10 do
      now = now + 1
      n.turn(LIMITED, now, 0, 0.1)
      assert.equal(C.DROVER_WHY_RATE, n.why())
    end
    now = now + 1
    n.turn(FAILURE, now)
    assert.equal(C.DROVER_WHY_SHARE, n.why())
  end)

  it("begins anew when the row is back", function()
    local n = out_node(100)
    close(n, 103)
    for _ = 1, 4 do
      n.turn(FAILURE, 104)
    end
    n.turn(SUCCESS, 104)
    n.turn(FAILURE, 104)
    assert.equal(C.DROVER_UP, n.row.state)
  end)

  it("is exact under many outcomes, and stops when its word is full", function()
    local n = new_node()
    for _ = 1, 300000 do
      n.turn(SUCCESS, 1)
    end
    for _ = 1, 5 do
      n.turn(FAILURE, 1)
    end
    assert.equal(C.DROVER_WHY_FAILURES, n.why())    -- 4 of 300,000
    assert.equal(1, C.node_share_rate(n.own, 1))
  end)
end)
