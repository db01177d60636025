-- Two nginxes ("hosts") that share one rate through a real Redis.
local json = require "drover.json"
local nginx = require "spec.support.nginx"
local redis_server = require "spec.support.redis"

local RATE, BURST = 20, 20              -- a second; limits.rpm = 1200
local LEASE = 1
local PASSWORD = "canary-5f1c7e"
local WHOLE, BASE = 65536, 16384

local ROOT = nginx.shell("pwd"):gsub("%s+$", "")
local USER = nginx.shell("id -un"):gsub("%s+$", "") == "root" and "user root;\n"
             or ""

local CONF = [[
daemon off;
worker_processes 2;
pid DIR/pid;
error_log stderr notice;
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
env DROVER_LIB;
events { worker_connections 256; }
http {
  access_log off;
  lua_socket_log_errors off;
  lua_package_path "ROOT/lua/?.lua;ROOT/lua/?/init.lua;ROOT/build/lua/?.lua;;";
  init_by_lua_block {
    router = require("drover").new{ name = "two hosts",
      nodes = { { id = "n", url = "http://127.0.0.1:1/v1", capacity = 1000 } },
      limits = { rpm = 1200, concurrent = 1000, redis = REDIS } }
  }
  init_worker_by_lua_block { require("drover.resty").init_worker() }
  server {
    listen 127.0.0.1:PORT;
    keepalive_requests 1000000;
    location = /take { content_by_lua_block {
      local ticket, err = router:pick{}
      if not ticket then
        ngx.status = err.code == "router_rpm" and 429 or 500
        return ngx.say(tostring(err))
      end
      ticket:done()
      ngx.say("ok")
    } }
    location = /store { content_by_lua_block { ngx.say(router:stats().store) } }
    location = /metrics { content_by_lua_block { ngx.print(router:metrics()) } }
  }
}
]]


local function new_host(redis)
  local dir, port = nginx.folder(), nginx.port()
  local text = CONF:gsub("DIR", ROOT .. "/" .. dir):gsub("ROOT", ROOT)
    :gsub("PORT", tostring(port)):gsub("REDIS", function() return redis end)
  nginx.write(dir .. "/nginx.conf", USER .. text)
  local self = nginx.start(("nginx -p %s -c %s/%s/nginx.conf"):format(
    ROOT, ROOT, dir), dir)
  self.port, self.url = port, "http://127.0.0.1:" .. port
  local up = nginx.until_true(function()
    return not self:alive() or nginx.get(self.url .. "/store", "2> /dev/null") == 200
  end)
  assert(up and self:alive(), self:log())
  return self
end


local function store_of(host)
  return (select(2, nginx.get(host.url .. "/store")):gsub("%s+$", ""))
end


local function all_say(hosts, word)
  return nginx.until_true(function()
    for _, host in ipairs(hosts) do
      if store_of(host) ~= word then return nil end
    end
    return true
  end)
end


-- So many requests a second to each host, at times by lot, for some seconds
-- (a number, or one for each). Returns how many passed at each, and how long
-- it took.
local function load(hosts, rates, seconds)
  local began, running = nginx.now(), {}
  for i, host in ipairs(hosts) do
    local dir = nginx.folder()
    local count = rates[i] * (type(seconds) == "table" and seconds[i] or seconds)
    running[i] = nginx.start(("build/bin/load --port %d --path /take -n %d"
      .. " -c 8 --warm 0 --rate %d --seconds 20 --log %s/log"):format(
      host.port, math.ceil(count), rates[i], dir), dir)
  end
  local passed = {}
  for i, one in ipairs(running) do
    nginx.until_true(function() return not one:alive() end, 40)
    local log = nginx.read(one.dir .. "/log")
    passed[i] = select(2, log:gsub("%d+ 200 ", ""))
    assert.equal(0, select(2, log:gsub("%d+ 500 ", "")), log:sub(1, 500))
    assert.is_true(passed[i] > 0, one:log() .. log:sub(1, 200))
  end
  return passed, nginx.now() - began
end


describe("two hosts that share a rate", function()
  local redis, a, b, config

  setup(function()
    redis = redis_server.start("--requirepass " .. PASSWORD)
    redis:call("AUTH", PASSWORD)
    redis:call("SELECT", 3)
    config = ('{ url = "redis://:%s@127.0.0.1:%d/3", hosts = 2, lease = %d }')
             :format(PASSWORD, redis.port, LEASE)
    a, b = new_host(config), new_host(config)
    assert(all_say({ a, b }, "shared"), a:log() .. b:log())
  end)
  teardown(function()
    for _, one in pairs{ a or false, b or false, redis or false } do
      if one then one:stop() end
    end
  end)

  -- The parts in Redis's books: of the base, and of the one name.
  local function books()
    local out = {}
    for _, key in ipairs(redis:call("KEYS", "*")) do
      local list, parts = json.decode(redis:call("GET", key)), {}
      for i = 1, type(list) == "table" and #list or 0, 4 do
        parts[#parts + 1] = list[i + 1]
      end
      table.sort(parts)
      out[key:match(":(%a+)$") or "name"] = parts
    end
    return out
  end

  it("never pass more together than the rate and each one's burst", function()
    local passed, seconds = load({ a, b }, { 40, 40 }, 4)
    local total = passed[1] + passed[2]
    assert.is_true(total <= RATE * seconds + 2 * BURST, total .. " in " .. seconds)
    assert.is_true(total >= 0.6 * RATE * 4, total .. " in " .. seconds)
  end)

  it("part it by what comes to each", function()
    local passed, seconds = load({ a, b }, { 57, 3 }, { 4, 2 })
    local total = passed[1] + passed[2]
    assert.is_true(total <= RATE * seconds + 2 * BURST, total .. " in " .. seconds)
    assert.is_true(passed[1] > 0.6 * RATE * 4, passed[1] .. " in " .. seconds)
    local parts = books().name
    assert.is_true(parts[#parts] > 0.85 * (WHOLE - BASE), parts[#parts])
  end)

  it("keep in Redis ids and numbers only, and all of it ends", function()
    local keys = redis:call("KEYS", "*")
    assert.equal(3, #keys)
    for _, key in ipairs(keys) do
      assert.matches("^drover:%x+:%w+$", key)
      assert.is_true(redis:call("PTTL", key) > 0)
      assert.matches('^[%x%[%],"]+$', redis:call("GET", key))
    end
  end)

  it("log in as a user that may touch their keys only", function()
    redis:call("ACL", "SETUSER", "drover", "on", ">" .. PASSWORD, "~drover:*",
               "-@all", "+auth", "+select", "+eval", "+mget", "+set", "+del",
               "+time")
    local c = new_host(config:gsub("//:", "//drover:"):gsub("/3", "/4"))
    local said = all_say({ c }, "shared")
    c:stop()
    assert.is_true(said, c:log())
  end)

  it("give a killed one's part to the other after its lease", function()
    local pids = b:workers()
    nginx.signal(b.pid, 9)
    for _, pid in ipairs(pids) do
      nginx.signal(pid, 9)
    end
    load({ a }, { 20 }, LEASE)
    local whole = nginx.until_true(function()
      load({ a }, { 20 }, 0.3)
      local now = books()
      return #now.hosts == 1 and now.hosts[1] == BASE
             and now.name[1] == WHOLE - BASE
    end, 0.2)                       -- 20 looks
    assert.is_true(whole)
    b = new_host(config)
    assert.is_true(all_say({ b }, "shared"))
    assert.is_true(nginx.until_true(function()    -- both know of both
      local parts = books().hosts
      return #parts == 2 and parts[1] == BASE / 2 and parts[2] == BASE / 2
    end))
  end)

  it("go on alone with their fair share while Redis is gone", function()
    local port = redis.port
    redis:stop(9)
    assert.is_true(all_say({ a, b }, "alone"))
    nginx.until_true(function()
      return a:log():find("fair share", 1, true) and b:log():find("fair share", 1, true)
    end)
    load({ a, b }, { 30, 30 }, 1.5 * LEASE)   -- by now no lease is left
    local passed, seconds = load({ a, b }, { 30, 30 }, 2)
    for i, host in ipairs{ a, b } do
      local _, times = host:log():gsub("goes on with its fair share, 1/2", "")
      assert.equal(1, times, host:log())
      assert.is_true(nginx.metric(host.url, "drover_limit_store_errors_total") > 1)
      assert.is_true(passed[i] <= RATE / 2 * seconds + BURST / 2, passed[i])
      assert.is_true(passed[i] >= 0.6 * RATE / 2 * 2, passed[i])
    end
    redis = redis_server.start("--requirepass " .. PASSWORD, port)
    assert.is_true(all_say({ a, b }, "shared"))
    passed, seconds = load({ a, b }, { 40, 40 }, 2)
    assert.is_true(passed[1] + passed[2] <= RATE * seconds + 2 * BURST)
    for _, host in ipairs{ a, b } do
      assert.matches("rates are shared again", host:log())
    end
  end)

  it("keep their shares over a reload", function()
    local old = a:workers()
    nginx.signal(a.pid, 1)
    assert.is_true(nginx.until_true(function()
      for _, pid in ipairs(a:workers()) do
        for _, was in ipairs(old) do
          if pid == was then return nil end
        end
      end
      return #a:workers() == 2
    end))
    assert.equal("shared", store_of(a))
    local passed, seconds = load({ a, b }, { 40, 40 }, 2)
    assert.is_true(passed[1] + passed[2] <= RATE * seconds + 2 * BURST)
    assert.equal("shared", store_of(a))
  end)

  it("log in again, or say that they cannot, without the password", function()
    local port = redis.port
    redis:stop(9)
    for options, said in pairs{ ["--requirepass other"] = "AUTH: WRONGPASS",
                                ['--rename-command AUTH ""'] = "AUTH: ERR" } do
      redis = redis_server.start(options, port)
      local c = new_host(config)
      assert.is_true(nginx.until_true(function()
        return c:log():find(said, 1, true)
      end) ~= nil, c:log())
      assert.equal("alone", store_of(c))
      c:stop()
      assert.is_nil(c:log():find(PASSWORD, 1, true))
      redis:stop(9)
    end
    for _, host in ipairs{ a, b } do
      assert.is_nil(host:log():find(PASSWORD, 1, true))
      assert.is_nil(host:log():find("%[alert%]"), host:log())
    end
  end)
end)


describe("limits.redis", function()
  local function why(conf)
    local ok, message = pcall(require("drover").new, conf)
    assert.is_false(ok)
    return message
  end

  it("is refused where no timer runs", function()
    assert.matches("limits.redis: works inside nginx only", why{
      name = "r", limits = { rpm = 1, redis = { url = "redis://127.0.0.1" } },
    })
  end)
end)
