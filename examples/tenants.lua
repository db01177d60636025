-- Limits for each tenant, and a queue: luajit examples/tenants.lua
-- Three tenants ask 8 questions each, all at once. Each may have two at a time
-- and 600 a minute, but for "trial", whose limit is small; what is too early
-- waits at most 5 seconds, by turns.
local drover = require "drover"

local router = assert(drover.new{           -- no nodes named: the bundled model
  limits = {
    concurrent = 4, wait = 5,
    per = { tenant = {
      rpm = 600, concurrent = 2, burst = { requests = 4 },
      named = { trial = { rpm = 6, burst = { requests = 2 } } },
    } },
  },
  queue = { size = 100 },
})

local count = {}                            -- [tenant][outcome]
local function ask(tenant, i)
  local reply, err = router:chat({ model = "lambkin", max_tokens = 8, messages = {
    { role = "user", content = "Add " .. i .. " and 3." } } },
    { key = tenant, priority = "interactive" })
  local outcome = reply and "answered" or err.code or err.kind
  local own = count[tenant] or {}
  own[outcome] = (own[outcome] or 0) + 1
  count[tenant] = own
end

local tasks = {}
for i = 1, 8 do
  for _, tenant in ipairs{ "ann", "bob", "trial" } do
    tasks[#tasks + 1] = drover.go(ask, tenant, i)
  end
end
drover.wait(unpack(tasks))
for _, tenant in ipairs{ "ann", "bob", "trial" } do
  for outcome, n in pairs(count[tenant]) do
    print(tenant, outcome, n)
  end
end
