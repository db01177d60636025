-- Whether a failed attempt is followed by another, and where. Decides only:
-- waits for nothing, sends nothing, asks no budget.
--
-- The classes of failures and what follows from them: docs/FAULTS.md.
--
-- SPDX-License-Identifier: MIT
local backoff = require "drover.backoff"
local err = require "drover.err"

local max, min = math.max, math.min

local _M = {}

local SENDS_MAX = 20            -- whatever a function of the caller's says
local FLOOR = 0.05              -- seconds; of a node that says "0"

local verdicts = { retry = true, other_node = true, stop = true }

-- A key's trouble: never the same key again, another at once.
local elsewhere = { unauthorized = true, quota = true }

-- What may fail before the body has gone out.
local early = { unreachable = true, tls = true, timeout = true, reset = true }


-- The class of a failure: "unsent" (surely not worked on, the body never
-- went), "refused" (the node said that it did not begin), "ambiguous" (it may
-- have worked, and charge for it), "final" (no node would do better).
function _M.class(e)
  if elsewhere[e.kind] then
    return "refused"
  elseif not e.retryable then
    return "final"
  elseif e.maybe_billed then
    return "ambiguous"
  end
  return early[e.kind] and not e.status and "unsent" or "refused"
end


-- The caller's own function decides, over a copy, which it may spoil. Returns
-- a verdict and a wait, or "stop", nil and an error that takes the place of
-- the attempt's.
local function asked(decide, e, count, request)
  local ok, verdict, wait = pcall(decide, err.copy(e), count, request)
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
                                            .. "be seconds, 0 or more")
  end
  return verdict, wait
end


-- After attempt number `count` of a request failed with `e`: "stop",
-- "other_node" or "retry" (another node first, the same after a wait), and
-- seconds to wait where a function of the caller's said so.
-- `flight.ambiguous` remembers that a maybe-billed retry was made.
function _M.decide(retry, e, count, flight)
  if retry.decide then
    if count >= SENDS_MAX then
      return "stop"
    end
    return asked(retry.decide, e, count, flight.call.request)
  end
  local class = _M.class(e)
  if count >= retry.attempts or class == "final" then
    return "stop"
  end
  if class == "ambiguous" then
    if retry.ambiguous == "never" or flight.ambiguous then
      return "stop"
    end
    flight.ambiguous = true
  end
  return elsewhere[e.kind] and "other_node" or "retry"
end


-- Whether the deadline leaves room for another attempt: with `left` seconds
-- to go, after one that took `took` seconds to fail. What failed after most
-- of the deadline would fail again behind it.
function _M.in_time(retry, left, took)
  return left > 0 and (retry.decide ~= nil or left >= took)
end


-- Seconds before the same node is asked again, or nil when that is longer
-- than anybody waits. `cooling`: how long the table keeps it back, or 0.
-- Uniform from what a node asked for to the longest back-off, or a quarter
-- more than it asked for: else all that failed at once would come at once.
function _M.pause(retry, e, count, rnd, cooling)
  local most = backoff.wait(retry.min, retry.max, count, 1)
  local least = max(e.retry_after and FLOOR or 0, e.retry_after or 0, cooling)
  if least > backoff.RETRY_AFTER_MAX then
    return nil
  end
  return least + rnd * max(most - least, min(most, least / 4))
end


return _M
