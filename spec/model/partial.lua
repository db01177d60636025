-- One of three nodes is dead: how many of many requests are answered? On the
-- library that users get, with real servers.
--
--   luajit spec/model/partial.lua refused|close|status-503 [requests]
local drover = require "drover"
local nginx = require "spec.support.nginx"

local IN_FLIGHT = 32
local how, count = arg[1], tonumber(arg[2] or 20000)
local upstream = nginx.upstream()
local dead = how == "refused" and "http://127.0.0.1:1/v1"
             or upstream.url .. "/" .. how .. "/v1"
local router = assert(drover.new {
  nodes = {
    { id = "a", url = upstream.url .. "/a/v1" }, { id = "dead", url = dead },
    { id = "b", url = upstream.url .. "/b/v1" },
  },
})
local answered, started, kinds = 0, 0, {}


local function work()
  while started < count do
    started = started + 1
    local reply, e = router:chat { model = "m", messages = {
      { role = "user", content = "say " .. started } } }
    answered = answered + (reply and 1 or 0)
    if e then
      kinds[#kinds + 1] = e.kind
    end
  end
end


local tasks = {}
for i = 1, IN_FLIGHT do
  tasks[i] = drover.go(work)
end
drover.wait(unpack(tasks))
local stats = router:nodes()[2]
router:close()
upstream:stop()
print(string.format("answered %d of %d, %d on the dead node %s", answered,
                    count, stats.requests, table.concat(kinds, " ", 1,
                                                        math.min(9, #kinds))))
