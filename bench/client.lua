-- Plain LuaJIT as a client: 50 requests in flight to an nginx on loopback
-- through a router, beside lua-http over kept connections. CPU of this
-- process (its transport thread included) a request, by getrusage; rounds
-- are interleaved, the ratio is of medians.
--
--   luajit bench/client.lua [requests a round] [rounds]
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local drover = require "drover"
local json = require "drover.json"
local libc = require "drover.testing.libc"

ffi.cdef [[
  struct bench_usage { long user_s, user_us, system_s, system_us, rest[14]; };
  int getrusage(int, struct bench_usage *);
]]

local IN_FLIGHT = 50
local requests = tonumber(arg[1]) or 5000
local rounds = tonumber(arg[2]) or 5

local BODY = [[{"id":"chatcmpl-1","object":"chat.completion",]]
  .. [["created":1700000000,"model":"m","choices":[{"index":0,"message":]]
  .. [[{"role":"assistant","content":"Hello! How can I help you today?"},]]
  .. [["logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,]]
  .. [["completion_tokens":9,"total_tokens":18}}]]

local CONF = [[
daemon off; master_process off; pid %s/pid; error_log %s/error.log;
events { worker_connections 512; }
http {
  access_log off; keepalive_requests 100000000; default_type application/json;
  client_body_temp_path %s/b; proxy_temp_path %s/p; fastcgi_temp_path %s/f;
  uwsgi_temp_path %s/u; scgi_temp_path %s/s;
  server { listen 127.0.0.1:%d; location / { return 200 '%s'; } }
}
]]


local function cpu_us()
  local usage = ffi.new("struct bench_usage")
  ffi.C.getrusage(0, usage)
  return tonumber(usage.user_s + usage.system_s) * 1e6
         + tonumber(usage.user_us + usage.system_us)
end


local function shell(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""))
end


-- nginx on a free port: its port, and what stops it.
local function start_upstream()
  local dir = shell("mktemp -d /tmp/drover-bench.XXXXXX")
  local fd, port = libc.listen()
  libc.close(fd)
  local file = assert(io.open(dir .. "/nginx.conf", "w"))
  file:write(CONF:format(dir, dir, dir, dir, dir, dir, dir, port, BODY))
  file:close()
  local pid = tonumber(shell("/usr/sbin/nginx -c " .. dir .. "/nginx.conf -e "
                             .. dir .. "/error.log >/dev/null 2>&1 & echo $!"))
  for _ = 1, 100 do
    if shell("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:" .. port)
       == "200" then
      return port, function()
        libc.terminate(pid)
        shell("rm -rf " .. dir)
      end, pid
    end
    shell("sleep 0.05")
  end
  error("nginx did not start")
end


local function request(i)
  return { model = "m", max_tokens = 64, temperature = 0.5, messages = {
    { role = "system", content = "You are a helpful assistant." },
    { role = "user", content = "Say hello, number " .. i } } }
end


local function work_drover(router, run)
  while run.next <= run.count do
    local i = run.next
    run.next = i + 1
    local reply = router:chat(request(i))
    if not reply or not reply.choices then
      run.failed = run.failed + 1
    end
  end
end


local function through_drover(router, count)
  local run, tasks = { next = 1, count = count, failed = 0 }, {}
  for i = 1, IN_FLIGHT do
    tasks[i] = drover.go(work_drover, router, run)
  end
  drover.wait(unpack(tasks))
  return run.failed
end


-- One kept connection of lua-http, asked again and again.
local function work_http(http, headers_new, port, run)
  local conn = assert(http.connect { host = "127.0.0.1", port = port,
                                     version = 1.1 })
  while run.next <= run.count do
    local i = run.next
    run.next = i + 1
    local body = require("cjson").encode(request(i))
    local headers = headers_new()
    headers:append(":method", "POST")
    headers:append(":path", "/v1/chat/completions")
    headers:append(":authority", "127.0.0.1")
    headers:append("content-type", "application/json")
    headers:append("content-length", tostring(#body))
    local stream = assert(conn:new_stream())
    assert(stream:write_headers(headers, false))
    assert(stream:write_body_from_string(body))
    local head = assert(stream:get_headers())
    local reply = json.decode(assert(stream:get_body_as_string()))
    if head:get(":status") ~= "200" or not reply.choices then
      run.failed = run.failed + 1
    end
  end
  conn:close()
end


local function through_http(port, count)
  local cqueues = require "cqueues"
  local http = require "http.client"
  local headers_new = require("http.headers").new
  local run = { next = 1, count = count, failed = 0 }
  local queue = cqueues.new()
  for _ = 1, IN_FLIGHT do
    queue:wrap(work_http, http, headers_new, port, run)
  end
  assert(queue:loop())
  return run.failed
end


local function measure(f)
  collectgarbage()
  local cpu, at = cpu_us(), libc.now()
  local failed = f()
  return (cpu_us() - cpu) / requests, requests / (libc.now() - at), failed
end


local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end


local function report(case, got, base)
  local cpu = median(got.cpu)
  print(("case=%s n=%d inflight=%d err=%d cpu_us=%.1f rps=%.0f ratio=%.2f")
        :format(case, requests, IN_FLIGHT, got.failed, cpu, median(got.rps),
                cpu / base))
  return cpu
end


-- This process on one core, the upstream on another, where taskset is.
local function pin(core, pid)
  shell("taskset -cp " .. core .. " " .. pid .. " 2>/dev/null")
end


local port, stop, upstream = start_upstream()
pin(0, libc.C.getpid())
pin(1, upstream)
local router = assert(drover.new {
  nodes = { { id = "nginx", url = "http://127.0.0.1:" .. port .. "/v1",
              capacity = 1000 } },
  limits = { concurrent = 1000 },
})
local cases = {
  { "lua-http", function() return through_http(port, requests) end },
  { "drover", function() return through_drover(router, requests) end },
}
local results = {}
local ok, why = pcall(function()
  for round = 0, rounds do
    for _, case in ipairs(cases) do
      local cpu, rps, failed = measure(case[2])
      if round > 0 then                 -- round 0 warms up
        local got = results[case[1]] or { cpu = {}, rps = {}, failed = 0 }
        results[case[1]] = got
        got.cpu[#got.cpu + 1], got.rps[#got.rps + 1] = cpu, rps
        got.failed = got.failed + failed
      end
    end
  end
end)
router:close()
stop()
assert(ok, why)
local base = median(results["lua-http"].cpu)
report("lua-http", results["lua-http"], base)
report("drover", results.drover, base)
