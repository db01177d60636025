-- The limiter, slowly: the words of src/limit/{gcra,spend,hold,budget}.h and
-- of drover_pick_claim() as tables and loops. A name is a table with its two
-- arrival times, its dollars by hour and day, its requests in flight.
local ffi = require "ffi"

local _M = {}
local mt = {}
mt.__index = mt

local ceil, floor, max = math.ceil, math.floor, math.max
local ns_t = ffi.typeof("int64_t")
local MINUTE = ns_t(60000000000LL)
local STANDS = 2 ^ 32 - 1


-- rows: { { capacity, group, node = L, key = L, input, output } …}: prices a
-- million tokens. `concurrent`: of the router's configuration.
function _M.new(rows, concurrent)
  local self = setmetatable({ rows = rows, concurrent = concurrent, names = {},
                              inflight = 0, open = {} }, mt)
  for _, row in ipairs(rows) do
    row.inflight = 0
  end
  return self
end


function mt:name(key)
  if not self.names[key] then
    self.names[key] = { requests = ns_t(0), tokens = ns_t(0), slots = 0,
                        day = {}, month = {} }
  end
  return self.names[key]
end


-- ---- rates ----

local function later(a, b)
  return a > b and a or b
end


-- What n units cost, rounded up.
local function cost(per_min, n)
  return (ns_t(n) * MINUTE + per_min - 1) / per_min
end


local function burst_of(per_min, burst)
  return burst > 0 and burst or max(1, floor(per_min / 60))
end


-- Nanoseconds until n pass.
local function rate_wait(at, per_min, burst, n, now)
  local units = burst_of(per_min, burst)
  local deep = cost(per_min, units) + math.min(units - 1, 1000)
  local wait = later(at, now) + cost(per_min, n) - deep - now
  return wait > 0 and wait or ns_t(0)
end


-- ---- dollars: in millionths, by period ----

local PERIODS = { day = { length = 3600, before = 24 },
                  month = { length = 86400, before = 30 } }


local function spent_wait(name, ring, limit, micro, now)
  local p = PERIODS[ring]
  local at, sum = floor(now / p.length), 0
  local from = max(0, at - p.before)
  for i = from, at + 1 do
    sum = sum + (name[ring][i] or 0)
  end
  if sum + micro <= limit then
    return 0
  end
  for i = from, at + 1 do
    sum = sum - (name[ring][i] or 0)
    if sum + micro <= limit then
      return (i + p.before + 1) * p.length - now
    end
  end
  return (p.before + 1) * p.length
end


local function spend(name, ring, micro, when)
  local at = floor(when / PERIODS[ring].length)
  name[ring][at] = max(0, (name[ring][at] or 0) + micro)
end


local function micro_up(dollars)
  return max(0, ceil(dollars * 1e6))
end


-- ---- one attempt ----

-- The names of an attempt on a row, in order, with their limits.
local function names_of(self, ask, row)
  local list = {}
  local function add(scope, key, limit)
    if limit then
      list[#list + 1] = { scope = scope, limit = limit, key = scope .. key,
                          name = self:name(scope .. key) }
    end
  end
  add("router", "", ask.limits.router)
  add("tenant", ask.tenant, ask.limits.tenant)
  add("model", ask.model, ask.limits.model)
  list.global = #list
  add("node", row.group, row.node)
  add("key", row.id, row.key)
  return list
end


-- All limits of one name that refuse: calls no(kind, seconds).
local function look(one, ask, micro, now_ns, now, no)
  local l, name = one.limit, one.name
  if l.concurrent > 0 and name.slots >= l.concurrent then
    no("concurrent", 0)
  end
  if l.rpm > 0 and one.pays then
    local wait = rate_wait(name.requests, l.rpm, l.burst_requests, 1, now_ns)
    if wait > 0 then no("requests", tonumber(wait) * 1e-9) end
  end
  if l.tpm > 0 then
    one.tokens = math.min(ask.prompt + ask.most,
                          burst_of(l.tpm, l.burst_tokens))
    local wait = rate_wait(name.tokens, l.tpm, l.burst_tokens, one.tokens,
                           now_ns)
    if wait > 0 then no("tokens", tonumber(wait) * 1e-9) end
  end
  for _, ring in ipairs { "day", "month" } do
    local dollars = l["dollars_per_" .. ring]
    if dollars > 0 then
      local wait = spent_wait(name, ring, max(1, floor(dollars * 1e6)), micro,
                              now)
      if wait > 0 then no(ring, wait) end
    end
  end
end


-- ask: { tenant, model, prompt, most, paid, limits = { router, tenant,
-- model } }. Returns an attempt, or nil and { scope, kind, wait }.
function mt:claim(ask, index, now)
  local row = self.rows[index]
  local now_ns = ns_t(now * 1e9)
  local micro = micro_up((row.input * ask.prompt + row.output * ask.most)
                         * 1e-6)
  local list, why = names_of(self, ask, row), nil
  for i, one in ipairs(list) do
    if i > list.global and why then
      break                           -- a global refusal answers at once
    end
    one.pays = i > list.global or not ask.paid
    look(one, ask, micro, now_ns, now, function(kind, wait)
      if not why or wait > why.wait then
        why = { scope = one.scope, kind = kind, wait = wait }
      end
    end)
  end
  if not why and row.inflight >= row.capacity then
    why = { scope = "node", kind = "concurrent", wait = 0 }
  elseif not why and self.inflight >= self.concurrent then
    why = { scope = "router", kind = "concurrent", wait = 0 }
  end
  if why then
    return nil, why
  end
  return self:book(list, row, ask, micro, now)
end


function mt:book(list, row, ask, micro, now)
  local now_ns = ns_t(now * 1e9)
  for _, one in ipairs(list) do
    local l, name = one.limit, one.name
    name.slots = name.slots + (l.concurrent > 0 and 1 or 0)
    if l.rpm > 0 and one.pays then
      name.requests = later(name.requests, now_ns) + cost(l.rpm, 1)
    end
    if l.tpm > 0 then
      name.tokens = later(name.tokens, now_ns) + cost(l.tpm, one.tokens)
    end
    for _, ring in ipairs { "day", "month" } do
      if l["dollars_per_" .. ring] > 0 then
        spend(name, ring, micro, now)
      end
    end
  end
  row.inflight, self.inflight = row.inflight + 1, self.inflight + 1
  local attempt = { list = list, row = row, micro = micro, at = now,
                    tokens = ask.prompt + ask.most, sent = false }
  self.open[attempt] = true
  return attempt
end


-- Not billed, booked as before, or what it came to.
local function settle_tokens(one, attempt, bill, now_ns)
  local l, name = one.limit, one.name
  local used = attempt.sent and bill.tokens or 0
  if used == STANDS or used == one.tokens then
    return
  end
  local more = cost(l.tpm, used) - cost(l.tpm, one.tokens)
  if more > 0 then
    name.tokens = later(name.tokens, now_ns) + more
  else
    name.tokens = name.tokens + more
  end
end


local function settle_dollars(one, attempt, bill, now)
  local stands = bill.tokens == STANDS or bill.dollars ~= bill.dollars
  if attempt.sent and stands then
    return
  end
  local micro = attempt.sent and micro_up(bill.dollars) or 0
  for _, ring in ipairs { "day", "month" } do
    if one.limit["dollars_per_" .. ring] > 0 then
      spend(one.name, ring, -attempt.micro, attempt.at)
      spend(one.name, ring, micro, now)
    end
  end
end


-- bill: { tokens, dollars } of the outcome.
function mt:settle(attempt, bill, now)
  local now_ns = ns_t(now * 1e9)
  for _, one in ipairs(attempt.list) do
    local l, name = one.limit, one.name
    settle_dollars(one, attempt, bill, now)
    if l.tpm > 0 then
      settle_tokens(one, attempt, bill, now_ns)
    end
    if l.rpm > 0 and one.pays and not attempt.sent then
      name.requests = name.requests - cost(l.rpm, 1)
    end
    name.slots = name.slots - (l.concurrent > 0 and 1 or 0)
  end
  attempt.row.inflight = attempt.row.inflight - 1
  self.inflight = self.inflight - 1
  self.open[attempt] = nil
end


-- Tokens booked by what is open.
function mt:reserved()
  local sum = 0
  for attempt in pairs(self.open) do
    sum = sum + attempt.tokens
  end
  return sum
end


return _M
