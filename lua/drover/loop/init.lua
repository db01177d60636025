-- Which loop waits for this Lua state, and what all loops share: the numbers
-- of calls, and handing each event of the port to the call it belongs to.
-- Only loop modules wait; everything above waits through a gate.
--
-- A loop module (loop/plain.lua, resty/loop.lua) is a table with
--
--   phase()      "run", or "init" where drover.new may only make or attach
--                the zone (nginx's master)
--   workers()    processes that will share a router made now: 1 without nginx
--   is_worker()  true in a worker forked from a master that loaded drover
--   blocked()    nil, or the name of the phase here, where nothing may wait
--   killable     true when a waiting caller may vanish without a Lua error
--                (light threads): calls then carry a finalizer
--   now()        seconds, the clock of drover_clock()
--   port()       the process's drover_port, opened and pumped from the first
--                call on; or nil, err (a string)
--   gate()       a latch for one waiter:
--                  gate:wait()  returns when posted, and takes the post
--                  gate:post()  wakes the waiter, or lets the next wait pass;
--                               never yields, never runs other code
--   sleep(s)     waits `s` seconds
--   spawn(f, …)  runs f as a task at once, up to its first wait; a task
--   join(task)   waits until it is done: true and its results, or false and
--                the error it raised; any number of times
--   on_tick(f)   f(now) every 250 ms in this process while the loop lives
--
--   closed       true once the port is gone (its finalizer has run)
--   idle()       the last call was forgotten; optional
--
-- and its pump calls _M.dispatch(port) when the port has news.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"

local _M = {}

local NUMBER_MAX = 2 ^ 31
local sinks = {}                -- number -> sink; a sink has :event(ev)
local last = 0
local calls = 0
local chosen                    -- the loop of this Lua state
local event = ffi.new("drover_event")


-- A number for a call. `sink:event(ev)` gets its events in the order they
-- came; it must not wait, and must copy what it keeps of `ev`.
function _M.register(sink)
  local number = last
  repeat
    number = number % NUMBER_MAX + 1
  until not sinks[number]
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
    if calls == 0 and chosen and chosen.idle then
      chosen.idle()
    end
  end
end


-- Calls that are registered now.
function _M.calls()
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


-- The loop of this Lua state: nginx's under OpenResty, else our own.
function _M.get()
  if not chosen then
    local ngx = rawget(_G, "ngx")
    if ngx and ngx.config and ngx.config.subsystem then
      chosen = require "drover.resty.loop"
    else
      chosen = require "drover.loop.plain"
    end
  end
  return chosen
end


-- drover.loop(name): hand our descriptor to another library's loop.
function _M.choose(name)
  error("loop: " .. tostring(name) .. " is not built yet", 3)
end


return _M
