-- Row 65 of the fault matrix: a reload with nodes added, removed and in
-- another order. What is known of a node follows its url and key, never its
-- place. (Row 64, running streams, is in spec/nginx/reload_spec.lua.)
local json = require "drover.json"
local nginx = require "spec.support.nginx"
local fault_server = require "spec.support.fault_server"

local HUP = 1


local function config(nodes)
  return "return { workers = 2, router = { retry = { attempts = 1 }, "
         .. "nodes = {\n" .. table.concat(nodes, ",\n") .. " } } }"
end


describe("a reload with other nodes", function()
  local server, upstream, stream

  local function node(id, url)
    return ("{ id = %q, url = %q, models = { %q } }"):format(id, url, id)
  end

  local function ask(model)
    return nginx.post(server.url .. "/v1/chat/completions",
      '{"model":"' .. model .. '","messages":[{"role":"user","content":"x"}]}')
  end

  -- What /drover/nodes says, by id.
  local function nodes()
    local _, text = nginx.get(server.url .. "/drover/nodes")
    local by = {}
    for _, one in ipairs(json.decode(text).nodes) do
      by[one.id] = one
    end
    return by
  end

  setup(function()
    upstream = fault_server.start{ "--quiet" }
  end)
  teardown(function()
    if stream then stream:stop() end
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  it("row 65: keeps what is known of those that stay", function()
    local bad = node("bad", "http://127.0.0.1:" .. nginx.port() .. "/v1")
    local good = node("good", upstream.url .. "/f/ok/v1")
    local old = node("old", upstream.url .. "/f/ok;after=1;hold/v1")
    local new = node("new", upstream.url .. "/f/ok;new/v1")
    server = nginx.serve(config{ bad, good, old })
    for _ = 1, 3 do
      assert.equal(200, (ask "good"))
    end
    assert.is_true(nginx.until_true(function()
      ask "bad"
      return nodes().bad.state == "out"
    end, 5))
    local dir = nginx.folder()
    nginx.write(dir .. "/body", '{"model":"old","stream":true,"messages":'
                .. '[{"role":"user","content":"x"}]}')
    stream = nginx.start("curl -sS -N --max-time 60 --data-binary @" .. dir
                         .. "/body -o " .. dir .. "/reply " .. server.url
                         .. "/v1/chat/completions")
    assert.is_true(nginx.until_true(function()
      return nginx.read(dir .. "/reply"):find("w1", 1, true) ~= nil
    end, 5))

    nginx.write(server.dir .. "/gateway.lua", config{ new, good, bad })
    nginx.signal(server.pid, HUP)
    local after = nginx.until_true(function()
      local by = nodes()
      return by.new and not by.old and by
    end, 10)
    assert.truthy(after)
    assert.equal("out", after.bad.state)
    assert.is_true(after.bad.fails >= 5)
    assert.equal("up", after.good.state)
    assert.equal(3, after.good.requests)
    assert.equal("up", after.new.state)
    assert.equal(200, (ask "new"))
    assert.equal(404, (ask "old"))

    assert.equal(1, nginx.metric(server.url, "drover_inflight"),
                 nginx.read(dir .. "/reply") .. server:log()
                 .. select(2, nginx.get(server.url .. "/metrics")):sub(1, 900))
    stream:stop()                       -- on a node that is gone
    assert.is_true(nginx.until_true(function()
      return nginx.metric(server.url, "drover_inflight") == 0
    end, 5))
    assert.equal(1, upstream:totals().gone)
  end)
end)
