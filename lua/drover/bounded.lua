-- Runs Lua that others wrote (policies on trial, configuration files) with a
-- bound on its instructions, so that an endless loop ends.
--
-- SPDX-License-Identifier: MIT
local _M = {}

local INSTRUCTIONS = 1000000


-- A hook that raises at each instruction from its first call on, until we
-- are back in call(): a loop may catch what it raises.
local function stop()
  if debug.getinfo(2, "f").func == _M.call then
    debug.sethook()
    return
  end
  debug.sethook(stop, "", 1)
  error("more than " .. INSTRUCTIONS .. " instructions", 0)
end


-- pcall(f, ...), of one result, with the JIT off (it ignores hooks).
function _M.call(f, ...)
  local was_on = jit.status()
  local hook, mask, every = debug.gethook()
  jit.off()
  jit.flush()
  debug.sethook(stop, "", INSTRUCTIONS)
  local ok, result = pcall(f, ...)
  debug.sethook(hook, mask, every)
  if was_on then
    jit.on()
  end
  return ok, result
end


return _M
