-- Two routers of one name, as two workers have them: one zone, each with its
-- own keys. And what is left when nobody closes anything.
local drover = require "drover"
local testing = require "drover.testing"

local ask = { model = "m", messages = { { role = "user", content = "hi" } } }


describe("routers of one name", function()
  local server, a, b

  local function named(name)
    return { name = name, nodes = { { id = "n", url = server.url } } }
  end

  before_each(function()
    server = testing.server { testing.reply("x") }
  end)
  after_each(function()
    a:close()
    b:close()
    server:stop()
  end)

  it("share their counters", function()
    local conf = named("shared-1")
    a, b = drover.new(conf), drover.new(conf)
    assert(a:chat(ask))
    assert(b:chat(ask))
    assert.equal(2, a:stats().total_requests)
    assert.equal(2, b:nodes()[1].requests)
  end)

  it("learn the nodes that another adds", function()
    a = drover.new { name = "shared-2", nodes = {} }
    b = drover.new { name = "shared-2", nodes = {} }
    assert(a:add { id = "n", url = server.url, models = { m = "theirs" } })
    local reply = assert(b:chat(ask))
    assert.equal("n", reply.drover.node)
    assert.truthy(server:requests()[1].body:find('"theirs"', 1, true))
    assert(b:remove("n"))
    local _, e = a:chat(ask)
    assert.equal("no_node", e.kind)
  end)

  it("keep a node's counts when it is configured again", function()
    local conf = named("shared-3")
    a = drover.new(conf)
    assert(a:chat(ask))
    conf.nodes[2] = { id = "m", url = "http://127.0.0.1:1/v1" }
    b = drover.new(conf)
    assert.equal(1, b:stats().nodes.n.requests)
    conf.nodes = { conf.nodes[2] }
    b:close()
    b = drover.new(conf)
    assert.equal(1, #b:nodes())
    assert.equal("m", b:nodes()[1].id)
  end)
end)


describe("a router that nobody closes", function()
  it("is collected with what it held", function()
    for _ = 1, 20 do
      drover.new { nodes = { { url = "http://127.0.0.1:1/v1" } } }
    end
    local weak = setmetatable({}, { __mode = "v" })
    weak[1] = drover.new { nodes = { { url = "http://127.0.0.1:1/v1" } } }
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak[1])
  end)

  it("ends with its process, streams and all", function()
    local slow = testing.stream { "a", "b", "c" }
    slow.pause = 0.2
    local server = testing.server { slow }
    local path = os.tmpname()
    local file = io.open(path, "w")
    file:write(([[
      local drover = require "drover"
      local ask = { model = "m",
                    messages = { { role = "user", content = "x" } } }
      router = drover.new { nodes = { { url = %q } } }
      stream = router:stream(ask)
      ticket = router:pick(ask)
      task = drover.go(function() router:chat(ask) end)
      io.write(stream:next().index)
    ]]):format(server.url))
    file:close()
    local pipe = io.popen("luajit " .. path .. "; echo :$?")
    assert.equal("0:0\n", pipe:read("*a"))
    pipe:close()
    os.remove(path)
    server:stop()
  end)
end)
