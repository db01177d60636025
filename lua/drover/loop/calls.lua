-- The calls of this Lua state: their numbers, and handing each event of the
-- port to the sink of the call it belongs to. Every loop module shares it; it
-- waits for nothing.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"

local _M = {
  idle = nil,                   -- the last call was forgotten: the loop's hook
}

local NUMBER_MAX = 2 ^ 31
local sinks = {}                -- number -> sink; a sink has :event(ev)
local last = 0
local calls = 0
local event = ffi.new("drover_event")


-- A number for a call. `sink:event(ev)` gets its events in the order they
-- came; it must not wait, and must copy what it keeps of `ev`.
function _M.register(sink)
  local number = last % NUMBER_MAX + 1
  while sinks[number] do        -- after 2^31 calls
    number = number % NUMBER_MAX + 1
  end
  last = number
  sinks[number] = sink
  calls = calls + 1
  return number
end


-- No event goes to that number's sink any more.
function _M.forget(number)
  if sinks[number] then
    sinks[number] = nil
    calls = calls - 1
    if calls == 0 and _M.idle then
      _M.idle()
    end
  end
end


-- Calls that are registered now.
function _M.count()
  return calls
end


-- Give out what has come. Returns how many events that were.
function _M.dispatch(port)
  local count = 0
  while C.drover_port_next(port, event) == 1 do
    local sink = sinks[event.call]
    if sink then
      sink:event(event)
    end
    count = count + 1
  end
  return count
end


return _M
