-- The C library as specs see it: all symbols of the test build. Knows no
-- room; a spec declares the internal prototypes that it calls by `cdef`.
local ffi = require "ffi"

local _M = {}

-- busted loads modules anew for each file, LuaJIT keeps declarations: what
-- has been declared is remembered in the registry.
local registry = debug.getregistry()
registry["drover.spec.cdef"] = registry["drover.spec.cdef"] or {}
local declared = registry["drover.spec.cdef"]


-- Declare C text; the same text a second time is no error.
function _M.cdef(text)
  if declared[text] then
    return
  end
  ffi.cdef(text)
  declared[text] = true
end


if not pcall(ffi.typeof, "drover_err") then      -- core.lua may have been first
  ffi.cdef(require("drover.cdef").text)
end

_M.path = os.getenv("DROVER_LIB") or "build/libdrover_test.so"
_M.lib = ffi.load(_M.path)


return _M
