-- The proof that no request and no slot is lost (make proof), and its short
-- form, which spec/nginx/siege_spec.lua runs.
--
--   luajit bench/siege.lua [--short]
--
-- Calm: a gateway of four workers answers N requests; the bodies that the
-- upstream received are the attempts in /metrics, and nothing stays in
-- flight. Storm: under load, a worker is stopped, its sockets are listed, and
-- it is killed with -9, once a second, while the gateway is reloaded. Then a
-- request may have failed only if its connection was on a killed worker, and
-- attempts - lost <= bodies <= attempts.
--
-- SPDX-License-Identifier: MIT
local nginx = require "spec.support.nginx"

local _M = {}

local KILL, STOP, HUP = 9, 19, 1
local now = nginx.now
local SLACK = 0.05                    -- seconds of the clock's reading

local CONFIG = [[
return {
  workers = 4,
  router = {
    nodes = { { id = "up", url = "%s/v1", capacity = 256 } },
    limits = { concurrent = 256 },
  },
}
]]


local function attempts_of(server)
  return nginx.metric(server.url, "drover_attempts_total"),
         nginx.metric(server.url, "drover_attempts_total{node=\"up\","
                                  .. "kind=\"lost\"}")
end


-- In-flight requests fall to 0 by the second tick: 2 x 250 ms, with room for
-- a slow machine's scrape.
local function drained(server)
  return nginx.until_true(function()
    return nginx.metric(server.url, "drover_inflight") == 0
  end, 2) or false
end


local function load_command(server, words)
  return "timeout 300 build/bin/load --port " .. server.port
         .. " --seconds 240 " .. words
end


-- N requests without trouble. Returns the figures.
function _M.calm(server, upstream, count)
  local before = upstream:counts()
  local attempts = attempts_of(server)
  local line = nginx.shell(load_command(server, "--warm 0 -c 64 -n " .. count))
  local out = { line = line, count = count }
  out.answered = tonumber(line:match("n=(%d+)"))
  out.errors = tonumber(line:match("err=(%d+)"))
  out.bodies = upstream:counts() - before
  out.attempts = attempts_of(server) - attempts
  out.drained = drained(server)
  return out
end


-- The remote ports of a stopped worker's connections to the gateway's port.
local function client_ports(pid, port)
  local inodes, ports = {}, {}
  local list = nginx.shell("ls -l /proc/" .. pid .. "/fd")
  for inode in list:gmatch("socket:%[(%d+)%]") do inodes[inode] = true end
  local own = string.format("%04X", port)
  for line in nginx.read("/proc/net/tcp"):gmatch("[^\n]+") do
    local at, remote, inode = line:match(
      "^%s*%d+: %x+:(%x+) %x+:(%x+) %x+ %S+ %S+ %S+ +%d+ +%d+ (%d+)")
    if at == own and inodes[inode] then ports[tonumber(remote, 16)] = true end
  end
  return ports
end


local function stopped(pid)
  local state = nginx.read("/proc/" .. pid .. "/stat"):match("%) (%a)")
  return state == "T" or state == nil
end


-- Stop a worker, note whose connections it holds, kill it.
local function kill_one(server, turn)
  local pids = server:workers()
  local pid = pids[turn % #pids + 1]
  if not pid or not nginx.signal(pid, STOP) then return nil end
  nginx.until_true(function() return stopped(pid) end, 2)
  local at = now()
  local ports = client_ports(pid, server.port)
  nginx.signal(pid, KILL)
  nginx.until_true(function()
    return nginx.read("/proc/" .. pid .. "/stat") == ""
  end, 2)
  return { from = at - SLACK, till = now() + SLACK, ports = ports, pid = pid }
end


-- Requests of the log that failed without a kill to blame.
local function unexplained(path, kills)
  local failed, bad = 0, {}
  for line in nginx.read(path):gmatch("[^\n]+") do
    local port, status, from, till = line:match("(%S+) (%S+) (%S+) (%S+)")
    if status ~= "200" then
      failed = failed + 1
      local excused = false
      for _, kill in ipairs(kills) do
        excused = excused or kill.ports[tonumber(port)]
          and tonumber(from) <= kill.till and tonumber(till) >= kill.from
      end
      if not excused then bad[#bad + 1] = line end
    end
  end
  return failed, bad
end


-- Load for `seconds`, with a kill each second and `reloads` reloads.
function _M.storm(server, upstream, seconds, reloads)
  local before, attempts0, lost0 = upstream:counts(), attempts_of(server)
  local out = { kills = {}, reloads = 0 }
  local log = server.dir .. "/log"
  local load = nginx.start(string.format(
    "build/bin/load --port %d --close --warm 0 -c 32 -n 100000000 "
    .. "--seconds %d --log %s", server.port, seconds + 1, log))
  local begun = now()
  for turn = 1, seconds do
    nginx.until_true(function() return now() >= begun + turn end, 3)
    if out.reloads < math.ceil(turn * reloads / seconds) then
      out.reloads = out.reloads + 1
      nginx.signal(server.pid, HUP)
    end
    out.kills[#out.kills + 1] = kill_one(server, turn)
  end
  nginx.until_true(function() return not load:alive() end, 30)
  out.line = nginx.read(load.dir .. "/out")
  out.answered = tonumber(out.line:match("n=(%d+)"))
  out.drained = drained(server)
  out.failed, out.unexplained = unexplained(log, out.kills)
  local attempts, lost = attempts_of(server)
  out.attempts, out.lost = attempts - attempts0, lost - lost0
  out.bodies = upstream:counts() - before
  return out
end


function _M.start()
  local upstream = nginx.upstream()
  local server = nginx.serve(CONFIG:format(upstream.url))
  return server, upstream
end


local function say(what, ok, ...)
  print((ok and "ok      " or "FAILED  ") .. string.format(what, ...))
  return ok and 0 or 1
end


local function judge_calm(c)
  io.write("calm:  ", c.line)
  return say("%d of %d answered, %d errors", c.errors == 0
             and c.answered == c.count, c.answered, c.count, c.errors)
       + say("bodies %d, attempts %d", c.bodies == c.attempts, c.bodies,
             c.attempts)
       + say("nothing in flight at the end", c.drained)
end


local function judge_storm(s)
  io.write("storm: ", s.line)
  local wrong = say("%d requests, %d kills, %d reloads: %d failed, %d of them "
                    .. "on no killed worker", #s.unexplained == 0, s.answered,
                    #s.kills, s.reloads, s.failed, #s.unexplained)
    + say("attempts %d - lost %d <= bodies %d <= attempts",
          s.attempts - s.lost <= s.bodies and s.bodies <= s.attempts,
          s.attempts, s.lost, s.bodies)
    + say("nothing in flight by the second tick", s.drained)
  for i = 1, math.min(5, #s.unexplained) do print("  " .. s.unexplained[i]) end
  return wrong
end


function _M.main(short)
  local server, upstream = _M.start()
  local wrong = judge_calm(_M.calm(server, upstream, short and 5000 or 100000))
  wrong = wrong + judge_storm(_M.storm(server, upstream, short and 4 or 20,
                                       short and 3 or 10))
  server:stop()
  upstream:stop()
  local alerts = server:log():match("[^\n]*%[alert%][^\n]*")
  local crashed = "exited on signal"
  print(string.format("%d passed, %d failed", 6 - wrong, wrong))
  if alerts and not alerts:find(crashed, 1, true) then print(alerts) end
  return wrong == 0 and 0 or 1
end


if arg and arg[0] and arg[0]:find("bench/siege%.lua$") then
  os.exit(_M.main(arg[1] == "--short"))
end

return _M
