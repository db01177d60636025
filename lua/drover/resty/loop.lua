-- The loop under nginx: tasks are light threads, gates are semaphores, and
-- one light thread a worker reads a unix socket on which the port says that
-- there is news. What a loop module gives is said in loop/init.lua.
--
--   transport thread --byte--> unix socket --> pump --> dispatch --> gate:post
--
-- An old worker must not outlive its requests: a timer that is set for weeks
-- is fired early when the worker begins to exit, and from then on the pump
-- ends with the last call. A later call of the same worker (a retry) starts
-- it again.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local semaphore = require "ngx.semaphore"
local C = require "drover.core"
local calls = require "drover.loop.calls"

local get_phase = ngx.get_phase
local new_semaphore = semaphore.new
local timer_at = ngx.timer.at

local TICK = 0.25
local WAIT = 3600               -- seconds of one wait; then it waits again
local NOTICE = 3e6              -- seconds; fired early when the worker exits
local AGAIN = 0.1               -- seconds before a broken pump starts anew
local PATH_MAX = 108

local WAITING_PHASES = {
  rewrite = true, server_rewrite = true, access = true, content = true,
  timer = true, ssl_cert = true, ssl_session_fetch = true,
  ssl_client_hello = true,
}

local _M = { killable = true, spare = true, closed = false }

local in_master = get_phase() == "init"      -- so workers are forked from us
local port
local dir = os.getenv("TMPDIR") or "/tmp"
local pumping, exiting, started = false, false, false
local ticks = {}


function _M.now()
  return C.drover_clock()
end


function _M.phase()
  return get_phase() == "init" and "init" or "run"
end


function _M.workers()
  return ngx.worker.count()
end


function _M.is_worker()
  return in_master and get_phase() ~= "init"
end


function _M.blocked()
  local phase = get_phase()
  return not WAITING_PHASES[phase] and phase or nil
end


-- What shares rates with other hosts (limits.redis).
function _M.store()
  return require "drover.resty.store"
end


-- The folder for the wake-up socket, which exists for an instant under mode
-- 0600. Before the first call.
function _M.folder(path)
  dir = path
end


-- ---- the pump ----

local function connect()
  local path, err = ffi.new("char[?]", PATH_MAX), ffi.new("drover_err")
  if C.drover_port_listen(port, dir, path, PATH_MAX, err) ~= 0 then
    return nil, ffi.string(err.text)
  end
  local sock = ngx.socket.tcp()
  sock:settimeouts(1000, 1000, WAIT * 1000)
  local ok, why = sock:connect("unix:" .. ffi.string(path))
  if not ok then
    return nil, why
  end
  if C.drover_port_accept(port, err) ~= 0 then
    sock:close()
    return nil, ffi.string(err.text)
  end
  return sock
end


-- Gives out news until the socket breaks, or the worker exits and nothing is
-- left to wait for. Returns what broke.
local function pump_socket(sock)
  local dispatch = calls.dispatch
  dispatch(port)                -- what came before there was a socket
  while not (exiting and calls.count() == 0) do
    local bytes, why = sock:receiveany(4096)
    if bytes then
      dispatch(port)
    elseif why ~= "timeout" then
      return why
    end
  end
end


-- One socket's life. Returns what broke it, or nil when it did its work.
local function pump_once()
  local sock, why = connect()
  if not sock then
    return why
  end
  -- An error in what takes an event must not leave all others waiting.
  local ok, broke = pcall(pump_socket, sock)
  sock:close()
  return broke or not ok and "error" or nil
end


-- A worker that exits may set no timer but one of 0 seconds, so what broke is
-- waited for in here.
local function pump(premature)
  local why
  repeat
    why = not (premature and not port) and pump_once() or nil
    if why then
      ngx.log(ngx.ERR, "drover: the pump ended and starts anew: ",
              tostring(why))
      ngx.sleep(AGAIN)
    end
  until not why
  pumping = false
end


local function start_pump()
  local ok, why = timer_at(0, pump)
  pumping = ok and true or false
  if not ok then
    ngx.log(ngx.ERR, "drover: no timer for the wake-up socket: ", why)
  end
end


-- ---- the worker's life ----

local function notice(premature)
  if not premature then
    timer_at(NOTICE, notice)
    return
  end
  exiting = true
  if pumping and calls.count() == 0 then
    C.drover_port_poke(port)
  end
end


local function run_ticks(premature)
  if premature then
    return
  end
  local now = C.drover_clock()
  for i = 1, #ticks do
    ticks[i](now)
  end
end


-- Starts tick and exit notice in this worker, once.
local function start()
  if started then
    return
  end
  started = true
  assert(ngx.timer.every(TICK, run_ticks))
  assert(timer_at(NOTICE, notice))
end
_M.start = start


function _M.on_tick(f)
  ticks[#ticks + 1] = f
  if get_phase() ~= "init" then
    start()
  end
end


function _M.port()
  if not port then
    local out, err = ffi.new("drover_port *[1]"), ffi.new("drover_err")
    if C.drover_port_open(out, err) ~= 0 then
      return nil, ffi.string(err.text)
    end
    port = ffi.gc(out[0], function(p)       -- when the worker exits at once
      _M.closed = true
      C.drover_port_close(p)
    end)
    start()
  end
  if not pumping then
    start_pump()
  end
  return port
end


-- The last call of the worker is forgotten (called by loop/init.lua).
function calls.idle()
  if exiting and pumping then
    C.drover_port_poke(port)
  end
end


-- ---- gates and tasks ----

local gate_mt = {}
gate_mt.__index = gate_mt

-- Semaphores that nobody waits for: a wait that was posted takes its post and
-- leaves 0 behind. One whose waiter was killed does not come back.
local idle, idle_count, IDLE_MAX = {}, 0, 256


local function take_semaphore()
  if idle_count == 0 then
    return assert(new_semaphore(0))
  end
  local sem = idle[idle_count]
  idle[idle_count] = nil
  idle_count = idle_count - 1
  return sem
end


local function give_semaphore(sem)
  if idle_count < IDLE_MAX then
    idle_count = idle_count + 1
    idle[idle_count] = sem
  end
end


function gate_mt:post()
  if not self.posted then
    self.posted = true
    if self.semaphore then
      self.semaphore:post(1)
    end
  end
end


function gate_mt:wait()
  if not self.posted then
    local sem = take_semaphore()
    self.semaphore = sem
    local ok, why = sem:wait(WAIT)
    while not ok do
      if why ~= "timeout" then
        error("drover: cannot wait here: " .. tostring(why), 0)
      end
      ok, why = sem:wait(WAIT)
    end
    self.semaphore = false
    give_semaphore(sem)
  end
  self.posted = false
end


-- Whoever waited here was killed.
function gate_mt:deserted()
  return not self.posted and self.semaphore ~= false
         and self.semaphore:count() >= 0
end


function _M.gate()
  return setmetatable({ posted = false, semaphore = false }, gate_mt)
end


function _M.sleep(s, gate)
  s = math.max(0.001, s)                -- 0 is another thing to nginx
  if not gate then
    ngx.sleep(s)
  elseif not gate.posted then
    gate.semaphore = assert(new_semaphore(0))
    gate.semaphore:wait(s)
    gate.semaphore = false
  end
end


local function finish(task, ok, ...)
  task.done, task.ok = true, ok
  task.results = { n = select("#", ...), ... }
  for i = 1, #task.waiters do
    task.waiters[i]:post()
  end
end


local function run(task, f, ...)
  finish(task, pcall(f, ...))
end


function _M.spawn(f, ...)
  local task = { done = false, waiters = {} }
  ngx.thread.spawn(run, task, f, ...)
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
