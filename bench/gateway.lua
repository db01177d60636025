-- What a request, and a chunk of a stream, costs the gateway in client mode,
-- beside nginx's own proxy_pass to the same upstream: CPU of the process,
-- interleaved rounds, the ratio of the medians.
--
--   luajit bench/gateway.lua [gateway | stream] [ROUNDS]
--
-- The gateway is pinned to core 0, upstream and load generator to core 1.
--
-- SPDX-License-Identifier: MIT
local nginx = require "spec.support.nginx"

local REQUESTS, CONNECTIONS, STREAMS, GAP_MS = 30000, 32, 50, 5

local PROXY = [[
daemon off;
%sworker_processes 1;
pid %s/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path %s/body;
  proxy_temp_path %s/proxy;
  fastcgi_temp_path %s/f;
  uwsgi_temp_path %s/u;
  scgi_temp_path %s/s;
  upstream up {
    server 127.0.0.1:%d;
    keepalive 256;
    keepalive_requests 1000000;
  }
  server {
    listen 127.0.0.1:%d backlog=4096;
    location / {
      proxy_pass http://up;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
]]

local GATEWAY = [[
return {
  workers = 1,
  router = {
    nodes = { { id = "up", url = "%s/v1", capacity = 256 } },
    limits = { concurrent = 256 },
  },
}
]]


local function start_proxy(upstream)
  local dir, port = nginx.folder(), nginx.port()
  local here = nginx.shell("pwd"):gsub("%s+$", "") .. "/" .. dir
  local user = nginx.shell("id -u"):match("%d+") == "0" and "user root;\n" or ""
  nginx.write(dir .. "/nginx.conf", PROXY:format(user, here, here, here, here,
                                                 here, here, upstream.port,
                                                 port))
  local self = nginx.start("taskset -c 0 nginx -e stderr -p " .. here .. " -c "
                           .. here .. "/nginx.conf", dir)
  self.port = port
  nginx.until_true(function() return #self:workers() > 0 end)
  return self
end


local function start_gateway(upstream)
  local self = nginx.serve(GATEWAY:format(upstream.url))
  for _, pid in ipairs(self:workers()) do
    nginx.shell("taskset -a -cp 0 " .. pid)
  end
  return self
end


local function measure(server, kind)
  local words = kind == "stream"
    and string.format("--stream -n %d -c %d --warm %d", 3 * STREAMS, STREAMS,
                      STREAMS)
    or string.format("-n %d -c %d --warm 2000", REQUESTS, CONNECTIONS)
  return nginx.shell(string.format(
    "taskset -c 1 build/bin/load --port %d --pids %s %s", server.port,
    table.concat(server:workers(), ","), words)):gsub("%s+$", "")
end


local function print_setting(kind)
  local function ask(command) return (nginx.shell(command):gsub("%s+$", "")) end
  print("# " .. kind .. ", " .. ask("date -u +%Y-%m-%dT%H:%MZ") .. ", "
        .. ask("uname -sr") .. ", " .. ask("nproc") .. " cores, "
        .. ask("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1"))
  print("# " .. ask("nginx -v 2>&1") .. ", "
        .. ask("curl --version | head -1 | cut -d' ' -f1-4")
        .. ", load " .. ask("cut -d' ' -f1-3 /proc/loadavg"))
  print(kind == "stream"
    and string.format("# %d streams of 200 chunks, one each %d ms", STREAMS,
                      GAP_MS)
    or string.format("# closed loop, %d connections, reply 1000 bytes",
                     CONNECTIONS))
end


local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end


local function main(kind, rounds)
  local figure = kind == "stream" and "chunk_us" or "cpu_us"
  local upstream = nginx.upstream("--gap " .. GAP_MS)
  nginx.shell("taskset -cp 1 " .. upstream.pid)
  local servers = { { "proxy", start_proxy(upstream) },
                    { "drover", start_gateway(upstream) } }
  local seen, bad = { proxy = {}, drover = {} }, false
  print_setting(kind)
  for _ = 1, rounds do
    for _, server in ipairs(servers) do
      local name = server[1]
      local line = measure(server[2], kind)
      local value = tonumber(line:match(figure .. "=(%S+)"))
      table.insert(seen[name], value)
      bad = bad or not line:find("err=0 ")
      print(string.format("case=%-7s %s", name, line))
    end
  end
  local ours, theirs = median(seen.drover), median(seen.proxy)
  print(string.format("case=%s %s=%.2f/%.2f ratio=%.2f target=%.2f%s", kind,
    figure, ours, theirs, ours / theirs,
    kind == "stream" and 1.45 or 2.6, bad and " WITH ERRORS" or ""))
  for _, server in ipairs(servers) do server[2]:stop() end
  upstream:stop()
  return bad and 1 or 0
end


local kind = arg[1] or "gateway"
if kind ~= "gateway" and kind ~= "stream" then
  io.stderr:write("usage: bench/gateway.lua [gateway | stream] [ROUNDS]\n")
  os.exit(2)
end
os.exit(main(kind, tonumber(arg[2] or 5)))
