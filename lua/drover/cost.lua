-- Prices a finished call. Knows no provider and no HTTP. Prices are dollars
-- a million tokens; an unknown price is nil, never zero.
--
-- SPDX-License-Identifier: MIT
local max = math.max

local _M = {}


-- Dollars of `usage` ({ prompt_tokens, completion_tokens, cached_tokens })
-- at a node's price, or nil where either is unknown.
function _M.dollars(price, usage)
  if not price or not usage then
    return nil
  end
  local cached = usage.cached_tokens or 0
  local fresh = max(0, (usage.prompt_tokens or 0) - cached)
  return (fresh * price.input + cached * (price.cached or price.input)
          + (usage.completion_tokens or 0) * price.output) / 1e6
end


return _M
