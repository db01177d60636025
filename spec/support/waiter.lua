-- Requests that wait, for specs: through drover.h, on one port a process.
local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"

local C = c.lib
local err = router.err

local _M = { PATIENCE = 20 }        -- seconds; only a lost wake-up takes them

local ports = {}


-- One port for each process.
function _M.port()
  local pid = ffi.C.getpid()
  if not ports[pid] then
    local out = ffi.new("drover_port *[1]")
    assert(C.drover_port_open(out, err) == 0)
    ports[pid] = ffi.gc(out[0], C.drover_port_close)
  end
  return ports[pid]
end


-- A request: its pick, and its place in the queue.
local number = 0
function _M.request(fields)
  number = number + 1
  local p, w = router.pick(), ffi.new("drover_wait", { call = number })
  p.prompt_tokens = 1
  p.priority = C.DROVER_DEFAULT
  for key, value in pairs(fields or {}) do
    p[key] = value
  end
  return { p = p, w = w }
end


function _M.try(r, q, now)
  return C.drover_pick_node(r, q.p, now or C.drover_clock(), 0.5, err)
end


function _M.enter(r, q, deadline)
  q.w.deadline = deadline or math.huge
  return C.drover_wait_begin(r, _M.port(), q.p, q.w, C.drover_clock(), err)
end


-- A request that holds a slot, or waits for one.
function _M.ask(r, fields)
  local q = _M.request(fields)
  if _M.try(r, q) ~= 0 then
    assert(_M.enter(r, q) == 0, ffi.string(err.text))
  end
  return q
end


function _M.done(r, q)
  assert(C.drover_ticket_done(r, q.p, router.outcome(), C.drover_clock()) == 0)
end


function _M.leave(r, q)
  C.drover_wait_end(r, q.w, C.drover_clock())
end


-- The next event's call, or nil when none comes in time.
local event = ffi.new("drover_event")
function _M.next_call(seconds)
  local till = C.drover_clock() + (seconds or _M.PATIENCE)
  while C.drover_port_next(_M.port(), event) == 0 do
    local left = till - C.drover_clock()
    if left <= 0 then
      return nil
    end
    C.drover_port_wait(_M.port(), left)
  end
  assert(event.type == C.DROVER_EVENT_SLOT)
  return event.call
end


-- Wait until `q` is called, and claim. Others of this process are not called
-- meanwhile.
function _M.claim(r, q)
  repeat
    local call = _M.next_call()
    assert(call, "nobody was called")
  until call == q.w.call and C.drover_wait_called(r, q.w) == 1
  q.p.called = 1
  local rc = _M.try(r, q)
  q.p.called = 0
  if rc == 0 then
    _M.leave(r, q)
  else
    assert(C.drover_wait_again(r, q.p, q.w, C.drover_clock()) == 0)
  end
  return rc
end


function _M.called(r, q)
  return C.drover_wait_called(r, q.w)
end


return _M
