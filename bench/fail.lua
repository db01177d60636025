-- What a node that refuses connections costs a request: one router whose first
-- node refuses and whose second answers, beside one with the second alone, in
-- turns, one request at a time. The dead node is mended before each request,
-- so that each pays in full.
--
--   luajit bench/fail.lua [requests]
--
-- SPDX-License-Identifier: MIT
local C = require "drover.core"
local drover = require "drover"
local nginx = require "spec.support.nginx"

local _M = {}

_M.MOST_MS = 5                        -- at p99, over the control

local REQUEST = { model = "m", messages = { { role = "user",
                                              content = "hello" } } }


local function routers(url)
  local live = { id = "live", url = url, tier = 2 }
  return assert(drover.new { nodes = { live }, policy = "fallback" }),
         assert(drover.new { policy = "fallback", nodes = { live,
           { id = "dead", url = "http://127.0.0.1:1/v1", tier = 1 } } })
end


local function timed(router)
  local at = nginx.now()
  local reply, e = router:chat(REQUEST)
  return (nginx.now() - at) * 1000, reply, e
end


local function at_share(list, share)
  return list[math.ceil(share * #list)]
end


-- { control, refused: lists of milliseconds, sorted; sends: to the dead node;
-- lost: requests without an answer }.
function _M.measure(url, count)
  local control, failing = routers(url)
  local out = { control = {}, refused = {}, sends = 0, lost = 0 }
  for i = -20, count do               -- the first ones open connections
    local plain, ok = timed(control)
    C.drover_node_clear(failing.handle, "dead", C.drover_clock())
    local paid, reply = timed(failing)
    if i > 0 then
      out.control[i], out.refused[i] = plain, paid
      out.lost = out.lost + (ok and 0 or 1) + (reply and 0 or 1)
      out.sends = out.sends + (reply and #reply.drover.attempts - 1 or 0)
    end
  end
  control:close()
  failing:close()
  table.sort(out.control)
  table.sort(out.refused)
  out.more_ms = at_share(out.refused, 0.99) - at_share(out.control, 0.99)
  return out
end


function _M.main(count)
  local upstream = nginx.upstream()
  local m = _M.measure(upstream.url .. "/v1", count)
  upstream:stop()
  for _, name in ipairs { "control", "refused" } do
    print(string.format("case=%s n=%d p50_ms=%.3f p99_ms=%.3f", name, count,
                        at_share(m[name], 0.5), at_share(m[name], 0.99)))
  end
  print(string.format("refused connections %d, lost %d, at p99 %.3f ms more",
                      m.sends, m.lost, m.more_ms))
  return m.more_ms <= _M.MOST_MS and m.lost == 0 and m.sends == count
end


if arg and arg[0] and arg[0]:find("bench/fail%.lua$") then
  os.exit(_M.main(tonumber(arg[1]) or 2000) and 0 or 1)
end

return _M
