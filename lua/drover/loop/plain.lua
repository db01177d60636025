-- The loop of a plain LuaJIT program: tasks are coroutines, one port brings
-- the news of all calls. Inside a task a wait yields; anywhere else, foreign
-- coroutines included, it drives the loop until it is over, and the tasks
-- run meanwhile. What a loop module gives is said in loop/init.lua.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local dispatch = require("drover.loop.calls").dispatch

local running = coroutine.running
local yield = coroutine.yield
local resume = coroutine.resume

local TICK = 0.25
local TASKS_READY_MAX = 64      -- resumed between two looks at the port

local _M = { killable = false, spare = false, closed = false }

local port
-- coroutine -> task. Weak on both sides: a task holds its coroutine, so one
-- that is weak by key alone would keep every task that ever ran.
local tasks = setmetatable({}, { __mode = "kv" })
local ready, ready_first, ready_last = {}, 1, 0
local ticks, next_tick = {}, 0


function _M.now()
  return C.drover_clock()
end


function _M.phase()
  return "run"
end


function _M.workers()
  return 1
end


function _M.is_worker()
  return false
end


function _M.blocked()
  return nil
end


function _M.on_tick(f)
  ticks[#ticks + 1] = f
end


local function open_port()
  local out, err = ffi.new("drover_port *[1]"), ffi.new("drover_err")
  if C.drover_port_open(out, err) ~= 0 then
    return nil, ffi.string(err.text)
  end
  port = ffi.gc(out[0], function(p)
    _M.closed = true
    C.drover_port_close(p)
  end)
  return port
end


-- Apart from open_port(), as a function that makes a closure is not compiled.
function _M.port()
  if port then
    return port
  end
  return open_port()
end


-- ---- timers: a heap by time ----

local heap, heap_size = {}, 0


local function timer_push(at, gate)
  heap_size = heap_size + 1
  local i = heap_size
  while i > 1 do
    local up = (i - i % 2) / 2
    if heap[up].at <= at then
      break
    end
    heap[i] = heap[up]
    i = up
  end
  heap[i] = { at = at, gate = gate }
end


local function timer_pop()
  local first, last = heap[1], heap[heap_size]
  heap[heap_size] = nil
  heap_size = heap_size - 1
  local i = 1
  while heap_size > 0 do
    local child = 2 * i
    if child > heap_size then
      break
    end
    if child < heap_size and heap[child + 1].at < heap[child].at then
      child = child + 1
    end
    if last.at <= heap[child].at then
      break
    end
    heap[i] = heap[child]
    i = child
  end
  if heap_size > 0 then
    heap[i] = last
  end
  return first
end


-- ---- tasks ----

local function task_end(task, ok, ...)
  task.done = true
  task.ok = ok
  task.results = { n = select("#", ...), ... }
  for i = 1, #task.waiters do
    task.waiters[i]:post()
  end
end


local function make_ready(task)
  ready_last = ready_last + 1
  ready[ready_last] = task
end


-- A task that yields without waiting for anything gives way to the others.
local function task_step(task, ok, ...)
  if not ok or coroutine.status(task.co) == "dead" then
    task_end(task, ok, ...)
  elseif not task.waits then
    make_ready(task)
  end
end


local function task_resume(task, ...)
  task_step(task, resume(task.co, ...))
end


local function run_ready()
  local count = 0
  while ready_first <= ready_last and count < TASKS_READY_MAX do
    local task = ready[ready_first]
    ready[ready_first] = nil
    ready_first = ready_first + 1
    count = count + 1
    task_resume(task)
  end
  if ready_first > ready_last then
    ready_first, ready_last = 1, 0
  end
end


-- ---- gates ----

local gate_mt = {}
gate_mt.__index = gate_mt


function gate_mt:post()
  self.posted = true
  local task = self.waiter
  if task then
    self.waiter = false
    task.waits = false
    make_ready(task)
  end
end


local function tick(now)
  next_tick = now + TICK
  for i = 1, #ticks do
    ticks[i](now)
  end
end


-- One turn: give out news, run what is due, and wait if nothing is.
local function turn()
  local from = _M.port()
  if not from then
    error("drover: no descriptor left for the completion port", 0)
  end
  local now = C.drover_clock()
  local wait = next_tick - now
  if wait <= 0 then
    tick(now)
    wait = TICK
  end
  while heap_size > 0 and heap[1].at <= now do
    timer_pop().gate:post()
    wait = 0                    -- whoever drives us may be the one woken
  end
  if heap_size > 0 and heap[1].at - now < wait then
    wait = heap[1].at - now
  end
  if dispatch(from) == 0 and ready_first > ready_last then
    C.drover_port_wait(from, wait)
    dispatch(from)
  end
  run_ready()
end


local function drive(gate)
  run_ready()
  while not gate.posted do
    turn()
  end
end


function gate_mt:wait()
  if not self.posted then
    local co = running()
    local task = co and tasks[co]
    if self.waiter or self.driven then
      error("drover: two tasks wait for one stream", 0)
    end
    if task then
      self.waiter, task.waits = task, true
      yield()
    else
      self.driven = true
      drive(self)
      self.driven = false
    end
  end
  self.posted = false
end


function gate_mt.deserted()
  return false
end


function _M.gate()
  return setmetatable({ posted = false, waiter = false,
                        driven = false }, gate_mt)
end


function _M.sleep(s, gate)
  gate = gate or _M.gate()
  timer_push(C.drover_clock() + s, gate)
  gate:wait()
end


function _M.spawn(f, ...)
  local task = { done = false, waits = false, waiters = {},
                 co = coroutine.create(f) }
  tasks[task.co] = task
  task_resume(task, ...)
  return task
end


function _M.join(task)
  if not task.done then
    local gate = _M.gate()
    task.waiters[#task.waiters + 1] = gate
    gate:wait()
  end
  return task.ok, unpack(task.results, 1, task.results.n)
end


return _M
