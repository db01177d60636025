-- A policy of your own, in Lua: luajit examples/policy.lua
-- It sees the nodes in shared memory and answers an index, or nil for none.
-- This one keeps the model on this machine busy with at most two requests,
-- and sends what is more to the node with the fewest in flight.
local drover, testing = require "drover", require "drover.testing"

local function two_here(nodes, request)
  local best
  for i = 1, nodes.count do
    if request.may(i) then          -- up, takes the model, has room
      local node = nodes[i]
      if node.weight > 1 and node.inflight < 2 then
        return i
      end
      if not best or node.inflight < nodes[best].inflight then
        best = i
      end
    end
  end
  return best
end

local server = testing.server{ testing.reply "an answer" }   -- a stand-in
local router = assert(drover.new{
  policy = two_here,
  nodes = { { id = "here", weight = 2,
              url = "local:" .. require("drover.bundled").path() },
            { id = "there", url = server.url } },
})
local requests = {}
for i = 1, 16 do
  requests[i] = { model = "lambkin", max_tokens = 24, messages = {
    { role = "user", content = "Add " .. i .. " and 3." } } }
end
local _, failed = router:batch(requests, { max_concurrent = 8 })
for id, node in pairs(router:stats().nodes) do
  print(id, node.requests .. " requests")
end
server:stop()
os.exit(failed == 0)
