-- Drives drover_pick_claim() and drover_ticket_done() beside the model of the
-- limiter: random limits of router, tenants, models, nodes and keys; attempts
-- that settle late, for more or less than was booked, or were never sent.
local ffi = require "ffi"
local c = require "spec.support.c"
local model = require "spec.model.limit"
local router = require "spec.support.router"
local steps = require "spec.model.steps"
local C = c.lib

local SCOPES = { [0] = "router", "tenant", "model", "node", "key" }
local KINDS = { [0] = "none", "concurrent", "requests", "tokens", "day",
                "month", "upstream", "table" }
local EQUOTA, ERATE, EOVER, EAGAIN = -3, -4, -5, -24
local ROUND = 12000                   -- steps of one router
local HELD = 14

local _M = {}


-- A limit: each kind is there or not; small, so that it is met.
local function random_limit(s)
  local l = ffi.new("drover_limit")
  if s:one_in(3) then l.concurrent = s:choose { 1, 2, 4, 9 } end
  if s:one_in(2) then l.rpm = s:choose { 1, 7, 60, 600, 6001 } end
  if s:one_in(2) then l.tpm = s:choose { 100, 6007, 60000, 1000000 } end
  if s:one_in(3) then l.burst_requests = s:choose { 1, 3, 50 } end
  if s:one_in(3) then l.burst_tokens = s:choose { 1, 999, 5000 } end
  if s:one_in(4) then l.dollars_per_day = s:choose { 0.0001, 0.01, 0.75 } end
  if s:one_in(5) then l.dollars_per_month = s:choose { 0.001, 0.05, 2.5 } end
  return l
end


local function add_rows(run)
  local s, rows, groups = run.steps, {}, {}
  for i = 1, 4 do
    local group = i <= 2 and 77 or 77 + i      -- the first two are one node's
    local n, keep = router.node { id = "n" .. i, capacity = s:choose { 2, 6,
      50 }, price_input = s:choose { 0, 0.5, 3 }, price_output = s:choose { 1,
      2.5, 15 } }
    groups[group] = groups[group] or s:one_in(2) and random_limit(s)
                    or ffi.new("drover_limit")
    n.group, n.limit_node = group, groups[group]
    if s:one_in(2) then n.limit_key = random_limit(s) end
    assert(C.drover_node_add(run.router, n, run.now, router.err) == i, keep)
    rows[i] = { id = i, capacity = n.capacity, group = group,
                input = n.price_input, output = n.price_output,
                node = ffi.new("drover_limit", n.limit_node),
                key = ffi.new("drover_limit", n.limit_key) }
  end
  return rows
end


local function begin(run)
  local s = run.steps
  local concurrent = s:choose { 3, 8, 100 }
  if run.router then
    router.close(run.router)
  end
  run.now, run.held = 1000, {}
  run.router = router.open { concurrent = concurrent, nodes_max = 8,
                             members_max = 8, tickets_max = 64 }
  run.model = model.new(add_rows(run), concurrent)
  run.limits = { router = s:one_in(2) and random_limit(s) or nil }
  run.tenants, run.models = {}, {}
  for i = 1, 3 do
    run.tenants[i] = s:one_in(2) and random_limit(s) or false
    run.models[i] = s:one_in(2) and random_limit(s) or false
  end
end


local function new_attempt(run)
  local s = run.steps
  local ask = {
    tenant = s:below(3) + 1, model = s:below(3) + 1, paid = s:one_in(4),
    prompt = s:choose { 0, 1, 90, 4000 }, most = s:choose { 0, 16, 700 },
  }
  ask.limits = { router = run.limits.router,
                 tenant = run.tenants[ask.tenant] or nil,
                 model = run.models[ask.model] or nil }
  local p = router.pick()
  p.key, p.model, p.again = ask.tenant, ask.model, 1
  p.prompt_tokens, p.max_tokens = ask.prompt, ask.most
  p.paid = ask.paid and 1 or 0
  p.limits[0], p.limits[1], p.limits[2] = ask.limits.router, ask.limits.tenant,
                                          ask.limits.model
  return ask, p
end


local function code_of(why)
  if why.scope == "node" or why.scope == "key" then
    return EAGAIN
  elseif why.kind == "day" or why.kind == "month" then
    return EQUOTA
  elseif why.kind == "concurrent" and why.scope ~= "tenant" then
    return EOVER
  end
  return ERATE
end


local acts = {}


function acts.claim(run)
  local s = run.steps
  local ask, p = new_attempt(run)
  local row = s:below(4) + 1
  s:note(row, ask.tenant, ask.model, ask.prompt, ask.most, tostring(ask.paid))
  C.drover_pick_begin(run.router, p, run.now, 0.5)
  local code = C.drover_pick_claim(run.router, p, row, router.err)
  local own, why = run.model:claim(ask, row, run.now)
  s:note(own and "taken" or why.scope .. "_" .. why.kind)
  s:same("code", own and 0 or code_of(why), code)
  if own then
    run.held[#run.held + 1] = { own = own, pick = p, ask = ask }
    return
  end
  s:same("scope", why.scope, SCOPES[p.refused_scope])
  s:same("kind", why.kind, KINDS[p.refused_kind])
  s:same("wait", why.wait, p.wait)
end


function acts.settle(run)
  local s = run.steps
  if #run.held == 0 then
    return acts.claim(run)
  end
  local one = table.remove(run.held, s:below(#run.held) + 1)
  local booked = one.ask.prompt + one.ask.most
  local bill = {
    tokens = s:choose { 0, 2 ^ 32 - 1, booked, math.floor(booked * s:unit()),
                        booked * 3 + 5 },
    dollars = s:choose { 0, 0 / 0, 0.000013, 0.2 * s:unit() },
  }
  if not s:one_in(5) then
    one.own.sent = true
    s:same("sent", 0, C.drover_ticket_sent(run.router, one.pick))
  end
  s:note(tostring(one.own.sent), bill.tokens, bill.dollars)
  local o = router.outcome { code = one.own.sent and 0 or -17 }
  o.tokens, o.dollars = bill.tokens, bill.dollars
  s:same("done", 0, C.drover_ticket_done(run.router, one.pick, o, run.now))
  s:same("done again", -18,
         C.drover_ticket_done(run.router, one.pick, o, run.now))
  run.model:settle(one.own, bill, run.now)
end


local OFTEN = { "claim", "claim", "claim", "settle", "settle" }
local GAPS = { 0, 0, 1 / 1024, 1 / 64, 0.25, 1, 3, 17, 61 }
local LONG = { 3599, 3600, 7 * 3600, 86400, 5 * 86400 }


local function compare(run)
  local s, m = run.steps, run.model
  s:same("inflight", m.inflight, C.drover_inflight(run.router, 0))
  for i, row in ipairs(m.rows) do
    s:same("of a row", row.inflight, C.drover_inflight(run.router, i))
  end
  if run.steps.count % 16 == 0 then
    C.drover_router_totals(run.router, run.totals, run.now)
    s:same("reserved", m:reserved(), run.totals.reserved_tokens)
  end
end


-- `count` steps of that seed; raises where model and code part.
function _M.run(count, seed)
  local run = { steps = steps.new("limit", seed),
                totals = ffi.new("drover_totals") }
  local s = run.steps
  for i = 1, count do
    if i % ROUND == 1 then
      begin(run)
    end
    local name = #run.held >= HELD and "settle" or s:choose(OFTEN)
    run.now = run.now + (s:one_in(3) and s:choose(GAPS) or 0)
              + (s:one_in(100) and s:choose(LONG) or 0)
    s:step(name, run.now)
    acts[name](run)
    compare(run)
  end
  router.close(run.router)
  return s
end


return _M
