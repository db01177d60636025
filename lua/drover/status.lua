-- A router's figures, as tables.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local check = require "drover.check"
local err = require "drover.err"

local _M = {}

local NAN = 0 / 0

local states = {
  [tonumber(C.DROVER_UP)] = "up", [tonumber(C.DROVER_PROBING)] = "probing",
  [tonumber(C.DROVER_OUT)] = "out",
  [tonumber(C.DROVER_DRAINING)] = "draining",
  [tonumber(C.DROVER_REMOVED)] = "removed",
}

local whys = {
  [tonumber(C.DROVER_WHY_FAILURES)] = "failures",
  [tonumber(C.DROVER_WHY_SHARE)] = "share",
  [tonumber(C.DROVER_WHY_OUTLIER)] = "outlier",
  [tonumber(C.DROVER_WHY_PROBE)] = "probe",
  [tonumber(C.DROVER_WHY_RATE)] = "rate",
  [tonumber(C.DROVER_WHY_KEY)] = "key",
  [tonumber(C.DROVER_WHY_QUOTA)] = "quota",
  [tonumber(C.DROVER_WHY_SLOW_START)] = "slow_start",
}

local report_fields = {
  memory_gb = { "number", 0 }, load = { "number", 0, 100 },
  waiting = { "number", 0 }, kv_used = { "number", 0, 1 },
  running = { "number", 0 },
}


function _M.check_report(report)
  if type(report) ~= "table" then
    return "report: must be a table, is a " .. type(report)
  end
  return check.fields(report, report_fields, "report")
end


-- A drover_report of a checked table; what it does not say stays.
function _M.report(report)
  local c = ffi.new("drover_report")
  for name in pairs(report_fields) do
    c[name] = report[name] or NAN
  end
  return c
end


local function known(x)
  return x == x and x or nil
end


local function node_of(router, i, row, text, figures)
  C.drover_node_stat(router.handle, i, figures, C.drover_clock())
  local code = figures.last_code
  return {
    id = ffi.string(text.id), url = ffi.string(text.url),
    state = states[row.state], capacity = row.capacity,
    inflight = C.drover_inflight(router.handle, i),
    first_token_ms = known(row.first_token_ms),
    token_ms = known(row.token_ms), error_rate = known(row.error_rate),
    waiting = known(row.waiting), kv_used = known(row.kv_used),
    memory_gb = known(row.memory_gb), load = figures.load,
    weight = row.weight, health_score = known(figures.health_score),
    requests = figures.requests, failures = figures.failures,
    input_tokens = figures.input_tokens,
    output_tokens = figures.output_tokens,
    cached_tokens = figures.cached_tokens, cost = figures.dollars,
    out_for = figures.out_for, seen_ago = known(figures.seen_ago),
    fails = figures.fails, last_error = code ~= 0 and err.kind(code) or nil,
    why = whys[figures.why], success_share = known(figures.success_share),
  }
end


-- A list of the nodes with their state and figures.
function _M.nodes(router)
  local handle = router.handle
  local rows, list = C.drover_nodes(handle), {}
  local text = ffi.new("drover_node_text")
  local figures = ffi.new("drover_node_stats")
  for i = 1, C.drover_node_count(handle) do
    if C.drover_node_read(handle, i, text) == 0
       and rows[i].state ~= C.DROVER_REMOVED then
      list[#list + 1] = node_of(router, i, rows[i], text, figures)
    end
  end
  return list
end


-- Whether rates are shared with other hosts now; nil where they never are.
local function store_of(router)
  if not router.conf.limits.redis then
    return nil
  end
  local leased = ffi.new("double[1]")
  C.drover_share_base(router.handle, leased)
  return leased[0] > C.drover_clock() and "shared" or "alone"
end


function _M.stats(router)
  local totals = ffi.new("drover_totals")
  C.drover_router_totals(router.handle, totals, C.drover_clock())
  local nodes = {}
  for _, one in ipairs(_M.nodes(router)) do
    nodes[one.id] = one
  end
  return {
    name = router.name,
    total_nodes = totals.nodes, healthy_nodes = totals.healthy,
    total_requests = totals.requests, failed_requests = totals.failures,
    inflight = totals.inflight, members = totals.members,
    private = C.drover_router_private(router.handle) == 1,
    policy = router.chosen.name, policy_errors = totals.policy_errors,
    policy_error = router.policy_error,
    unqualified = totals.unqualified, panics = totals.panics,
    retries_denied = totals.retries_denied, waiting = totals.waiting,
    reserved_tokens = totals.reserved_tokens, limit_names = totals.names,
    store = store_of(router), nodes = nodes,
  }
end


-- The union of what the nodes say they take, sorted.
function _M.models(router)
  local seen, list = {}, {}
  for _, row in pairs(router.fleet.rows) do
    for name in pairs(row.models or {}) do
      if not seen[name] then
        seen[name] = true
        list[#list + 1] = name
      end
    end
  end
  table.sort(list)
  return list
end


return _M
