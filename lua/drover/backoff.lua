-- How long to wait before the same node is asked again: full jitter. Reads
-- no clock and draws no number of its own.
--
-- SPDX-License-Identifier: MIT
local min = math.min

local _M = {}

_M.RETRY_AFTER_MAX = 120        -- a server that asks for more is not waited for


-- Seconds before retry number `n` (1 is the first): uniform in
-- [0, min(cap, base * 2^n)), `rnd` uniform in [0, 1).
function _M.wait(base, cap, n, rnd)
  return rnd * min(cap, base * 2 ^ n)
end


return _M
