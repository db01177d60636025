-- One streamed answer, then a batch over all nodes, one of which is killed on
-- the way: luajit demo.lua PROMPTS PIDFILE-OF-THE-FIRST URL...
local drover = require "drover"
io.stdout:setvbuf "no"

local nodes, requests, rows = {}, {}, {}
for i = 3, #arg do
  nodes[i - 2] = { id = "worker-" .. i - 2, url = arg[i] }
end
if os.getenv "DROVER_DEMO_URL" then
  nodes[#nodes + 1] = { id = "api", url = os.getenv "DROVER_DEMO_URL",
    key = os.getenv "DROVER_DEMO_KEY" and { env = "DROVER_DEMO_KEY" } or false,
    models = { lambkin = os.getenv "DROVER_DEMO_MODEL" or "lambkin" } }
end
local router = assert(drover.new{ nodes = nodes })

local function request(prompt)
  return { model = "lambkin", max_tokens = 100,
           messages = { { role = "user", content = prompt } } }
end
for prompt in io.lines(arg[1]) do requests[#requests + 1] = request(prompt) end
print "> Tell me a story about a clever fox."
local stream = assert(router:stream(request "Tell me a story about a clever fox."))
for event in stream:events() do
  io.write(event.text or "")
end

local done, began, failovers, bar = 0, drover.now(), 0, os.getenv "DROVER_DEMO_BAR"
local results, failed = router:batch(requests, { stream = true,
  max_concurrent = 24, on_done = function()
    done = done + 1
    io.write((bar or 10 * done % #requests < 10) and ((bar or "\n") .. "[%-40s] %d/%d"):format(
      ("#"):rep(math.floor(40 * done / #requests)), done, #requests) or "")
    if done == math.floor(#requests / 3) then
      io.write("  worker-1 is killed with -9\n")
      os.execute("kill -9 -" .. io.open(arg[2]):read "*l")
    end
  end })
local seconds, stats = drover.now() - began, router:stats().nodes
for _, node in ipairs(nodes) do rows[node.id] = { left = 0, tokens = 0 } end
for _, reply in ipairs(results) do
  for i, attempt in ipairs(reply.drover and reply.drover.attempts or {}) do
    local row, last = rows[attempt.node], i == #reply.drover.attempts
    row.left, failovers = row.left + (last and 0 or 1), failovers + (last and 0 or 1)
    row[#row + 1] = last and reply.drover.first_token_seconds * 1000 or nil
    row.tokens = row.tokens + (last and reply.usage.completion_tokens or 0)
  end
end

print "\n\nnode      state    requests failures failovers  first token p50/p99  tokens/s"
for _, node in ipairs(router:nodes()) do
  local row, seen = rows[node.id], stats[node.id]
  table.sort(row)
  print(("%-10s%-8s %8d %8d %9d %8.0f / %.0f ms %11.0f"):format(node.id, node.state,
    seen.requests, seen.failures, row.left, row[math.ceil(#row * 0.5)] or 0,
    row[math.ceil(#row * 0.99)] or 0, row.tokens / seconds))
end
print(("\n%d of %d answered, %d failovers"):format(#results - failed, #requests, failovers))
os.exit(failed == 0 and failovers > 0)
