-- Runs the specs named on the command line, or all under spec/, in this
-- process: so LD_PRELOAD of a sanitizer covers them (busted's own command
-- starts a second interpreter). What a spec starts runs without it, on the
-- library that users get; DROVER_PRELOAD and DROVER_TEST_LIB name the others.
local ffi = require "ffi"

ffi.cdef[[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
]]

local preload, library = os.getenv("LD_PRELOAD"), os.getenv("DROVER_LIB")
if preload and library then
  ffi.C.unsetenv("LD_PRELOAD")
  ffi.C.setenv("DROVER_PRELOAD", preload, 1)
  ffi.C.setenv("DROVER_TEST_LIB", library, 1)
  ffi.C.setenv("DROVER_LIB", "build/libdrover.so", 1)
  local getenv = os.getenv
  os.getenv = function(name)        -- luacheck: ignore 122
    return name == "DROVER_LIB" and library or getenv(name)
  end
end

require "busted.runner"{ standalone = false }
