-- Drives the retry budget beside its model: a few members send, all take from
-- one budget, on a clock that goes on and, between members, a little back.
local ffi = require "ffi"
local c = require "spec.support.c"
local model = require "spec.model.retry"
local steps = require "spec.model.steps"
local C = c.lib

c.cdef[[
struct limit_budget { uint64_t *words; uint32_t members; const uint32_t *top; };
size_t limit_budget_size(uint32_t members);
void limit_budget_sent(const struct limit_budget *b, uint32_t member,
                       double now);
int limit_budget_take(const struct limit_budget *b, uint32_t milli,
                      uint32_t reserve, double now);
]]

local MEMBERS, ROUND = 5, 20000

local _M = {}


local function begin(run)
  local s = run.steps
  local size = tonumber(C.limit_budget_size(MEMBERS))
  run.words = ffi.new("uint64_t[?]", size / 8)
  run.top = ffi.new("uint32_t[1]", MEMBERS)
  run.budget = ffi.new("struct limit_budget", run.words, MEMBERS, run.top)
  run.model = model.new(s:choose { 200, 0, 1000, 333 }, s:choose { 0, 1, 10 })
  run.now = s:choose { 0, 3, 1000, 2 ^ 31 }
end


-- `count` steps of that seed; raises where model and code part.
function _M.run(count, seed)
  local run = { steps = steps.new("retry", seed) }
  local s = run.steps
  for i = 1, count do
    if i % ROUND == 1 then
      begin(run)
    end
    if s:one_in(3) then
      run.now = run.now + s:choose { 0.01, 0.125, 0.5, 1, 4, 12 }
    end
    local now = s:one_in(8) and math.max(0, run.now - 1) or run.now
    if s:one_in(2) then
      s:step("sent", now)
      C.limit_budget_sent(run.budget, s:below(MEMBERS), now)
      run.model:sent(now)
    else
      s:step("take", now)
      s:same("taken", run.model:take(now),
             C.limit_budget_take(run.budget, run.model.milli,
                                 run.model.reserve, now) == 1)
    end
  end
  return s
end


return _M
