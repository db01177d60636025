-- Waiting for a turn: where a pick is refused for want of room, or no node is
-- up, the request enters the router's one queue (in the zone, over all
-- workers) and its task waits until it is popped, its time is over, or it is
-- cancelled.
--
--   pick -> refused -> begin -> wait -> popped -> pick -> again -> wait …
--                        \________ end, exactly once ________/
--
-- Who waits is told by an event of the port, like the end of a call, so a
-- waiter is a sink of the pump (loop/calls.lua).
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local err = require "drover.err"
local loops = require "drover.loop"
local pick = require "drover.pick"
local streams = require "drover.stream"

local min, max = math.min, math.max

local LEAST = 0.001             -- seconds of one wait

local _M = {}

local mt = {}
mt.__index = mt

local wait_t = ffi.typeof("drover_wait")
local c_err = ffi.new("drover_err")


-- ---- a waiter ----

-- Leave the queue, whatever happened; once.
local function leave(self)
  if self.over then
    return
  end
  self.over = true
  loops.forget(self.number)
  local router = self.router
  router.active[self] = nil
  if not router.closed then
    C.drover_wait_end(router.handle, self.wait, C.drover_clock())
  end
end


-- End the wait from outside.
function mt:cancel(kind)
  if not self.over then
    self.cancelled = self.cancelled or kind or "cancelled"
    leave(self)
    self.gate:post()
  end
end


-- The queue has popped it, or had: stay() asks. A light thread that was killed
-- meanwhile will not; its turn is the next one's at once.
function mt:event(ev)
  if ev.type == C.DROVER_EVENT_SLOT then
    if self.gate:deserted() then
      self:cancel()
    else
      self.popped = true
      self.gate:post()
    end
  end
end


-- Its light thread was killed; cancel() has done all there is to do.
function mt:abandoned()
  self.cancelled = self.cancelled or "cancelled"
end


-- ---- may it wait ----

-- Seconds that a refused request may wait in all, and whether that is for a
-- node; nil when it may not.
local function patience(router, e, spent)
  local wait
  if e.kind == "no_node" then
    wait = not e.code and router.hold or nil
  elseif e.kind == "overloaded" or e.kind == "rate_limited" then
    wait = router.wait
  end
  if not wait or wait <= spent then
    return nil
  end
  return wait - spent, e.kind == "no_node"
end


-- The error of who gives up: that of the last refusal, and when to come again.
local function give_up(e, p, waited)
  if e.kind == "overloaded" or e.kind == "rate_limited" then
    e.retry_after = p.wait > 0 and p.wait or e.retry_after or 1
  end
  if waited then
    e.message = e.message .. (" (waited %.3g s)"):format(waited)
  end
  return nil, e
end


-- ---- waiting ----

-- Enter the queue. Returns a waiter, or nil where the queue takes no more.
local function enter(router, p, seconds, hold)
  local loop = loops.get()
  local port = loop.port()
  if not port then
    return nil, err.new("resource", "no descriptor left for the completion"
                                    .. " port", { phase = "pick" })
  end
  local now = C.drover_clock()
  local self = setmetatable({
    router = router, wait = wait_t(), gate = loop.gate(), popped = false,
    over = false, began = now,
  }, mt)
  self.number = loops.register(self)
  local w = self.wait
  w.call, w.hold, w.deadline = self.number, hold and 1 or 0, now + seconds
  local code = C.drover_wait_begin(router.handle, port, p, w, now, c_err)
  if code ~= 0 then
    loops.forget(self.number)
    return nil, err.from_c(code, c_err, { phase = "limit" })
  end
  router.active[self] = true
  return self
end


-- Sleep until something happens: it is popped, cancelled, or `due`.
local function doze(self, now, due)
  if self.popped or self.over then
    return
  end
  self.gate = loops.get().gate()
  loops.get().sleep(max(LEAST, due - now), self.gate)
end


-- When what refused would pass; nil: when something ends.
local function due_of(p)
  return p.wait > 0 and p.now + p.wait or nil
end


-- It is its turn.
local function try(self, p, call, opts)
  p.called = 1
  local row, e = pick.node(self.router, p, call, opts)
  p.called = 0
  return row, e
end


-- In the queue until it has a row, or gives up. Returns as pick.node does.
local function stay(self, p, call, opts, e)
  local router, w = self.router, self.wait
  local due = due_of(p)
  while not self.over do
    local now = C.drover_clock()
    local called = self.popped and C.drover_wait_called(router.handle, w) or 0
    self.popped = false
    if called == 1 then
      local row, refusal = try(self, p, call, opts)
      if row or not patience(router, refusal, 0) then
        return row, refusal
      end
      e, due = refusal, due_of(p)
      if due and due > w.deadline and e.kind ~= "no_node" then
        return give_up(e, p, now - self.began)  -- known by now to be in vain
      end
      called = C.drover_wait_again(router.handle, p, w, now)
    end
    if called < 0 or now >= w.deadline then
      return give_up(e, p, now - self.began)
    elseif due and now >= due then
      due = nil
      C.drover_wait_pump(router.handle, now)
    else
      doze(self, now, min(due or w.deadline, w.deadline))
    end
  end
  return nil, err.new(self.cancelled, nil, { phase = "pick" })
end


-- As pick.node, but where a refusal may pass the request waits for that, at
-- most limits.wait (or queue.hold) seconds over all its attempts, and not
-- past its deadline. `flight` may be nil; flight:cancel() ends the wait through
-- flight.waiter.
function _M.node(router, p, call, opts, flight)
  local row, e = pick.node(router, p, call, opts)
  if row then
    return row
  end
  local spent = flight and flight.waited or 0
  local seconds, hold = patience(router, e, spent)
  if not seconds or loops.get().blocked() then
    return nil, e
  end
  local left = flight and flight.deadline - C.drover_clock()
               or opts.timeout.total
  seconds = min(seconds, left)
  if seconds <= 0 or (p.wait > seconds and not hold) then
    return give_up(e, p)
  end
  local self, refusal = enter(router, p, seconds, hold)
  if not self then
    if refusal.kind == "overloaded" and e.kind ~= "no_node" then
      e.message = e.message .. "; " .. refusal.message
      refusal = e
    end
    return give_up(refusal, p)
  end
  local guard = loops.get().killable and streams.guard(self)
  if flight then
    flight.waiter = self
  end
  row, e = stay(self, p, call, opts, e)
  leave(self)
  if flight then
    flight.waiter = nil
    flight.waited = spent + C.drover_clock() - self.began
  end
  if guard then
    streams.release(guard)
  end
  return row, e
end


return _M
