-- Runs the specs named on the command line, or all under spec/, in this
-- process: so LD_PRELOAD of a sanitizer covers them (busted's own command
-- starts a second interpreter). What a spec starts runs without it.
local ffi = require "ffi"

ffi.cdef[[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
]]

local preload = os.getenv("LD_PRELOAD")
if preload then
  ffi.C.unsetenv("LD_PRELOAD")
  ffi.C.setenv("DROVER_PRELOAD", preload, 1)    -- for who starts a sanitized child
end

require "busted.runner"{ standalone = false }
