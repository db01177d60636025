-- The part of secrets_spec.lua that is a plain program: much of the fault
-- matrix, then a look at its errors, metrics and shared memory. Prints nothing
-- when all is well.
local ffi = require "ffi"
local drover = require "drover"
local child = require "spec.support.child"
local plan = require "spec.support.secrets"
local fault_server = require "spec.support.fault_server"


local function assert_clean(text, name)
  for word, canary in pairs(plan.CANARIES) do
    if text:find(canary, 1, true) then
      error(name .. ": the " .. word)
    end
  end
end


-- All that an error object says, also deep inside.
local function spell(x, out, seen)
  out, seen = out or {}, seen or {}
  if type(x) == "table" and not seen[x] then
    seen[x] = true
    for key, value in pairs(x) do
      spell(key, out, seen)
      spell(value, out, seen)
    end
  elseif type(x) ~= "table" then
    out[#out + 1] = tostring(x)
  end
  return out
end


local function shared_memory()
  local parts = {}
  for line in io.lines("/proc/self/maps") do
    local from, to = line:match("^(%x+)%-(%x+) rw%-s ")
    if from then
      from, to = tonumber(from, 16), tonumber(to, 16)
      parts[#parts + 1] = ffi.string(ffi.cast("char *", from), to - from)
    end
  end
  return table.concat(parts)
end


local function one(router, i, stream)
  local request = {
    model = "m" .. i, user = plan.CANARIES.prompt,
    messages = { { role = "user", content = plan.CANARIES.prompt } },
  }
  local opts = { key = plan.CANARIES.tenant,
                 headers = { ["x-mine"] = plan.CANARIES.header } }
  local reply, e
  if stream then
    reply, e = router:stream(request, opts)
    if reply then
      reply, e = reply:join()
    end
  else
    reply, e = router:chat(request, opts)
  end
  if e then
    assert_clean(table.concat(spell(e), "\n"), plan.FAULTS[i])
    assert_clean(tostring(e), plan.FAULTS[i])
  end
  return reply ~= nil
end


child.main{
  matrix = function()
    local upstream = fault_server.start{ "--quiet" }
    local router = assert(drover.new{
      name = "secrets", nodes = plan.nodes(upstream.url, os.getenv("DECOY")),
      retry = { min = 0, max = 0.01 },
      timeout = { total = 2, first_token = 0.2, idle = 0.2 },
      limits = { rpm = 60000, per = { tenant = { rpm = 60000 } } },
    })
    local well = 0
    for i = 1, #plan.FAULTS do
      well = well + (one(router, i, false) and 1 or 0)
      well = well + (one(router, i, true) and 1 or 0)
    end
    assert(well > 4 and upstream:totals().bodies > #plan.FAULTS)
    assert_clean(router:metrics(), "metrics")
    assert_clean(table.concat(spell(router:nodes()), "\n"), "nodes()")
    assert_clean(table.concat(spell(router:stats()), "\n"), "stats()")
    local memory = shared_memory()
    assert(#memory > 100000 and memory:find("n1", 1, true))
    assert_clean(memory, "shared memory")
    for _, request in ipairs(upstream:log().requests) do
      assert(not request.head:find("netrc", 1, true), "netrc was read")
      assert(request.head:find(plan.CANARIES.key, 1, true))
    end
    router:close()
    upstream:stop()
  end,
}
