-- A real nginx, and the programs of bench/ behind it, for specs: each in a
-- folder of its own under build/, on a port that the kernel chose, without
-- the sanitizers that the spec itself runs under. Ends what it started, by
-- pid.
local ffi = require "ffi"

local _M = {}

if not pcall(ffi.typeof, "struct spec_timespec") then
  ffi.cdef[[
    struct spec_timespec { long sec, nsec; };
    int nanosleep(const struct spec_timespec *t, struct spec_timespec *left);
    int clock_gettime(int clock, struct spec_timespec *out);
    int kill(int pid, int signal);
    int getpid(void);
  ]]
end

local CLEAN = "exec env -u LD_PRELOAD -u ASAN_OPTIONS -u LSAN_OPTIONS "
              .. "-u UBSAN_OPTIONS DROVER_LIB=\"$PWD/build/libdrover.so\" "
local LUA = "LUA_PATH=\"$PWD/lua/?.lua;$PWD/lua/?/init.lua;"
            .. "$PWD/build/lua/?.lua;;\" "
local STEP = 0.01                     -- seconds between two looks
local LONG = 20                       -- seconds until a wait is given up

local number = 0


local function nap()
  local t = ffi.new("struct spec_timespec", 0, STEP * 1e9)
  ffi.C.nanosleep(t, nil)
end


-- Seconds on the monotonic clock, as bench/load writes them.
function _M.now()
  local t = ffi.new("struct spec_timespec")
  ffi.C.clock_gettime(1, t)
  return tonumber(t.sec) + tonumber(t.nsec) / 1e9
end


-- Look until `f` answers; nil after `seconds`. For what other processes do,
-- of which there is nothing to wait on.
function _M.until_true(f, seconds)
  for _ = 1, (seconds or LONG) / STEP do
    local value = f()
    if value then return value end
    nap()
  end
end


function _M.signal(pid, signal)
  return ffi.C.kill(pid, signal) == 0
end


function _M.read(path)
  local file = io.open(path, "rb")
  if not file then return "" end
  local text = file:read("*a")
  file:close()
  return text
end


function _M.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end


-- A command's output and whether it went well.
function _M.shell(command)
  local pipe = io.popen("unset LD_PRELOAD; " .. command)
  local text = pipe:read("*a")
  pipe:close()
  return text
end


-- A new folder under build/.
function _M.folder()
  number = number + 1
  local dir = string.format("build/spec/%d-%d", ffi.C.getpid(), number)
  os.execute("mkdir -p " .. dir)
  return dir
end


-- A port that is free now.
function _M.port()
  local socket = require "cqueues.socket"
  local s = assert(socket.listen("127.0.0.1", 0))
  assert(s:listen())
  local _, _, port = s:localname()
  s:close()
  return port
end


local running_mt = {}
running_mt.__index = running_mt


function running_mt:alive()
  local state = _M.read("/proc/" .. self.pid .. "/stat"):match("%) (%a)")
  return state ~= nil and state ~= "Z"
end


-- QUIT, TERM or another signal's number; waits until it is gone.
function running_mt:stop(signal)
  if self.stopped then return end
  self.stopped = true
  _M.signal(self.pid, signal or 15)
  if not _M.until_true(function() return not self:alive() end) then
    _M.signal(self.pid, 9)
  end
end


function running_mt:log()
  return _M.read(self.dir .. "/err")
end


-- The pids of an nginx's workers, also of those that a reload sent off.
function running_mt:workers()
  local text = _M.read(string.format("/proc/%d/task/%d/children", self.pid,
                                     self.pid))
  local pids = {}
  for pid in text:gmatch("%d+") do
    if _M.read("/proc/" .. pid .. "/cmdline"):find("^nginx: worker") then
      pids[#pids + 1] = tonumber(pid)
    end
  end
  return pids
end


-- Start a program; its output goes to files in its folder, or to `output`.
-- `env`: assignments, as shell text.
function _M.start(command, dir, output, env)
  dir = dir or _M.folder()
  local pid = _M.shell(string.format("sh -c '%s' > %s 2> %s & echo $!",
    CLEAN .. LUA .. (env and env .. " " or "") .. command,
    output or dir .. "/out", output or dir .. "/err"))
  return setmetatable({ pid = assert(tonumber(pid)), dir = dir }, running_mt)
end


-- bench/upstream: gives its port.
function _M.upstream(options)
  local self = _M.start("build/bin/upstream --life 300 " .. (options or ""))
  self.port = _M.until_true(function()
    return tonumber(_M.read(self.dir .. "/out"):match("port (%d+)"))
  end)
  assert(self.port, "the upstream did not start: " .. self:log())
  self.url = "http://127.0.0.1:" .. self.port
  return self
end


-- What the upstream counted: bodies, gone, open.
function running_mt:counts()
  local text = _M.shell("curl -sS " .. self.url .. "/count")
  return tonumber(text:match('"bodies":(%d+)')),
         tonumber(text:match('"gone":(%d+)'))
end


-- `drover serve` on a free port; `config` is the text of its file, where
-- PORT stands for the port, or nil for the bundled model. `output` and `env`:
-- as start().
function _M.serve(config, options, output, env)
  local dir, port = _M.folder(), _M.port()
  local words = options or ""
  if config then
    _M.write(dir .. "/gateway.lua", config)
    words = words .. " --config " .. dir .. "/gateway.lua"
  end
  local self = _M.start("luajit lua/drover/cli.lua serve --port " .. port .. " "
                        .. words, dir, output, env)
  self.port = port
  self.url = "http://127.0.0.1:" .. port
  local up = _M.until_true(function()
    return not self:alive() or #self:workers() > 0
      and _M.shell("curl -s -o /dev/null -w %{http_code} " .. self.url
                   .. "/health") ~= "000"
  end)
  if not up or not self:alive() then
    self:stop()
    error("drover serve did not start: " .. self:log(), 2)
  end
  return self
end


-- POST a body, with more of curl's options; returns status, body, headers.
function _M.post(url, body, options)
  local dir = _M.folder()
  _M.write(dir .. "/body", body)
  local status = _M.shell(string.format(
    "curl -sS -N --max-time 30 -H 'content-type: application/json' -D %s/head "
    .. "-o %s/reply -w '%%{http_code}' --data-binary @%s/body %s '%s' "
    .. "2> %s/curl", dir, dir, dir, options or "", url, dir))
  return tonumber(status), _M.read(dir .. "/reply"), _M.read(dir .. "/head")
end


function _M.get(url, options)
  local dir = _M.folder()
  local status = _M.shell(string.format(
    "curl -sS --max-time 30 -D %s/head -o %s/reply -w '%%{http_code}' %s '%s'",
    dir, dir, options or "", url))
  return tonumber(status), _M.read(dir .. "/reply"), _M.read(dir .. "/head")
end


-- One figure of /metrics: the sum of the rows that start with `name`.
function _M.metric(url, name)
  local _, text = _M.get(url .. "/metrics")
  local sum = 0
  for line in text:gmatch("[^\n]+") do
    if line:sub(1, #name) == name then
      sum = sum + tonumber(line:match("(%S+)$"))
    end
  end
  return sum
end


return _M
