-- Many pieces of work at once, at most `limit` of them: what parallel and map
-- share. Takes the pieces in order; stops giving them out at the first
-- failure, and cancels what still runs, unless failures are wanted beside
-- the results.
-- SPDX-License-Identifier: MIT
local loop = require "drover.loop"


-- One lane of work: takes the next piece until none is left.
local function lane(group, inner, o)
  while group.next <= #group.keys and not group.failed do
    local i = group.next
    group.next = i + 1
    local y, why = o.work(i, inner)
    local key = group.keys[i]
    if y ~= nil then
      group.results[key] = y
    elseif o.partial then
      group.results[key] = o.as_error(why)
    elseif not group.failed then
      why = o.as_error(why)
      why.item = key
      group:fail(why)
    end
  end
end


-- The first failure: running calls of the group are cancelled.
local function fail(group, why)
  group.failed = why
  for cancel in pairs(group.running) do
    cancel()
  end
end


-- spread(run, keys, o) -> results by key | nil, err. o: work(i, inner) -> y |
-- nil, err; limit; partial; as_error. A raise in the work is raised here
-- once all lanes have ended.
return function(run, keys, o)
  local group = { keys = keys, next = 1, results = {}, running = {},
                  fail = fail, outer = run.group }
  local inner = run:with{ streams = false, group = group }
  local lanes, raised = {}, nil
  for i = 1, math.min(o.limit, #keys) do
    lanes[i] = loop.get().spawn(lane, group, inner, o)
  end
  for _, task in ipairs(lanes) do
    local ok, why = loop.get().join(task)
    if not ok and raised == nil then
      raised = { why }
      if not group.failed then
        group:fail(o.as_error("a step raised an error"))
      end
    end
  end
  if raised then
    error(raised[1], 0)
  end
  if group.failed then
    return nil, group.failed
  end
  return group.results
end
