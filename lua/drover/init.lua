-- Drover: drives inference requests to the node that will answer soonest,
-- cheapest or best. docs/LUA-API.md is the manual of this module.
--
-- SPDX-License-Identifier: MIT
local config = require "drover.config"
local err = require "drover.err"
local json = require "drover.json"
local loops = require "drover.loop"
local router = require "drover.router"

local _M = {
  VERSION = "0.1.0",
  is_err = err.is, null = json.null, array = json.array, raw = json.raw,
}

local made = {}                 -- routers that init_by_lua made, by name


-- In a worker: the router of that name from init_by_lua, or nil.
local function of_master(name, shared)
  if not name or shared == false then
    return nil
  end
  if not made[name] then
    error("router \"" .. name .. "\": call drover.new in init_by_lua, or say"
          .. " shared = false", 3)
  end
  return made[name]
end


-- A new router. Raises on a bad configuration, naming the field; nil and an
-- error when a model file cannot be read or memory is short.
function _M.new(conf)
  local loop = loops.get()
  local in_init = loop.phase() == "init"
  if type(conf) == "table" and loop.is_worker() and not in_init then
    local router_made = of_master(conf.name, conf.shared)
    if router_made then
      return router_made
    end
  end
  local checked, why = config.read(conf)
  if not checked then
    error(why, 2)
  end
  local self, e, wrong = router.new(checked)
  if wrong then
    error(wrong, 2)
  end
  if self and in_init and checked.shared then
    made[self.name] = self
  end
  return self, e
end


-- The routers that init_by_lua made, by name (for resty/init.lua).
function _M.made()
  return made
end


-- ---- tasks ----

-- Run f(…) as a task: at once, up to its first wait.
function _M.go(f, ...)
  if type(f) ~= "function" then
    error("drover.go: a function is wanted, got " .. type(f), 2)
  end
  return loops.get().spawn(f, ...)
end


local function results(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end


-- Wait for tasks. One task: all it returned. Several: the first result of
-- each, in order. A task that raised raises here.
function _M.wait(...)
  local loop = loops.get()
  local count = select("#", ...)
  for i = 1, count do
    local task = select(i, ...)
    if type(task) ~= "table" or type(task.waiters) ~= "table" then
      error("drover.wait: argument " .. i .. " is no task", 2)
    end
  end
  if count == 1 then
    return results(loop.join((...)))
  end
  local firsts = {}
  for i = 1, count do
    firsts[i] = results(loop.join((select(i, ...))))
  end
  return unpack(firsts, 1, count)
end


-- Wait some seconds; other tasks run meanwhile.
function _M.sleep(s)
  if type(s) ~= "number" or s ~= s or s < 0 then
    error("drover.sleep: seconds are wanted", 2)
  end
  loops.get().sleep(s)
end


-- Seconds on the clock that Drover measures with; it starts anywhere.
function _M.now()
  return loops.get().now()
end


-- Hand the loop to another library's.
function _M.loop(name)
  return loops.choose(name)
end


return _M
