-- Many requests over nodes that fail in many ways: each ends once, each body
-- on the wire is one attempt in a ledger, and all that was taken comes back.
local drover = require "drover"
local random = require "drover.random"
local testing = require "drover.testing"

local SEEDS, REQUESTS = { 1, 2, 3 }, 60


local function cut(n, more)
  local reply = testing.stream { "a", "b", "c" }
  reply.cut = n
  for name, value in pairs(more or {}) do
    reply[name] = value
  end
  return reply
end


-- What a node may do, by the number drawn.
local faults = {
  function() return testing.error(503, "full") end,
  function() return testing.error(500, "broken") end,
  function() return testing.error(429, "slow") end,
  function() return testing.error(400, "yours") end,
  function() return { body = "<html>" } end,
  function() return { body = "", cut = 0 } end,
  function() return { body = "", cut = 0, reset = true } end,
  function() return cut(0) end,
  function() return cut(1) end,
  function() return cut(2) end,
  function() return cut(3, { reset = true }) end,
  function() return { sse = { "{" } } end,
  function() return { hold = true } end,
}


local function replies(rnd, count)
  local list = {}
  for i = 1, count do
    local n = math.floor(rnd() * 26) + 1
    local fault = faults[n]
    list[i] = fault and fault() or n % 2 == 0 and testing.reply("ok")
              or testing.stream { "o", "k" }
  end
  return list
end


local function request()
  return { model = "m", messages = { { role = "user", content = "hi" } } }
end


-- One request in one of the ways. Returns its ledger.
local function one(router, draw)
  local opts = { timeout = { total = 0.5, first_token = 0.2, idle = 0.2 } }
  if draw < 0.4 then
    local reply, e = router:chat(request(), opts)
    return reply and reply.drover.attempts or e.attempts
  end
  local stream, e = router:stream(request(), opts)
  if not stream then
    return e.attempts
  end
  if draw < 0.6 then
    stream:cancel()
    return stream.err.attempts
  end
  local reply
  reply, e = stream:join()
  return reply and reply.drover.attempts or e.attempts
end


local function run(seed)
  local rnd = random.new(seed)
  local servers, nodes = {}, {}
  for i = 1, 3 do
    servers[i] = testing.server(replies(rnd, 200))
    nodes[i] = { id = "n" .. i, url = servers[i].url }
  end
  local router = drover.new { nodes = nodes, policy = "round_robin",
                              retry = { min = 0, max = 0.01 } }
  local sent, ended, tasks = 0, 0, {}
  for i = 1, REQUESTS do
    local draw = rnd()
    tasks[i] = drover.go(function()
      local ledger = one(router, draw)  -- waits: `sent` is read after it
      sent = sent + #ledger
      ended = ended + 1
    end)
    if i % 10 == 0 then
      drover.wait(unpack(tasks, i - 9, i))
    end
  end
  return router, servers, sent, ended
end


describe("a router over nodes that fail", function()
  for _, seed in ipairs(SEEDS) do
    it("ends each request once and loses nothing, seed " .. seed, function()
      local router, servers, sent, ended = run(seed)
      assert.equal(REQUESTS, ended)
      assert.equal(0, router:stats().inflight)
      assert.equal(REQUESTS, router:stats().total_requests)
      assert.is_nil(next(router.active))
      assert.equal(0, require("drover.loop.calls").count())
      local received, counted = 0, 0
      for _, server in ipairs(servers) do
        received = received + #server:requests()
        server:stop()
      end
      for _, n in (router:metrics()):gmatch(
        "drover_attempts_total{node=\"([^\"]*)\",kind=\"[^\"]*\"} (%d+)") do
        counted = counted + tonumber(n)
      end
      assert.equal(received, sent)
      assert.equal(received, counted)
      router:close()
    end)
  end
end)
