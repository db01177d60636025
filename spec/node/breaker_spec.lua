local ffi = require "ffi"
local c = require "spec.support.c"
require "spec.support.router"                 -- declares struct node_row
local C = c.lib

c.cdef[[
struct breaker_permit { uint32_t epoch, probe; };
int node_breaker_due(const struct node_row *own, double now);
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out);
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit);
double node_breaker_leave(drover_node *row, struct node_row *own,
                          const struct breaker_permit *permit, int verdict,
                          double now, double rnd);
int node_breaker_admin(drover_node *row, struct node_row *own, int to,
                       int only_from);
void node_breaker_reset(drover_node *row, struct node_row *own, int admin);
uint32_t node_breaker_fails(const struct node_row *own);
double node_breaker_out_for(const struct node_row *own, double now);
]]

local NEUTRAL, SUCCESS, FAILURE = 0, 1, 2
local ACTIVE, DRAINING, REMOVED = 0, 1, 2


local function new_node()
  local n = { row = ffi.new("drover_node"), own = ffi.new("struct node_row") }
  C.node_breaker_reset(n.row, n.own, ACTIVE)
  function n.enter(now)
    local permit = ffi.new("struct breaker_permit")
    return C.node_breaker_enter(n.row, n.own, now, permit) == 1 and permit
  end
  function n.leave(permit, verdict, now, rnd)
    return C.node_breaker_leave(n.row, n.own, permit, verdict, now, rnd or 0)
  end
  function n.fail(now, rnd)
    local permit = assert(n.enter(now))
    return n.leave(permit, FAILURE, now, rnd)
  end
  return n
end


-- A node that five failures at `now` have put out.
local function out_node(now, rnd)
  local n = new_node()
  for _ = 1, 5 do
    n.fail(now, rnd)
  end
  assert(n.row.state == C.DROVER_OUT)
  return n
end


describe("the breaker", function()
  it("opens at the fifth failure in a row", function()
    local n = new_node()
    for i = 1, 4 do
      n.fail(100)
      assert.equal(C.DROVER_UP, n.row.state)
      assert.equal(i, C.node_breaker_fails(n.own))
    end
    n.fail(100)
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.is_false(n.enter(101))
  end)

  it("starts to count again at a success", function()
    local n = new_node()
    for _ = 1, 4 do
      n.fail(100)
    end
    n.leave(n.enter(100), SUCCESS, 100)
    assert.equal(0, C.node_breaker_fails(n.own))
    n.fail(100)
    assert.equal(C.DROVER_UP, n.row.state)
  end)

  for _, row in ipairs{ { 0, 2.5 }, { 0.5, 3.75 }, { 1, 5 } } do
    it("waits half of five seconds and a share " .. row[1], function()
      local n = out_node(100, row[1])
      assert.near(row[2], C.node_breaker_out_for(n.own, 100), 0.011)
      assert.equal(0, C.node_breaker_due(n.own, 100 + row[2] - 0.02))
      assert.equal(1, C.node_breaker_due(n.own, 100 + row[2] + 0.02))
    end)
  end

  it("lets one request probe", function()
    local n = out_node(100)
    local permit = n.enter(103)
    assert.equal(1, permit.probe)
    assert.equal(C.DROVER_PROBING, n.row.state)
    assert.is_false(n.enter(103))
    assert.is_false(n.enter(132))
  end)

  it("gives a dead prober's permit to another when its lease is over", function()
    local n = out_node(100)
    assert(n.enter(103))
    assert.equal(1, n.enter(133.1).probe)
    assert.is_false(n.enter(134))
  end)

  it("closes when the probe succeeds", function()
    local n = out_node(100)
    n.leave(n.enter(103), SUCCESS, 104)
    assert.equal(C.DROVER_UP, n.row.state)
    assert.equal(0, n.enter(104).probe)
  end)

  it("waits twice as long after each failed probe, 300 s at most", function()
    local n, now = out_node(100, 1), 100
    local waits = {}
    for i = 1, 9 do
      waits[i] = math.floor(C.node_breaker_out_for(n.own, now) + 0.5)
      now = now + waits[i] + 1
      n.leave(n.enter(now), FAILURE, now, 1)
      assert.equal(C.DROVER_OUT, n.row.state)
    end
    assert.same({ 5, 10, 20, 40, 80, 160, 300, 300, 300 }, waits)
  end)

  it("forgets one doubling for each healthy minute", function()
    local n = out_node(100, 1)
    n.leave(n.enter(106), FAILURE, 106, 1)          -- the next one: 20 s
    n.leave(n.enter(117), SUCCESS, 117)
    for _ = 1, 5 do
      n.fail(117 + 61, 1)
    end
    assert.near(10, C.node_breaker_out_for(n.own, 178), 0.02)
  end)

  it("gives a permit back when the probe learned nothing", function()
    local n = out_node(100)
    n.leave(n.enter(103), NEUTRAL, 104)
    assert.equal(C.DROVER_OUT, n.row.state)
    assert.equal(1, n.enter(104.02).probe)
  end)

  it("ignores what began before it opened", function()
    local n = new_node()
    local early, late = n.enter(100), n.enter(100)
    for _ = 1, 5 do
      n.fail(100)
    end
    local before = n.own.breaker
    n.leave(early, SUCCESS, 101)
    n.leave(late, FAILURE, 101)
    assert.is_true(n.own.breaker == before)
    n.leave(n.enter(103), SUCCESS, 104)
    n.leave(late, FAILURE, 105)
    assert.equal(0, C.node_breaker_fails(n.own))
  end)

  it("ignores a late prober when another has closed it", function()
    local n = out_node(100)
    local slow = n.enter(103)
    n.leave(n.enter(134), SUCCESS, 135)
    n.leave(slow, FAILURE, 136)
    assert.equal(C.DROVER_UP, n.row.state)
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
end)
