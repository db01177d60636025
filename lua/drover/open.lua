-- Opens a router's zone and brings its configuration into force. In nginx's
-- master that is only: make or attach the zone, take a number for the
-- configuration; a worker's first call applies nodes and limits, once for
-- all workers, and starts the tick.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local err = require "drover.err"
local fleets = require "drover.fleet"
local limits = require "drover.limits"
local loops = require "drover.loop"
local node = require "drover.node"
local policies = require "drover.policy"
local random = require "drover.random"
local tokens = require "drover.tokens"
local view = require "drover.policy.view"

local _M = {}

local KEYS_EVERY = 20           -- ticks between two looks at key files

local unnamed = 0
local ticking                   -- routers of this Lua state, weak


-- ---- the tick ----

local function refresh_policy(router)
  if not router.chosen.file then
    return
  end
  local policy, why = policies.refresh(router.chosen)
  if policy then
    _M.use_policy(router, policy)
  elseif why then
    router.policy_error = why
    C.drover_count(router.handle, C.DROVER_POLICY_SWAP_ERROR)
  end
end


-- What every process does 4 times a second for each of its routers.
function _M.tick(router, now)
  C.drover_tick(router.handle, now)
  router.fleet:report(router.handle, now)
  refresh_policy(router)
  router.ticks = router.ticks + 1
  if router.ticks % KEYS_EVERY == 0 then
    router.fleet:refresh_keys(router.handle, now)
  end
end


local function start_tick(router)
  if not ticking then
    ticking = setmetatable({}, { __mode = "k" })
    loops.get().on_tick(function(now)
      for one in pairs(ticking) do
        _M.tick(one, now)
      end
    end)
  end
  ticking[router] = true
end


-- ---- opening ----

-- What C is told of a configuration.
local function settings(conf)
  local c = ffi.new("drover_router_config")
  c.name, c.shared = conf.name, conf.shared and 1 or 0
  c.create, c.concurrent = 1, conf.limits.concurrent
  c.queue_max, c.retry_ratio = conf.queue.size, conf.retry.budget
  c.waits = (conf.limits.wait > 0 or conf.queue.hold > 0) and 1 or 0
  return c
end


local function open_handle(conf, policy)
  local c, e = settings(conf), ffi.new("drover_err")
  local out = ffi.new("drover_router *[1]")
  c.policy = policy
  local code = C.drover_router_open(out, c, e)
  if code ~= 0 then
    return nil, err.from_c(code, e, { phase = "config" })
  end
  return out[0]
end


-- Why rates cannot be shared with other hosts here, or nil.
local function cannot_share(conf)
  local store = loops.get().store
  if not store then
    return "works inside nginx only, where a timer can renew the shares"
  elseif not conf.name then
    return "wants a name for the router, the same on all hosts"
  end
  return store().check(conf.limits.redis)
end


-- Why these nodes or limits cannot work here, or nil.
local function forbidden(conf)
  local workers = loops.get().workers()
  for i, row in ipairs(conf.rows) do
    if row.engine_path and workers > 1 then
      return "nodes[" .. i .. "].url: a local: node needs worker_processes 1"
             .. " for now (there are " .. workers .. ")"
    end
  end
  local why = conf.limits.redis and cannot_share(conf)
  return why and "limits.redis: " .. why
end


-- Before anything was heard of Redis a host keeps to its fair share.
local function share_rates(handle, redis)
  local leased = ffi.new("double[1]")
  C.drover_share_base(handle, leased)
  if leased[0] == 0 then
    C.drover_share_set(handle, 0, 1 / redis.hosts, 0)
  end
end


-- The private table of a router, its zone open and its models mapped. nil
-- and an error, or nil, nil and a sentence where the caller is wrong.
function _M.new(conf)
  local why = forbidden(conf)
  local policy
  if not why then
    policy, why = policies.new(conf.policy)
    why = why and "policy: " .. why
  end
  if why then
    return nil, nil, why
  end
  local fleet, e = fleets.new(conf.rows)
  if not fleet then
    return nil, e
  end
  if not conf.name then
    unnamed = unnamed + 1
    conf.name = "unnamed-" .. unnamed
  end
  local default = C.drover_policy(policies.DEFAULT)
  local handle
  handle, e = open_handle(conf, policy.number or default)
  if not handle then
    return nil, e
  end
  local router = {
    name = conf.name, conf = conf, fleet = fleet, timeout = conf.timeout,
    plain = { timeout = conf.timeout },      -- a request's without options
    retry = conf.retry, chosen = policy, default = default, ticks = 0,
    active = {}, policies = setmetatable({}, { __mode = "kv" }),
    wait = conf.limits.wait, hold = conf.queue.hold,
    lengths = tokens.lengths(), prepared = false, closed = false,
  }
  router.limits, router.metered = limits.compile(conf.limits)
  for _, row in ipairs(conf.rows) do
    router.metered = router.metered or limits.row_metered(row)
  end
  local weak = setmetatable({ router }, { __mode = "v" })
  router.handle = ffi.gc(handle, function(h)
    if weak[1] then                     -- at exit: others may come after us
      weak[1].closed = true
    end
    C.drover_router_close(h)
  end)
  router.generation = C.drover_router_generation(handle)
  if conf.limits.redis then
    share_rates(handle, conf.limits.redis)
  end
  if loops.get().phase() ~= "init" then
    local ok
    ok, e = _M.prepare(router)
    if not ok then
      _M.close(router)
      return nil, e
    end
  end
  return router
end


-- Bring the configuration into force in this process. true, or nil, err.
function _M.prepare(router)
  local handle, conf = router.handle, router.conf
  local now = C.drover_clock()
  if C.drover_router_apply_begin(handle, router.generation) == 1 then
    local ok, e = fleets.apply(handle, router.generation, conf.rows)
    if not ok then
      return nil, e
    end
    C.drover_router_apply_end(handle, router.generation, settings(conf), now)
  end
  router.fleet:locate(handle)
  router.random = random.new(tonumber(C.drover_entropy() % 4294967296ULL))
  router.view = view.nodes(C.drover_nodes(handle), C.drover_node_count(handle))
  router.policy_request, router.policy_state = view.request(handle)
  router.prepared = true
  start_tick(router)
  if conf.limits.redis then
    loops.get().store().start(router, _M.is_shared(router))
  end
  return true
end


function _M.is_shared(router)
  return C.drover_router_private(router.handle) == 0
end


function _M.use_policy(router, policy)
  router.chosen = policy
  router.policy_error = nil
  C.drover_router_policy(router.handle, policy.number or router.default)
end


-- Add rows at run time. true, or nil and an error.
function _M.add(router, rows)
  local e = ffi.new("drover_err")
  for _, row in ipairs(rows) do
    if row.engine_path and loops.get().workers() > 1 then
      return nil, err.new("bad_request",
                          "a local: node needs worker_processes 1 for now")
    end
    local ok, failed = router.fleet:take(row)
    if not ok then
      return nil, failed
    end
    router.metered = router.metered or limits.row_metered(row)
    local code = node.add(router.handle, row, 0, e)
    if code < 0 then
      router.fleet:forget(row.id)
      return nil, err.from_c(code, e, { node = row.id, phase = "config" })
    end
  end
  router.fleet:locate(router.handle)
  return true
end


function _M.close(router)
  router.closed = true
  if ticking then
    ticking[router] = nil
  end
  C.drover_router_close(ffi.gc(router.handle, nil))
  router.handle = nil
end


return _M
