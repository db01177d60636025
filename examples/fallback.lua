-- A node that is down, and one that takes over: luajit examples/fallback.lua
-- The policy `fallback` asks the nodes in their order. The first is DROVER_URL,
-- or an address where nobody listens; the second is the bundled model.
local drover = require "drover"

local url, key = os.getenv "DROVER_URL", os.getenv "DROVER_KEY"
local router = assert(drover.new{
  policy = "fallback",
  retry = { attempts = 3 },
  nodes = {
    { id = "first", url = url or "http://127.0.0.1:9/v1",
      key = key and { env = "DROVER_KEY" } or false,
      models = { lambkin = os.getenv "DROVER_MODEL" or "lambkin" } },
    { id = "bundled", url = "local:" .. require("drover.bundled").path() },
  },
})

local reply, err = router:chat{
  model = "lambkin",
  messages = { { role = "user", content = "How do you say blue in Spanish?" } },
}
if not reply then
  error(tostring(err), 0)
end
print(reply.choices[1].message.content)
for i, attempt in ipairs(reply.drover.attempts) do
  print("attempt " .. i, attempt.node, attempt.kind)
end
