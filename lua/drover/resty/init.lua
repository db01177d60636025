-- What an nginx configuration calls. Beside it only resty/loop.lua and
-- resty/gateway.lua know nginx.
--
--   init_worker_by_lua_block { require("drover.resty").init_worker() }
--
-- SPDX-License-Identifier: MIT
local drover = require "drover"
local loop = require "drover.resty.loop"

local _M = {}


-- Bring the routers that init_by_lua made into force in this worker: nodes,
-- weights and limits, tick and pump. Without it the first call does that.
function _M.init_worker()
  loop.start()
  for name, router in pairs(drover.made()) do
    local stats, err = router:stats()
    if not stats then
      ngx.log(ngx.ERR, "drover: router ", name, ": ", tostring(err))
    end
  end
end


-- The folder for the wake-up socket (by default TMPDIR or /tmp), which the
-- workers' user must be able to write. In init_by_lua.
_M.folder = loop.folder


return _M
