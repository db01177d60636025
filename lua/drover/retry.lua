-- Whether a failed attempt is followed by another, and where. Decides only:
-- waits for nothing, sends nothing.
--
-- Classes (docs/LUA-API.md): what surely was not worked on may go to another
-- node, or after a back-off to the same; what may have been worked on
-- (maybe_billed) at most once; a key's trouble only to another node; the
-- caller's mistakes nowhere.
--
-- SPDX-License-Identifier: MIT
local backoff = require "drover.backoff"
local err = require "drover.err"

local _M = {}

local verdicts = { retry = true, other_node = true, stop = true }
local elsewhere = { unauthorized = true, quota = true }


-- The caller's own function decides. Returns a verdict and a wait, or
-- "stop", nil and an error that takes the place of the attempt's.
local function asked(decide, e, count, request)
  local ok, verdict, wait = pcall(decide, e, count, request)
  if not ok then
    return "stop", nil, err.new("internal", "the retry function raised: "
                                            .. tostring(verdict))
  end
  if not verdicts[verdict] then
    return "stop", nil, err.new("internal", "the retry function must answer "
                                            .. "retry, other_node or stop")
  end
  if wait ~= nil and (type(wait) ~= "number" or wait ~= wait or wait < 0) then
    return "stop", nil, err.new("internal", "the retry function's wait must "
                                            .. "be a number of seconds")
  end
  return verdict, wait
end


-- After attempt number `count` of a request failed with `e`: "stop",
-- "other_node" or "retry" (another node first, the same after a wait), and
-- seconds to wait where a function of the caller's said so.
-- `flight.ambiguous` remembers that a maybe-billed retry was made.
function _M.decide(retry, e, count, flight)
  if retry.decide then
    if count >= 20 then
      return "stop"
    end
    return asked(retry.decide, e, count, flight.call.request)
  end
  if count >= retry.attempts then
    return "stop"
  end
  if not e.retryable and not elsewhere[e.kind] then
    return "stop"
  end
  if e.maybe_billed then
    if retry.ambiguous == "never" or flight.ambiguous then
      return "stop"
    end
    flight.ambiguous = true
  end
  return elsewhere[e.kind] and "other_node" or "retry"
end


-- Seconds before the same node is asked again, or nil when the server wants
-- a longer pause than anybody waits.
function _M.pause(retry, e, count, rnd)
  local wait = backoff.wait(retry.min, retry.max, count, rnd)
  local asked_for = e.retry_after
  if asked_for and asked_for > backoff.RETRY_AFTER_MAX then
    return nil
  end
  return math.max(wait, asked_for or 0)
end


return _M
