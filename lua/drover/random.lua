-- Numbers for decisions, uniform in [0, 1), from a seed: xorshift32.
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"

local bxor, lshift, rshift, tobit = bit.bxor, bit.lshift, bit.rshift, bit.tobit

local _M = {}


function _M.new(seed)
  local x = tobit(seed)
  if x == 0 then
    x = 2463534242
  end
  return function()
    x = bxor(x, lshift(x, 13))
    x = bxor(x, rshift(x, 17))
    x = bxor(x, lshift(x, 5))
    return (x % 4294967296) / 4294967296
  end
end


return _M
