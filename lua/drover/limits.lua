-- The `limits` table: what may pass. Built so far: `concurrent`, requests in
-- flight over all nodes; the other limits are refused by name.
--
-- SPDX-License-Identifier: MIT
local check = require "drover.check"

local _M = {}

local CONCURRENT = 100

local fields = {
  concurrent = { "number", 1, 1000000, integer = true },
  rpm = { later = true }, tpm = { later = true }, wait = { later = true },
  dollars_per_day = { later = true }, dollars_per_month = { later = true },
  burst = { later = true }, per = { later = true }, named = { later = true },
}


-- The limits with their defaults, or nil and what is wrong.
function _M.read(limits, where)
  limits = limits or {}
  local why = check.fields(limits, fields, where)
  if why then
    return nil, why
  end
  return { concurrent = limits.concurrent or CONCURRENT }
end


return _M
