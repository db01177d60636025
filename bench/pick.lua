-- What a decision costs: pick, take and give back through FFI, by policy, at
-- 16 and 256 nodes, in one nginx worker and in two at once, beside one
-- `ngx.shared.DICT:incr` in the same run. Median CPU time of interleaved
-- rounds; `ratio` is to the incr of that run.
--
--   luajit bench/pick.lua
--
-- SPDX-License-Identifier: MIT
local workers_of = require "bench.workers"

local DICTS = "lua_shared_dict bench_16 1m; lua_shared_dict bench_256 1m;"


local function measure(workers)
  local list, ns = workers_of.measure("bench.pick.case", DICTS, workers), {}
  for _, one in ipairs(list) do
    ns[one.name] = one.ns
  end
  for _, one in ipairs(list) do
    local base = ns["incr-" .. one.name:match("%d+")]
    print(("case=pick-%s processes=%d ns=%.1f ratio=%.2f"):format(one.name,
      workers, one.ns, one.ns / base))
  end
end


print("# pick, " .. workers_of.machine())
print("# incr: an ngx.shared dict with a short key for each node, in turn; "
      .. "-sent: marked as sent,\n# counted, averages fed; target 1.00 for "
      .. "round_robin, two_choices, peak_ewma, else 4.00 at 16")
measure(1)
measure(2)
