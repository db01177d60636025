-- Limits, and attempts under them, for specs of claims: picks with limits of
-- their scopes, and a router whose one node has limits of its own.
local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local _M = {}

local err = router.err

_M.BOOKED = 4294967295              -- as it was booked
_M.SCOPES = { [0] = "router", "tenant", "model", "node", "key" }
_M.SCOPE = { router = 0, tenant = 1, model = 2, node = 3, key = 4 }


-- Structs that picks point to, for as long as the specs run.
local keep = {}

_M.kept = keep


local function limit(fields)
  local l = ffi.new("drover_limit", fields)
  keep[#keep + 1] = l
  return l
end


-- opts: limits = { tenant = {…}, … }, key, model, prompt, tokens (to come),
-- now, paid, only.
function _M.pick(opts)
  local p = router.pick()
  for scope, fields in pairs(opts.limits or {}) do
    p.limits[_M.SCOPE[scope]] = limit(fields)
  end
  p.key, p.model = opts.key or 7, opts.model or 0
  p.prompt_tokens, p.max_tokens = opts.prompt or 0, opts.tokens or 0
  p.paid, p.only = opts.paid or 0, opts.only or 0
  return p
end


function _M.claim(r, p, now)
  return C.drover_pick_node(r, p, now or 100, 0.5, err)
end


function _M.done(r, p, fields, now)
  local o = router.outcome(fields)
  return C.drover_ticket_done(r, p, o, now or 100)
end


-- One attempt, sent and settled; 0, or the code and the pick that was refused.
function _M.turn(r, opts, now, fields)
  local p = _M.pick(opts)
  local rc = _M.claim(r, p, now)
  if rc ~= 0 then
    return rc, p
  end
  C.drover_ticket_sent(r, p)
  assert(_M.done(r, p, fields or { tokens = _M.BOOKED }, now) == 0)
  return 0, p
end


function _M.count_turns(r, opts, now, fields)
  for i = 0, 999 do
    local rc, p = _M.turn(r, opts, now, fields)
    if rc ~= 0 then
      return i, rc, p
    end
  end
  return 1000
end


-- A router whose one node has limits: node, key (fields of drover_limit).
function _M.with_node(node, key, opts)
  local r = assert(router.open(opts))
  local n, alive = router.node{ id = "n1", capacity = 50 }
  n.limit_node, n.limit_key = ffi.new("drover_limit", node or {}),
                              ffi.new("drover_limit", key or {})
  n.price_input, n.price_output = 2, 10             -- dollars a million
  assert(C.drover_node_add(r, n, 1, err) == 1)
  assert(alive)
  return r
end


-- A router where `fields` limit one scope, and how to ask under it.
function _M.under(scope, fields)
  if scope == "node" then
    return _M.with_node(fields), {}
  elseif scope == "key" then
    return _M.with_node(nil, fields), {}
  end
  return _M.with_node(), { limits = { [scope] = fields } }
end


function _M.merged(a, b)
  local out = {}
  for _, from in ipairs{ a, b or {} } do
    for k, v in pairs(from) do
      out[k] = v
    end
  end
  return out
end


function _M.inflight(r)
  return C.drover_inflight(r, 0)
end


return _M
