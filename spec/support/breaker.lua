-- One row and its breaker for specs: permits, outcomes, what it says.
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

local _M = {
  NEUTRAL = 0, SUCCESS = 1, FAILURE = 2, LIMITED = 3, REFUSED = 4, SPENT = 5,
  ACTIVE = 0, DRAINING = 1, REMOVED = 2,
  SAME = 0, OUT = 1, BACK = 2,
  UNIT = 1 / 64,                -- deadlines are rounded up to it
}


function _M.new_node(weight)
  local n = { row = ffi.new("drover_node"), own = ffi.new("struct node_row") }
  n.own.weight, n.row.weight = weight or 1, weight or 1
  C.node_breaker_reset(n.row, n.own, _M.ACTIVE, 0)
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
function _M.out_node(now, rnd)
  local n = _M.new_node()
  for _ = 1, 5 do
    n.turn(_M.FAILURE, now, rnd)
  end
  assert(n.row.state == C.DROVER_OUT)
  return n
end


-- Two successes at `now`: an out node is up again.
function _M.close(n, now)
  n.turn(_M.SUCCESS, now)
  assert(n.turn(_M.SUCCESS, now) == _M.BACK)
  assert(n.row.state == C.DROVER_UP)
end


function _M.near(want, got)
  if not (got >= want - 1e-9 and got <= want + _M.UNIT) then
    error(("%s is not within a unit of %s"):format(got, want), 2)
  end
end


return _M
