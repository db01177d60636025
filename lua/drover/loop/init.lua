-- Which loop waits for this Lua state. Only loop modules wait; everything
-- above waits through a gate. What all loops share is in loop/calls.lua.
--
-- A loop module (loop/plain.lua, resty/loop.lua) is a table with
--
--   phase()      "run", or "init" where drover.new may only make or attach
--                the zone (nginx's master)
--   workers()    processes that will share a router made now: 1 without nginx
--   is_worker()  true in a worker forked from a master that loaded drover
--   blocked()    nil, or the name of the phase here, where nothing may wait
--   spare        true when a core is to be left to what runs this loop
--   killable     true when a waiting caller may vanish without a Lua error
--                (light threads): calls then carry a finalizer
--   now()        seconds, the clock of drover_clock()
--   port()       the process's drover_port, opened and pumped from the first
--                call on; or nil, err (a string)
--   gate()       a latch for one waiter:
--                  gate:wait()  returns when posted, and takes the post
--                  gate:post()  wakes the waiter, or lets the next wait pass;
--                               never yields, never runs other code
--                  gate:deserted()  true when its waiter was killed (light
--                               threads only)
--   sleep(s, g)  waits `s` seconds, or until somebody posts the gate `g`,
--                which then is of no more use; g may be nil
--   spawn(f, …)  runs f as a task at once, up to its first wait; a task
--   join(task)   waits until it is done: true and its results, or false and
--                the error it raised; any number of times
--   on_tick(f)   f(now) every 250 ms in this process while the loop lives
--
--   store()      the module that shares rates with other hosts; absent where
--                nothing can run beside the caller's code
--   closed       true once the port is gone (its finalizer has run)
--
-- Its pump calls dispatch(port) of loop/calls.lua when the port has news.
--
-- SPDX-License-Identifier: MIT
local calls = require "drover.loop.calls"

local _M = { register = calls.register, forget = calls.forget }

local chosen                    -- the loop of this Lua state


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
