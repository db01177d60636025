-- Many questions at once, answers in order: luajit examples/batch.lua
-- Nodes as in hello.lua.
local drover = require "drover"

local url, key = os.getenv "DROVER_URL", os.getenv "DROVER_KEY"
local router = assert(drover.new{
  nodes = url and { { url = url,
                      key = key and { env = "DROVER_KEY" } or false } } or nil,
})

local countries = { "Norway", "Kenya", "Japan", "Peru", "Greece", "Canada" }
local requests = {}
for i, country in ipairs(countries) do
  requests[i] = {
    model = os.getenv "DROVER_MODEL" or "lambkin",
    max_tokens = 40,
    messages = { { role = "user",
                   content = "What is the capital of " .. country .. "?" } },
  }
end

local results, failed = router:batch(requests, {
  max_concurrent = 4,
  on_done = function(i) io.stderr:write("done: ", countries[i], "\n") end,
})
for i, result in ipairs(results) do
  if drover.is_err(result) then
    print(countries[i], "failed: " .. tostring(result))
  else
    print(countries[i], result.choices[1].message.content)
  end
end
os.exit(failed == 0)
