local ffi = require "ffi"
local c = require "spec.support.c"
require "spec.support.router"                 -- declares struct node_row
local C = c.lib

c.cdef[[
struct breaker_permit { uint32_t epoch, probe; };
struct breaker_said { int verdict; float retry_after; double rnd; };
int node_breaker_due(const struct node_row *own, double now);
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out);
int node_breaker_panic(const struct node_row *own, struct breaker_permit *out);
int node_breaker_ejected(const struct node_row *own);
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit);
int node_breaker_settle(drover_node *row, struct node_row *own,
                        const struct breaker_permit *permit,
                        const struct breaker_said *said, double now);
int node_breaker_eject(drover_node *row, struct node_row *own, double now,
                       double rnd);
int node_breaker_wake(drover_node *row, struct node_row *own, double now);
void node_breaker_tend(drover_node *row, struct node_row *own, double now);
float node_breaker_part(const struct node_row *own, double now);
int node_breaker_admin(drover_node *row, struct node_row *own, int to,
                       int only_from);
void node_breaker_reset(drover_node *row, struct node_row *own, int admin,
                        double slow_from);
void node_breaker_clear(drover_node *row, struct node_row *own);
uint32_t node_breaker_fails(const struct node_row *own);
double node_breaker_out_for(const struct node_row *own, double now);
double node_breaker_deadline(const struct node_row *own);
double node_breaker_slow_until(const struct node_row *own);
int node_breaker_cooling(const struct node_row *own, double now);
int node_breaker_why(const struct node_row *own);
float node_share_rate(const struct node_row *own, double now);
]]

local NEUTRAL, SUCCESS, FAILURE, LIMITED, REFUSED, SPENT = 0, 1, 2, 3, 4, 5
local ACTIVE, DRAINING, REMOVED = 0, 1, 2
local SAME, OUT, BACK = 0, 1, 2
local UNIT = 1 / 64             -- deadlines are rounded up to it


local function new_node(weight)
  local n = { row = ffi.new("drover_node"), own = ffi.new("struct node_row") }
  n.own.weight, n.row.weight = weight or 1, weight or 1
  C.node_breaker_reset(n.row, n.own, ACTIVE, 0)
  function n.enter(now)
    local permit = ffi.new("struct breaker_permit")
    return C.node_breaker_enter(n.row, n.own, now, permit) == 1 and permit
  end
  function n.settle(permit, verdict, now, rnd, retry_after)
    local said = ffi.new("struct breaker_said", verdict, retry_after or 0,
                         rnd or 0)
    return C.node_breaker_settle(n.row, n.own, permit, said, now)
  end
  function n.turn(verdict, now, rnd, retry_after)
    return n.settle(assert(n.enter(now)), verdict, now, rnd, retry_after)
  end
  function n.out_for(now)
    return C.node_breaker_out_for(n.own, now)
  end
  function n.why()
    return C.node_breaker_why(n.own)
  end
  return n
end


-- A node that five failures at `now` have put out.
local function out_node(now, rnd)
  local n = new_node()
  for _ = 1, 5 do
    n.turn(FAILURE, now, rnd)
  end
  assert(n.row.state == C.DROVER_OUT)
  return n
end


-- Two successes at `now`: an out node is up again.
local function close(n, now)
  n.turn(SUCCESS, now)
  assert(n.turn(SUCCESS, now) == BACK)
  assert(n.row.state == C.DROVER_UP)
end


local function near(want, got)
  assert.is_true(got >= want - 1e-9 and got <= want + UNIT,
                 ("%s is not within a unit of %s"):format(got, want))
end


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
    n.turn(LIMITED, now + 16, 0)
    near(0.05, n.out_for(now + 16))
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
