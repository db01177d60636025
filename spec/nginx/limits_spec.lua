-- Limits and the queue over four workers of a real nginx.
local json = require "drover.json"
local nginx = require "spec.support.nginx"

local CONFIG = [[
return {
  workers = 4,
  keys = { { key = "key-of-ann", name = "ann", limits = { rpm = 6,
             burst = { requests = 5 } } },
           { key = "key-of-bob", name = "bob" },
           { key = "key-of-nobody" } },
  router = {
    limits = { wait = 3, per = {
      tenant = { named = { ["keys[3]"] = { rpm = 1 } } },
      model = { named = { narrow = { concurrent = 2 },
                          shut = { concurrent = 1 },
                          paced = { rpm = 1200 } } } } },
    nodes = { { id = "up", url = "%s/delay-20/v1",
                models = { "m", "narrow", "paced" } },
              { id = "slow", url = "%s/hang/v1", models = { "shut" } } },
  },
}
]]

local OWN = [[
%sdaemon off; worker_processes %d; pid %s/pid; error_log stderr warn;
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
env DROVER_LIB;
events { worker_connections 256; }
http {
  access_log off;
  lua_package_path "lua/?.lua;lua/?/init.lua;build/lua/?.lua;;";
  lua_check_client_abort on;
  init_by_lua_block {
    router = require("drover").new{ name = "empty", nodes = {},
                                    limits = { wait = 15, concurrent = 1 },
                                    queue = { hold = 15 } }
  }
  init_worker_by_lua_block { require("drover.resty").init_worker() }
  server {
    listen 127.0.0.1:%d;
    location = /ask { content_by_lua_block {
      local reply, err = router:chat{ messages = {
        { role = "user", content = "hi" } } }
      ngx.say(reply and "answered by " .. reply.drover.node or tostring(err))
    } }
    location = /add { content_by_lua_block {
      ngx.say(tostring(router:add{ id = "late", url = "%s/v1" }))
    } }
    location = /take { content_by_lua_block {
      ticket = router:pick()
      ngx.say(tostring(ticket ~= nil))
    } }
    location = /give { content_by_lua_block {
      ngx.say(tostring(ticket:done()))
    } }
    location = /waiting { content_by_lua_block {
      ngx.say(router:stats().waiting)
    } }
  }
}
]]


local function chat(model)
  return '{"model":"' .. model
         .. '","messages":[{"role":"user","content":"hi"}]}'
end


-- `count` requests from `at_once` processes: the statuses and their numbers.
local function many(url, key, model, count, at_once)
  local dir = nginx.folder()
  nginx.write(dir .. "/body", chat(model))
  local text = nginx.shell(("seq %d | xargs -P %d -I{} curl -sS -o /dev/null "
    .. "--max-time 30 -w '%%{http_code}\\n' -H 'authorization: Bearer %s' "
    .. "--data-binary @%s/body %s"):format(count, at_once, key, dir, url))
  local statuses = {}
  for status in text:gmatch("%d+") do
    statuses[tonumber(status)] = (statuses[tonumber(status)] or 0) + 1
  end
  return statuses
end


describe("limits over four workers", function()
  local server, upstream, url

  setup(function()
    upstream = nginx.upstream()
    server = nginx.serve(CONFIG:format(upstream.url, upstream.url))
    url = server.url .. "/v1/chat/completions"
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  local function waiting()
    return nginx.metric(server.url, "inference_requests_pending")
  end

  it("hold a caller's rate in all of them together", function()
    local from = nginx.now()
    local statuses = many(url, "key-of-ann", "m", 40, 8)
    local later = math.ceil((nginx.now() - from) / 10)
    assert.equal(40, (statuses[200] or 0) + (statuses[429] or 0))
    assert.is_true(statuses[200] >= 5 and statuses[200] <= 5 + later,
                   statuses[200])
  end)

  it("say 429, what refused and when to come again", function()
    local status, text = nginx.post(url, chat "m",
      "-H 'authorization: Bearer key-of-nobody'")
    assert.equal(200, status, text)
    local head
    status, text, head = nginx.post(url, chat "m",
      "-H 'authorization: Bearer key-of-nobody'")
    assert.equal(429, status)
    local after = tonumber(head:match("[Rr]etry%-[Aa]fter: (%d+)"))
    assert.is_true(after > 30 and after <= 60, head)
    local e = json.decode(text).error
    assert.equal("tenant_rpm", e.code)
    assert.equal("rate_limit_error", e.type)
    assert.truthy(e.message:find("limits.per.tenant.rpm", 1, true), e.message)
  end)

  it("leave other callers alone", function()
    assert.same({ [200] = 20 }, many(url, "key-of-bob", "m", 20, 8))
  end)

  it("let requests wait in one queue for all workers", function()
    assert.same({ [200] = 40 }, many(url, "key-of-bob", "narrow", 40, 20))
    assert.equal(0, waiting())
    assert.equal(0, nginx.metric(server.url, "drover_inflight"))
  end)

  it("pace what waits for a rate", function()
    local from = nginx.now()
    assert.same({ [200] = 41 }, many(url, "key-of-bob", "paced", 41, 20))
    -- 1200 a minute is one in 50 ms; a burst of one second's worth: 20.
    assert.is_true(nginx.now() - from >= 20 * 0.05)
    assert.equal(0, waiting())
  end)

  it("forget a client that leaves the queue", function()
    local dir = nginx.folder()
    nginx.write(dir .. "/body", chat "shut")
    local asks = {}
    for i = 1, 3 do
      asks[i] = nginx.start(("curl -sS -o /dev/null --max-time 30 -H "
        .. "\"authorization: Bearer key-of-bob\" --data-binary @%s/body %s")
        :format(dir, url))
    end
    assert.is_true(nginx.until_true(function() return waiting() == 2 end, 5))
    for _, ask in ipairs(asks) do
      ask:stop()
    end
    assert.is_true(nginx.until_true(function()
      return waiting() == 0
             and nginx.metric(server.url, "drover_inflight") == 0
    end, 5))
  end)
end)


describe("an nginx of one's own", function()
  local server, upstream, url

  local function start(workers)
    local dir, port = nginx.folder(), nginx.port()
    local user = nginx.shell("id -un"):gsub("%s+$", "")
    upstream = nginx.upstream()
    nginx.write(dir .. "/nginx.conf",
                OWN:format(user == "root" and "user root; " or "", workers,
                           dir, port, upstream.url))
    local root = nginx.shell("pwd"):gsub("%s+$", "")
    server = nginx.start(("nginx -p %s -c %s/nginx.conf"):format(root, dir),
                         dir)
    url = "http://127.0.0.1:" .. port
    assert(nginx.until_true(function()
      return (nginx.get(url .. "/waiting")) == 200
    end), server:log())
  end
  after_each(function()
    server:stop()
    upstream:stop()
  end)

  local function get(path)
    return (select(2, nginx.get(url .. path)))
  end

  -- That many requests in the queue; their programs.
  local function ask(count, options)
    local asks = {}
    local before = tonumber(get "/waiting")
    for i = 1, count do
      asks[i] = nginx.start("curl -sS --max-time 30 " .. (options or "")
                            .. " " .. url .. "/ask")
    end
    assert.is_true(nginx.until_true(function()
      return tonumber(get "/waiting") == before + count
    end, 5))
    return asks
  end

  local function texts(asks)
    local list = {}
    for i, one in ipairs(asks) do
      nginx.until_true(function() return not one:alive() end, 20)
      list[i] = nginx.read(one.dir .. "/out")
    end
    return table.concat(list)
  end

  it("holds requests of all workers until a node is added", function()
    start(2)
    local asks = ask(4)
    assert.equal("true\n", get "/add")
    assert.equal(("answered by late\n"):rep(4), texts(asks), server:log())
  end)

  it("passes over those whose light thread was killed", function()
    start(1)
    get "/add"
    assert.equal("true\n", get "/take")
    local gone = ask(4)
    local here = ask(1)
    for _, one in ipairs(gone) do
      one:stop(9)
    end
    assert.equal("true\n", get "/give")
    local from = nginx.now()
    assert.equal("answered by late\n", texts(here), server:log())
    -- A call that nobody answers is waited for 1 s, one after the other.
    assert.is_true(nginx.now() - from < 3)
    assert.equal("0\n", get "/waiting")
  end)
end)
