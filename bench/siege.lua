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
-- attempts - lost <= bodies <= attempts. Kills: workers are killed as fast as
-- they come back. Reloads: with streams open, all of which arrive whole.
--
-- SPDX-License-Identifier: MIT
local nginx = require "spec.support.nginx"

local _M = {}

local KILL, STOP, HUP = 9, 19, 1
local WORKERS = 4
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


-- Load, while `count` workers are killed, each as soon as there are four.
function _M.kills(server, upstream, count)
  local before, attempts0, lost0 = upstream:counts(), attempts_of(server)
  local out = { kills = 0, held = 0 }
  local load = nginx.start(string.format(
    "build/bin/load --port %d --close --warm 0 -c 32 -n 100000000 "
    .. "--seconds %d", server.port, count))
  for turn = 1, count do
    local pids
    nginx.until_true(function()
      pids = server:workers()
      return #pids >= WORKERS
    end, 5)
    out.held = out.held + (nginx.metric(server.url, "drover_inflight") > 0
                           and 1 or 0)
    local pid = pids[turn % #pids + 1]
    if pid and nginx.signal(pid, KILL) then out.kills = out.kills + 1 end
  end
  load:stop()
  out.drained = drained(server)
  local attempts, lost = attempts_of(server)
  out.attempts, out.lost = attempts - attempts0, lost - lost0
  out.bodies = upstream:counts() - before
  return out
end


-- Is this what the upstream sent for a stream of so many pieces, byte for
-- byte? Only the clock in each piece is not known.
local function is_whole(text, pieces)
  local shape = "data: {\"id\":\"chatcmpl-bench\",\"object\":"
    .. "\"chat.completion.chunk\",\"created\":1700000000,\"model\":"
    .. "\"bench\",\"choices\":[{\"index\":0,\"delta\":%s,"
    .. "\"finish_reason\":%s}]}\n\n"
  local at = 1
  for i = 0, pieces - 1 do
    local clock = text:match("^" .. i .. "@(%d+) ", at + #shape:match("^(.-)%%")
                             + #"{\"content\":\"")
    if not clock or #clock ~= 19 then return false, "piece " .. i end
    local want = shape:format("{\"content\":\"" .. i .. "@" .. clock .. " \"}",
                              "null")
    if text:sub(at, at + #want - 1) ~= want then return false, "piece " .. i end
    at = at + #want
  end
  local tail = shape:format("{}", "\"stop\"") .. "data: [DONE]\n\n"
  return text:sub(at) == tail, "the end"
end


-- `reloads` reloads while `count` streams of `pieces` pieces are open.
function _M.reloads(server, reloads, count, pieces)
  local out = { reloads = 0, whole = 0, open = math.huge }
  local dir, streams = nginx.folder(), {}
  local body = "{\"model\":\"bench\",\"stream\":true,\"messages\":"
    .. "[{\"role\":\"user\",\"content\":\"go\"}]}"
  nginx.write(dir .. "/body", body)
  for i = 1, count do
    streams[i] = nginx.start("curl -sS -N --max-time 120 --data-binary @" .. dir
      .. "/body -H \"content-type: application/json\" " .. server.url
      .. "/v1/chat/completions")
  end
  nginx.until_true(function()
    return nginx.metric(server.url, "drover_inflight") >= count
  end)
  for _ = 1, reloads do
    local before = table.concat(server:workers(), " ")
    nginx.signal(server.pid, HUP)
    out.reloads = out.reloads + 1
    nginx.until_true(function()
      return table.concat(server:workers(), " ") ~= before
    end, 5)
    out.open = math.min(out.open, nginx.metric(server.url, "drover_inflight"))
  end
  for i, stream in ipairs(streams) do
    nginx.until_true(function() return not stream:alive() end, 120)
    local ok, where = is_whole(nginx.read(stream.dir .. "/out"), pieces)
    out.whole = out.whole + (ok and 1 or 0)
    out.wrong = out.wrong or not ok and "stream " .. i .. ", " .. where
                .. ": " .. stream:log() or nil
  end
  out.drained = drained(server)
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


local function judge_kills(k)
  return say("kills: %d, %d of them with requests in flight", k.kills > 0
             and k.held > k.kills / 2, k.kills, k.held)
       + say("attempts %d - lost %d <= bodies %d <= attempts",
             k.attempts - k.lost <= k.bodies and k.bodies <= k.attempts,
             k.attempts, k.lost, k.bodies)
       + say("nothing in flight by the second tick", k.drained)
end


local function judge_reloads(r, count)
  return say("%d reloads with %d streams open: %d arrived byte for byte%s",
             r.whole == count and r.open >= count, r.reloads, r.open, r.whole,
             r.wrong and "; " .. r.wrong or "")
       + say("nothing in flight at the end", r.drained)
end


-- Streams slow enough to be open through all reloads.
local function reload_all(reloads, count, pieces, gap)
  local upstream = nginx.upstream("--chunks " .. pieces .. " --gap " .. gap)
  local server = nginx.serve(CONFIG:format(upstream.url))
  local r = _M.reloads(server, reloads, count, pieces)
  server:stop()
  upstream:stop()
  return r
end

_M.reload_all = reload_all


function _M.main(short)
  local server, upstream = _M.start()
  local wrong = judge_calm(_M.calm(server, upstream, short and 5000 or 100000))
  wrong = wrong + judge_storm(_M.storm(server, upstream, short and 4 or 20,
                                       short and 3 or 10))
  wrong = wrong + judge_kills(_M.kills(server, upstream, short and 30 or 500))
  server:stop()
  upstream:stop()
  local streams = short and 10 or 50
  wrong = wrong + judge_reloads(reload_all(short and 3 or 20, streams,
                                           short and 200 or 500, 50), streams)
  local alerts = server:log():match("[^\n]*%[alert%][^\n]*")
  local crashed = "exited on signal"
  print(string.format("%d passed, %d failed", 11 - wrong, wrong))
  if alerts and not alerts:find(crashed, 1, true) then print(alerts) end
  return wrong == 0 and 0 or 1
end


if arg and arg[0] and arg[0]:find("bench/siege%.lua$") then
  os.exit(_M.main(arg[1] == "--short"))
end

return _M
