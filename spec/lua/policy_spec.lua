-- Policies in Lua: trial, service, swap.
local drover = require "drover"
local policies = require "drover.policy"
local testing = require "drover.testing"

local dead = { "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1" }
local router


local function over(policy)
  router = drover.new { policy = policy, nodes = {
    { id = "a", url = dead[1] }, { id = "b", url = dead[2] },
  } }
  return router
end


local function pick(opts)
  local ticket, e = router:pick({ model = "m", max_tokens = 7 }, opts)
  if not ticket then
    return nil, e
  end
  local id = ticket.node.id
  ticket:done { kind = "cancelled" }
  return id
end


local function least(nodes, request)
  local best
  for i = 1, nodes.count do
    if request.may(i) and not request.tried(i)
       and (not best or nodes[i].inflight < nodes[best].inflight) then
      best = i
    end
  end
  return best
end


describe("the trial of a policy", function()
  local good = {
    least = least,
    none = function() return nil end,
    last = function(nodes) return #nodes > 0 and #nodes or nil end,
    unknown = function(nodes)
      local outside = nodes[0] or nodes[nodes.count + 1] or nodes[-1]
      assert(outside == nil)
      return nodes.count > 0 and 1 or nil
    end,
  }
  for name, f in pairs(good) do
    it("lets pass: " .. name, function()
      assert.truthy(policies.new(f))
    end)
  end

  local bad = {
    { "an endless loop", function() while true do end end, "instructions" },
    { "one that catches errors", function()
        while true do pcall(function() while true do end end) end
      end, "instructions" },
    { "a Lua error", function() return nil + 1 end, "raised" },
    { "row 0", function() return 0 end, "answered 0" },
    { "a row past the last", function(n) return n.count + 1 end, "answered" },
    { "a fraction", function(n) return n.count > 0 and 1.5 or nil end, "1.5" },
    { "a string", function() return "a" end, "answered a" },
    { "an unknown field", function(n) return n[1] and n[1].speed end,
      "speed" },
    { "a write to a row", function(n)
        if n[1] then n[1].weight = 5 end
      end, "raised" },
  }
  for _, row in ipairs(bad) do
    it("stops " .. row[1], function()
      local policy, why = policies.new(row[2])
      assert.is_nil(policy)
      assert.truthy(why:find(row[3], 1, true), why)
    end)
  end

  it("leaves the compiler on", function()
    policies.new(function() while true do end end)
    assert.is_true((jit.status()))
    assert.is_nil((debug.gethook()))
  end)
end)


describe("a policy in service", function()
  after_each(function() router:close() end)

  it("decides over live rows", function()
    over(function(nodes) return nodes.count > 1 and 2 or nil end)
    assert.equal("b", pick())
  end)

  it("sees the request", function()
    local seen
    over(function(nodes, request)
      if request.model == "m" and nodes.count == 2 then
        seen = { request.max_tokens, request.may(1), request.tried(1),
                 request.random < 1, request.key, nodes[1].capacity }
      end
      return nodes.count > 0 and 1 or nil
    end)
    assert.equal("a", pick { key = "tenant" })
    assert.same({ 7, true, false, true, "tenant", 50 }, seen)
  end)

  it("that wants none gets no node", function()
    over(function() return nil end)
    local id, e = pick()
    assert.is_nil(id)
    assert.equal("no_node", e.kind)
    assert.truthy(e.message:find("takes none", 1, true), e.message)
    assert.falsy(router:metrics():find('limit="node"} 1', 1, true))
  end)

  it("that raises is counted, and the default decides", function()
    local armed = false
    over(function(nodes)
      if armed then
        error("oops")
      end
      return nodes.count > 0 and 1 or nil
    end)
    armed = true
    assert.truthy(pick())
    assert.equal(1, router:stats().policy_errors)
  end)

  it("that closes its router ends the request and nothing else", function()
    local armed = false
    over(function(nodes)
      if armed then
        router:close()
      end
      return nodes.count > 0 and 1 or nil
    end)
    armed = true
    local _, e = pick()
    assert.equal("closed", e.kind)
  end)

  it("that answers a bad row is counted, and the default decides", function()
    local answer = 1
    over(function(nodes) return nodes.count > 0 and answer or nil end)
    for _, bad in ipairs { 3, 0, -1, 1.5, 1e18, 0 / 0, "x" } do
      answer = bad
      assert.truthy(pick())
    end
    assert.equal(7, router:stats().policy_errors)
  end)

  it("can be changed while it runs", function()
    over("round_robin")
    assert.is_true(router:policy(function(n)
      return n.count > 1 and 2 or nil
    end))
    assert.equal("b", pick())
    assert.is_true(router:policy("fallback"))
    assert.equal("a", pick())
    assert.has_error(function() router:policy("nonsense") end)
    assert.equal("a", pick())
  end)

  it("of one request is forgotten with it", function()
    over("round_robin")
    for _ = 1, 3 do
      assert.equal("b", pick { policy = function(nodes)
        return nodes.count > 1 and 2 or nil
      end })
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(router.policies))
  end)

  it("can be asked for by one request", function()
    over("fallback")
    assert.equal("b", pick { policy = function(n)
      return n.count > 1 and 2 or nil
    end })
    assert.equal("a", pick())
    assert.truthy(pick { policy = "two_choices" })
    assert.equal("a", pick())
  end)
end)


describe("a policy from a file", function()
  local path

  local function write(text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
  end

  local function tick()
    require("drover.open").tick(router, require("drover.loop").get().now())
  end

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  it("takes up a good new version, and leaves the old for a bad one",
     function()
    write "return function(n) return n.count > 1 and 2 or nil end"
    over { file = path }
    assert.equal("b", pick())
    write "return function(n) return n.count > 0 and 1 or nil end"
    tick()
    assert.equal("a", pick())
    write "return function(n) while true do end end"
    tick()
    assert.equal("a", pick())
    assert.truthy(router:stats().policy_error)
    router:close()
  end)

  for name, text in pairs {
    ["does not parse"] = "return function(", ["raises"] = "error('x')",
    ["is no function"] = "return 5", ["never ends"] = "while true do end",
  } do
    it("that " .. name .. " is refused at the start", function()
      write(text)
      assert.has_error(function() over { file = path } end)
    end)
  end
end)


describe("testing.compiles()", function()
  it("tells a policy that compiles", function()
    assert.is_true((testing.compiles(least)))
  end)

  it("tells why one does not", function()
    local ok, reasons = testing.compiles(function(nodes)
      local t = {}
      for k in pairs { a = 1, b = 2 } do
        t[#t + 1] = k:gsub("a", "b")
      end
      return nodes.count
    end)
    assert.is_false(ok)
    assert.is_true(#reasons > 0)
  end)
end)
