-- What each request of the soak asks for: by its number alone, so that the
-- same run comes again. A fifth of them is ill, in the upstream's words
-- (bench/upstream_plan.h); half of those only the first time.
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"

local _M = {}

local TENANTS = 16

-- { steps, stream = only as a stream (true) or not (false), timeout, cancel,
--   node = asked for by name, every = its share is one in so many }
local FAULTS = {
  { "status-500" }, { "status-502" }, { "status-503" }, { "status-504" },
  { "status-529" }, { "status-408" }, { "status-400" }, { "status-404" },
  { "status-413" }, { "close" }, { "reset" }, { "resethead" },
  { "short", stream = false }, { "badjson", stream = false },
  { "empty", stream = false }, { "error200" }, { "html" }, { "junk" },
  { "badchunk", stream = false }, { "redirect" }, { "context" }, { "policy" },
  { "limited" }, { "interim" }, { "delay-20" },
  { "cut-1", stream = true }, { "error-1", stream = true },
  { "nothing", stream = true }, { "roleonly", stream = true },
  { "errorfirst", stream = true }, { "badevent", stream = true },
  { "nodone", stream = true },
  { "stall-1", stream = true, timeout = { idle = 0.1 } },
  { "hang", stream = true, timeout = { first_token = 0.1 } },
  { "hang", stream = false, timeout = { total = 0.15 } },
  { "chunks-40.gap-1", stream = true, cancel = true },
  { "hang", stream = false, cancel = true },
  { "", node = "dead57" },
  { "key", every = 20011 }, { "quota", every = 30011 },
}

local common = {}
for _, fault in ipairs(FAULTS) do
  if not fault.every then
    common[#common + 1] = fault
  end
end


-- 32 bits that look random: a mixer of the number.
local function mix(x)
  x = bit.tobit(x * 2654435)
  x = bit.bxor(x, bit.rshift(x, 15))
  x = bit.tobit(bit.band(x, 0xffff) * 0x85eb + bit.rshift(x, 16) * 0x27d5)
  x = bit.bxor(x, bit.rshift(x, 13))
  return bit.band(x, 0x7fffffff)
end


local function fault_of(number)
  for _, fault in ipairs(FAULTS) do
    if fault.every and number % fault.every == 0 then
      return fault
    end
  end
  return number % 5 == 0 and common[mix(number) % #common + 1] or nil
end


function _M.kinds()
  return #FAULTS
end


-- What a request is, for a sentence.
function _M.name(number)
  local fault = fault_of(number)
  return fault and fault[1] or "plain"
end


-- { request, opts, stream, fault, cancel }
function _M.plan(number)
  local fault, seed = fault_of(number), mix(number + 7919)
  local stream = seed % 2 == 0
  local user = "canary-" .. number
  if fault then
    if fault.stream ~= nil then
      stream = fault.stream
    end
    local once = not fault.cancel and seed % 4 < 2
    user = user .. (once and ".once." or ".") .. fault[1]
  end
  return {
    fault = fault, stream = stream, cancel = fault and fault.cancel,
    opts = {
      key = number % 331 == 0 and "poor" or "t" .. number % TENANTS,
      timeout = fault and fault.timeout, node = fault and fault.node,
      priority = seed % 3 == 0 and "batch" or nil,
    },
    request = {
      model = "m", user = user, max_tokens = 16 + seed % 16, messages = {
        { role = "user", content = "say " .. number } },
      stream_options = stream and { include_usage = true } or nil,
    },
  }
end


return _M
