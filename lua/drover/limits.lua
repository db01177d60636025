-- The `limits` table: what may pass, in all and for each tenant, model, node
-- and key. Read and checked here, made into the structs that C takes, and
-- named again when one of them refuses.
--
--   limits = L + { wait, per = { tenant = L, key = L, model = L, node = L },
--                  redis }
--   L      = { rpm, tpm, concurrent, dollars_per_day, dollars_per_month,
--              burst = { requests, tokens }, named = { [name] = L } }
--
-- A named L (and nodes[i].limits) says only what differs; `false` lifts.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local check = require "drover.check"
local redis = require "drover.redis"

local _M = {}

local CONCURRENT = 100
local RATE_MAX, COUNT_MAX = 1e9, 1e6
local CENT, DOLLARS_MAX = 1e-6, 1e9
local NAMED_MAX = 65536
local DAY = 1440                -- minutes

local rate = { "number|false", 1, RATE_MAX, integer = true }
local dollars = { "number|false", CENT, DOLLARS_MAX }

local own_fields = {
  rpm = rate, tpm = rate,
  concurrent = { "number|false", 1, COUNT_MAX, integer = true },
  dollars_per_day = dollars, dollars_per_month = dollars,
  burst = { "table" },
}

local burst_fields = {
  requests = { "number", 1, RATE_MAX, integer = true },
  tokens = { "number", 1, RATE_MAX, integer = true },
}

local per_fields = {
  tenant = { "table" }, key = { "table" }, model = { "table" },
  node = { "table" },
}

local function with(fields, more)
  local all = {}
  for name, row in pairs(fields) do
    all[name] = row
  end
  for name, row in pairs(more) do
    all[name] = row
  end
  return all
end

local named_fields = with(own_fields, { named = { "table" } })
local all_fields = with(own_fields, {
  concurrent = { "number", 1, COUNT_MAX, integer = true },
  wait = { "number", 0, 86400 }, per = { "table" }, redis = { "table" },
})


-- ---- reading ----

-- The fields of one L; nil and what is wrong.
local function read_own(l, spec, where)
  local why = check.fields(l, spec, where)
  if not why and l.burst then
    why = check.fields(l.burst, burst_fields, where .. ".burst")
  end
  if why then
    return nil, why
  end
  local out = {}
  for name in pairs(own_fields) do
    out[name] = l[name]
  end
  out.burst = l.burst and { requests = l.burst.requests,
                            tokens = l.burst.tokens }
  return out
end


local bursts = { requests = "rpm", tokens = "tpm" }


-- A burst goes with a rate, and holds a day's worth at most.
local function check_bursts(l, where)
  for name, of in pairs(bursts) do
    local burst = l.burst and l.burst[name]
    local field = where .. ".burst." .. name
    if burst and not l[of] then
      return field .. ": goes with " .. of .. ", which is not set"
    elseif burst and burst > l[of] * DAY then
      return field .. ": must be at most " .. DAY .. " times " .. of
    end
  end
end


-- `base` with what `over` says otherwise; both may be nil.
local function merged(base, over)
  base, over = base or {}, over or {}
  local out = with(base, over)
  out.burst = out.burst and with(base.burst or {}, over.burst or {})
  for name, of in pairs(bursts) do
    if out.burst and not out[of] and not (over.burst and over.burst[name]) then
      out.burst[name] = nil         -- goes with the rate that was lifted
    end
  end
  return out
end


-- The L of a scope with its named ones, each complete.
local function read_scope(l, where)
  local out, why = read_own(l, named_fields, where)
  why = why or check_bursts(out, where)
  if why then
    return nil, why
  end
  local named, count = {}, 0
  for name, other in pairs(l.named or {}) do
    local at = where .. ".named[" .. tostring(name):sub(1, 64) .. "]"
    if type(name) ~= "string" or name == "" or type(other) ~= "table" then
      return nil, at .. ": must be a table by a name"
    end
    local one
    one, why = read_own(other, own_fields, at)
    one = one and merged(out, one)
    why = why or check_bursts(one, at)
    if why then
      return nil, why
    end
    named[name], count = one, count + 1
  end
  if count > NAMED_MAX then
    return nil, where .. ".named: at most " .. NAMED_MAX
  end
  return { own = out, named = named }
end


-- Check nodes[i].limits. A table of our own, or nil and what is wrong.
function _M.read_node(l, where)
  return read_own(l, own_fields, where)
end


local function read_per(per, where)
  local why = check.fields(per, per_fields, where)
  local out = {}
  for scope in pairs(per_fields) do
    if not why and per[scope] then
      out[scope], why = read_scope(per[scope], where .. "." .. scope)
    end
  end
  if why then
    return nil, why
  end
  return out
end


-- The limits with their defaults, or nil and what is wrong.
function _M.read(limits, where)
  limits = limits or {}
  local own, why = read_own(limits, all_fields, where)
  why = why or check_bursts(own, where)
  local per, store
  if not why then
    per, why = read_per(limits.per or {}, where .. ".per")
  end
  if not why and limits.redis then
    store, why = redis.read(limits.redis, where .. ".redis")
  end
  if why then
    return nil, why
  end
  return { own = own, per = per, redis = store, wait = limits.wait or 0,
           concurrent = own.concurrent or CONCURRENT }
end


-- ---- which limit is whose ----

local function of_money(l)
  return l and (l.dollars_per_day or l.dollars_per_month) and true or false
end


local function of_tokens(l)
  return l and l.tpm and true or of_money(l)
end


-- Whether `f` is true of any L of a scope.
local function any(scope, f)
  if not scope then
    return false
  end
  local found = f(scope.own)
  for _, l in pairs(scope.named) do
    found = found or f(l)
  end
  return found
end


local function any_at_all(limits, f)
  local per = limits.per
  return f(limits.own) or any(per.tenant, f) or any(per.model, f)
         or any(per.node, f) or any(per.key, f)
end


local function l_of(scope, name)
  if not scope then
    return nil
  end
  return scope.named[name] or scope.own
end


-- Give rows of nodes what limits say of them, and local ones a price of 0
-- under a limit of money. Returns nil, or which price is missing.
function _M.assign(limits, rows)
  local per = limits.per
  local all = of_money(limits.own) or any(per.tenant, of_money)
              or any(per.model, of_money)
  for _, row in ipairs(rows) do
    row.node_limits = merged(l_of(per.node, row.group), row.own_limits)
    row.key_limits = merged(l_of(per.key, row.id))
    row.shared_rates = limits.redis ~= nil
    local why = row.own_limits and check_bursts(row.node_limits,
                                                row.where .. ".limits")
    if why then
      return why
    end
    local money = all or of_money(row.node_limits) or of_money(row.key_limits)
    if money and not row.price and row.engine_path then
      row.price = { input = 0, output = 0 }
    elseif money and not row.price then
      return row.where .. ".price: is missing, and dollars are limited"
    end
  end
end


-- Names of nodes and keys that no row bears: a limit that would never hold. nil,
-- or the first of them. Nodes that are added later bring their own limits.
function _M.strangers(limits, rows)
  local known = { node = {}, key = {} }
  for _, row in ipairs(rows) do
    known.node[row.group], known.key[row.id] = true, true
  end
  for _, scope in ipairs { "node", "key" } do
    local names = {}
    for name in pairs(limits.per[scope] and limits.per[scope].named or {}) do
      names[#names + 1] = not known[scope][name] and name or nil
    end
    table.sort(names)
    if names[1] then
      return ("limits.per.%s.named: no %s is called %s"):format(scope, scope,
                                                               names[1])
    end
  end
end


-- ---- for C ----

-- Fill a drover_limit from a table. True when anything is limited.
function _M.fill(to, l, shared)
  local burst = l.burst or {}
  to.rpm, to.tpm = l.rpm or 0, l.tpm or 0
  to.concurrent = l.concurrent or 0
  to.burst_requests = burst.requests or 0
  to.burst_tokens = burst.tokens or 0
  to.dollars_per_day = l.dollars_per_day or 0
  to.dollars_per_month = l.dollars_per_month or 0
  to.flags = shared and 1 or 0
  return to.rpm > 0 or to.tpm > 0 or to.concurrent > 0
         or to.dollars_per_day > 0 or to.dollars_per_month > 0
end


local function struct(l, shared)
  local to = ffi.new("drover_limit")
  return _M.fill(to, l, shared) and to or nil
end


local function structs(scope, shared)
  if not scope then
    return nil
  end
  local own = struct(scope.own, shared)
  local out = { own = own, named = {} }
  local useful = own ~= nil
  for name, l in pairs(scope.named) do
    local one = struct(l, shared)
    out.named[name] = one or false
    useful = useful or one ~= nil
  end
  return useful and out or nil
end


-- What a router keeps: the structs that picks point to, nil where none is
-- needed; and whether tokens are worth counting exactly.
function _M.compile(limits)
  local shared = limits.redis ~= nil
  local total = {}
  for name, value in pairs(limits.own) do
    total[name] = value
  end
  total.concurrent = nil          -- the zone's own, for all nodes together
  local out = {
    router = struct(total, shared),
    tenant = structs(limits.per.tenant, shared),
    model = structs(limits.per.model, shared),
  }
  local any_set = out.router or out.tenant or out.model
  return any_set and out or nil, any_at_all(limits, of_tokens)
end


-- Does a row of a node have such a limit of its own?
function _M.row_metered(row)
  return of_tokens(row.node_limits) or of_tokens(row.key_limits)
end


local function pointer(scope, name)
  if not scope or not name then
    return nil
  end
  local one = scope.named[name]
  if one == nil then
    one = scope.own
  end
  return one or nil
end


-- Point a pick to the limits of its router, tenant and model. The router
-- keeps them alive.
function _M.point(router, p, call, opts)
  local own = router.limits
  if own then
    p.limits[0] = own.router
    p.limits[1] = pointer(own.tenant, opts.key)
    p.limits[2] = pointer(own.model, call.model)
  end
end


-- ---- refusals ----

local scopes = {
  [tonumber(C.DROVER_SCOPE_ROUTER)] = "router",
  [tonumber(C.DROVER_SCOPE_TENANT)] = "tenant",
  [tonumber(C.DROVER_SCOPE_MODEL)] = "model",
  [tonumber(C.DROVER_SCOPE_NODE)] = "node",
  [tonumber(C.DROVER_SCOPE_KEY)] = "key",
}

local kinds = {
  [tonumber(C.DROVER_LIMIT_CONCURRENT)] = "concurrent",
  [tonumber(C.DROVER_LIMIT_REQUESTS)] = "rpm",
  [tonumber(C.DROVER_LIMIT_TOKENS)] = "tpm",
  [tonumber(C.DROVER_LIMIT_DAY)] = "dollars_per_day",
  [tonumber(C.DROVER_LIMIT_MONTH)] = "dollars_per_month",
  [tonumber(C.DROVER_LIMIT_UPSTREAM)] = "upstream",
  [tonumber(C.DROVER_LIMIT_TABLE)] = "table",
}

local sentences = {
  concurrent = "as many requests as may be are in flight",
  rpm = "requests come faster than the rate and its burst allow",
  tpm = "tokens are used faster than the rate and its burst allow",
  dollars_per_day = "the dollars of 24 hours are used up",
  dollars_per_month = "the dollars of 30 days are used up",
  upstream = "the nodes' own limits are reached",
  table = "more names are busy than can be remembered",
}


-- What refused: the word of the metric, and a sentence that leads with the
-- field of the configuration. nil when it was no limit.
function _M.refusal(scope, kind)
  scope, kind = scopes[scope], kinds[kind]
  if not scope or not kind then
    return nil
  end
  local field = scope == "router" and "limits." or "limits.per." .. scope .. "."
  local word = scope .. "_" .. kind
  if kind == "concurrent" and scope == "router" then
    word = "router"
  elseif kind == "concurrent" and scope == "node" then
    return "node", "each node that could has as many requests in flight as"
                   .. " its capacity or limits.concurrent lets it"
  elseif kind == "upstream" then
    return "node_upstream", sentences.upstream
  elseif kind == "table" then
    return word, sentences.table
  end
  return word, field .. kind .. ": " .. sentences[kind]
end


return _M
