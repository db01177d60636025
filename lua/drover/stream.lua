-- What router:stream returns: a reply as it comes. Made at the commit, when
-- the first content is here; from then on no other node is tried.
--
-- A stream that is dropped before its end is cancelled by a finalizer, so
-- the attempt below it must not know the stream.
--
-- SPDX-License-Identifier: MIT
local collect = require "drover.collect"

local _M = {}

local mt = {}
mt.__index = mt

local dropped = setmetatable({}, { __mode = "k" })   -- guard -> its flight
local template = newproxy(true)

getmetatable(template).__gc = function(guard)
  local flight = dropped[guard]
  if flight then
    flight:cancel()
    flight:abandoned()
  end
end


-- A guard that cancels `flight` when nobody holds it any more.
function _M.guard(flight)
  local guard = newproxy(template)
  dropped[guard] = flight
  return guard
end


-- The flight ended by itself.
function _M.release(guard)
  dropped[guard] = nil
end


-- The stream of a flight whose attempt stands.
function _M.new(flight, attempt)
  return setmetatable({
    flight = flight, attempt = attempt, guard = _M.guard(flight),
    held = flight.held, at = 1, parts = collect.new(), over = false,
  }, mt)
end


-- The end: settled once, counted once.
local function finish(self)
  if self.over then
    return
  end
  self.over = true
  dropped[self.guard] = nil
  local attempt, flight = self.attempt, self.flight
  local e = attempt.err
  if e then
    attempt:settle(e.kind)
    flight:fail(e)
    self.err = e
  else
    attempt:settle("ok")
    self.drover = flight:done(attempt)
  end
end


-- The next event, or nil at the end; `stream.err` then says how it ended.
function mt:next()
  local event = self.held[self.at]
  if event then
    self.held[self.at] = nil
    self.at = self.at + 1
  elseif not self.over then
    event = self.attempt:next()
  end
  if event then
    local parts = self.parts
    if parts then
      parts:add(event)
    end
    return event
  end
  finish(self)
  return nil
end


-- It will not be joined: what has been read need not be kept.
function mt:pass()
  self.parts = nil
end


-- True when next() would not wait.
function mt:ready()
  local attempt = self.attempt
  return self.held[self.at] ~= nil or attempt.first <= attempt.last
end


-- for event in stream:events() do … end
function mt:events()
  return mt.next, self
end


-- The whole reply: reads what has not been read. Any number of times.
function mt:join()
  while self:next() do end
  if self.err then
    return nil, self.err
  end
  if not self.reply then
    self.reply = self.parts:reply(self.attempt.opening, self.attempt.usage)
    self.reply.drover = self.drover
  end
  return self.reply
end


-- Stop: the connection is closed at once. After the end it does nothing.
function mt:cancel()
  if self.over then
    return
  end
  self.held, self.at = {}, 1
  self.flight:cancel()
  finish(self)
end


return _M
