-- What limits cost: a decision whose limits are taken and settled, beside the
-- same decision without limits and one `ngx.shared.DICT:incr`, in the same run:
-- for one hot name and 10,000 of them, one limit and three, in one nginx worker
-- and in two at once. Median CPU time of interleaved rounds.
--
--   luajit bench/limit.lua
--
-- SPDX-License-Identifier: MIT
local workers_of = require "bench.workers"

local DICTS = "lua_shared_dict bench_1 1m; lua_shared_dict bench_10000 8m;"


local function measure(workers)
  local list, ns = workers_of.measure("bench.limit.case", DICTS, workers), {}
  for _, one in ipairs(list) do
    ns[one.name] = one.ns
  end
  for _, one in ipairs(list) do
    local kind, size = one.name:match("(%w+)%-(%d+)")
    local base, none = ns["incr-" .. size], ns["none-" .. size]
    local line = ("case=limit-%s processes=%d ns=%.1f"):format(one.name,
                                                              workers, one.ns)
    if kind ~= "incr" and kind ~= "none" then
      line = line .. (" limits=%.1f ratio=%.2f"):format(one.ns - none,
                                                      (one.ns - none) / base)
    end
    print(line)
  end
end


print("# limit, " .. workers_of.machine())
print([[
# incr: an ngx.shared dict, a short key for each name in turn; none: decide,
# take, send and settle without limits; rpm: with requests a minute of the
# tenant; three: its requests, tokens and what it has in flight; scopes:
# requests of router, tenant and model. limits: what they add to `none`, ratio:
# to incr; target 0.90 for rpm, 1.80 for three]])
measure(1)
measure(2)
