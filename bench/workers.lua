-- Runs the loops of a case file in one nginx worker or in several at once, and
-- brings their figures: bench/pick.lua and bench/limit.lua stand on it.
--
-- SPDX-License-Identifier: MIT
local libc = require "drover.testing.libc"

local _M = {}

local CONF = [[
load_module modules/ndk_http_module.so;
load_module modules/ngx_http_lua_module.so;
daemon off; pid %s/pid; error_log %s/error.log;
worker_processes %d; worker_cpu_affinity auto; %s
events { worker_connections 64; }
env DROVER_LIB;
http {
  access_log off; lua_shared_dict bench 1m; %s
  lua_package_path "%s/?.lua;;";
  client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f;
  uwsgi_temp_path %s/u; scgi_temp_path %s/s;
  init_by_lua_block { require("CASE").make() }
  init_worker_by_lua_block {
    ngx.timer.at(0, function()
      require("CASE").run(ngx.shared, %d, "%s/worker" .. ngx.worker.id())
    end)
  }
}
]]
local SECONDS = 120


local function shell(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""))
end


local function read(path)
  local file = io.open(path, "r")
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return text
end


-- The workers' figures, by case, in the order of the first.
local function collect(dir, workers)
  local order, by_case = {}, {}
  for id = 0, workers - 1 do
    for name, _, median in read(dir .. "/worker" .. id)
                             :gmatch("(%S+) (%S+) (%S+)") do
      if not by_case[name] then
        by_case[name] = {}
        order[#order + 1] = name
      end
      table.insert(by_case[name], tonumber(median))
    end
  end
  return order, by_case
end


local function mean(list)
  local sum = 0
  for _, x in ipairs(list) do
    sum = sum + x
  end
  return sum / #list
end


local function start(dir, case, dicts, workers)
  local here = shell("pwd")
  local path = here .. "/lua/?.lua;" .. here .. "/lua/?/init.lua;" .. here
               .. "/build/lua/?.lua;" .. here
  local user = shell("id -u") == "0" and "user root;" or ""
  local file = assert(io.open(dir .. "/nginx.conf", "w"))
  file:write((CONF:format(dir, dir, workers, user, dicts, path, dir, dir, dir,
                          dir, dir, workers, dir):gsub("CASE", case)))
  file:close()
  local lib = os.getenv("DROVER_LIB") or "build/libdrover.so"
  return tonumber(shell("DROVER_LIB=$(readlink -f " .. lib .. ") "
    .. "/usr/sbin/nginx -p /usr/share/nginx -c " .. dir .. "/nginx.conf -e "
    .. dir .. "/error.log >/dev/null 2>&1 & echo $!"))
end


local function wait(dir, workers)
  for _ = 1, SECONDS * 5 do
    local done = 0
    for id = 0, workers - 1 do
      done = done + (read(dir .. "/worker" .. id) and 1 or 0)
    end
    if done == workers then
      return true
    end
    shell("sleep 0.2")
  end
end


-- The mean over the workers of each case of module `case`, in its order: a list
-- of { name, ns }. `dicts`: shared dicts it wants beside `bench`, as nginx
-- writes them.
function _M.measure(case, dicts, workers)
  local dir = shell("mktemp -d /tmp/drover-bench.XXXXXX")
  local pid = start(dir, case, dicts, workers)
  local done = wait(dir, workers)
  local log = read(dir .. "/error.log")
  libc.terminate(pid)
  if not done then
    error("no figures after " .. SECONDS .. " s: " .. tostring(log))
  end
  local order, by_case = collect(dir, workers)
  shell("rm -rf " .. dir)
  local out = {}
  for i, name in ipairs(order) do
    out[i] = { name = name, ns = mean(by_case[name]) }
  end
  return out
end


-- Machine, time and load, for the head of a report.
function _M.machine()
  return shell("date -u +%Y-%m-%dT%H:%MZ; uname -sr; nproc"):gsub("\n", ", ")
         .. " cores, " .. shell("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo "
         .. "| head -1") .. ", load " .. shell("cut -d' ' -f1-3 /proc/loadavg")
end


return _M
