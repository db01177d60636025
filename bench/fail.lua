-- What a node that refuses connections costs a request: one router whose first
-- node refuses and whose second answers, beside one with the second alone, in
-- turns, one request at a time. The dead node is mended before each request,
-- so that each pays in full. Of five rounds the one in the middle counts: who
-- else runs on the machine shows at p99, too.
--
--   luajit bench/fail.lua [requests]
--
-- SPDX-License-Identifier: MIT
local C = require "drover.core"
local drover = require "drover"
local nginx = require "spec.support.nginx"

local _M = {}

_M.MOST_MS = 5                        -- at p99, over the control

local ROUNDS = 5
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


local function round(control, failing, count, out)
  local plain, paid = {}, {}
  for i = 1, count do
    local ms, ok = timed(control)
    C.drover_node_clear(failing.handle, "dead", C.drover_clock())
    local more, reply = timed(failing)
    plain[i], paid[i] = ms, more
    out.lost = out.lost + (ok and 0 or 1) + (reply and 0 or 1)
    out.sends = out.sends + (reply and #reply.drover.attempts - 1 or 0)
  end
  table.sort(plain)
  table.sort(paid)
  return { control = plain, refused = paid,
           more_ms = at_share(paid, 0.99) - at_share(plain, 0.99) }
end


-- The middle round: { control, refused: lists of milliseconds, sorted;
-- more_ms: between their p99 }; and of all rounds sends (to the dead node) and
-- lost (requests without an answer).
function _M.measure(url, count)
  local control, failing = routers(url)
  local out, rounds = { sends = 0, lost = 0 }, {}
  round(control, failing, 20, { sends = 0, lost = 0 })  -- opens connections
  for i = 1, ROUNDS do
    rounds[i] = round(control, failing, math.floor(count / ROUNDS), out)
  end
  control:close()
  failing:close()
  table.sort(rounds, function(a, b) return a.more_ms < b.more_ms end)
  local middle = rounds[math.ceil(ROUNDS / 2)]
  middle.sends, middle.lost = out.sends, out.lost
  return middle
end


function _M.main(count)
  local upstream = nginx.upstream()
  local m = _M.measure(upstream.url .. "/v1", count)
  upstream:stop()
  for _, name in ipairs { "control", "refused" } do
    print(string.format("case=%s n=%d p50_ms=%.3f p99_ms=%.3f", name, #m[name],
                        at_share(m[name], 0.5), at_share(m[name], 0.99)))
  end
  print(string.format("refused connections %d, lost %d, at p99 %.3f ms more",
                      m.sends, m.lost, m.more_ms))
  return m.more_ms <= _M.MOST_MS and m.lost == 0 and m.sends == count
end


if arg and arg[0] and arg[0]:find("bench/fail%.lua$") then
  os.exit(_M.main(tonumber(arg[1]) or 5000) and 0 or 1)
end

return _M
