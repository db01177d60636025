-- How hosts part a rate between them: each has a share of it, the shares of
-- a name sum to 1 at most, and Redis keeps the books. Here are the decisions,
-- over numbers; it reads no clock and opens no socket (resty/store.lua does).
--
-- A share has two parts, each leased from a pool that is never overdrawn:
--
--   base    a quarter of each rate, the same for all hosts and names (the
--           share of id 0): what a newcomer has, and a name that just came
--   extra   the rest, a pool for each name, parted by demand
--
-- Redis holds for each pool who has which part until when, and grants what is
-- wanted as far as the other hosts' unexpired parts leave it. An answer may
-- get lost, so a part that shrinks counts in full until its host has said that
-- it has less. A host counts its lease from before it asked, so it stops before
-- Redis gives the part to another. When the books are new (Redis came up
-- empty, or nobody was there for a lease) hosts may still use what they had:
-- for the first lease nobody gets more than it has.
--
-- Redis gone: leases run out, names keep the base, and two renewals later,
-- when all hosts' leases must be over, get the fair share, 1 / hosts.
--
-- SPDX-License-Identifier: MIT
local floor, huge, max, min = math.floor, math.huge, math.max, math.min

local _M = {}

local mt = {}
mt.__index = mt

local WHOLE = 65536             -- parts of a rate, as C counts them
local RENEWALS = 5              -- in a lease
local CHUNK = 200               -- names of one call: 5 ms of Redis, with 10 hosts
local NAMES_MAX = 1000          -- leased at once; the rest has the base
local QUIET = 120               -- seconds after its last request that a name
                                -- is leased; limits are by the minute
local DEMAND_MIN = 0.001        -- of such a name, requests a second
local KEEP = -1000              -- in place of a demand: the one in the books

-- KEYS: the base's pool, when the books began, then a pool a name. ARGV: host, lease (ms), hosts
-- that the asker knows of, its base, 1 when that is leased; then for each name
-- demand and extra. Answers hosts, the base, the extras. TIME, Redis's own
-- clock, is put in when the script is made.
local SCRIPT = [[
local WHOLE, BASE = 65536, 16384
local host, lease = ARGV[1], tonumber(ARGV[2])
local had, leased = tonumber(ARGV[4]), ARGV[5] == "1"
local time = TIME
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A pool is a flat list of host, part, end, demand. Returns what the others
-- hold of it, want, and how many they are; their entries; this host's demand.
-- Whose end has come is left out.
local function read(text)
  local list, kept = text and cjson.decode(text) or {}, {}
  local taken, wanted, n, own = 0, 0, 0, nil
  for i = 1, #list, 4 do
    if list[i + 2] <= now then
      -- forgotten
    elseif list[i] == host then
      own = list[i + 3]
    else
      taken, wanted = taken + list[i + 1], wanted + list[i + 3]
      for j = 0, 3 do
        kept[n + j + 1] = list[i + j]
      end
      n = n + 4
    end
  end
  return taken, wanted, n / 4, kept, own
end

local function write(key, kept, part, demand)
  local n = #kept
  kept[n + 1], kept[n + 2] = host, part
  kept[n + 3], kept[n + 4] = now + lease, demand
  redis.call("SET", key, cjson.encode(kept), "PX", 10 * lease)
end

local texts = redis.call("MGET", unpack(KEYS))
local born = tonumber(texts[2] or "")
local taken, _, count, kept, own = read(texts[1])
if not born or count == 0 and not own then
  born = now
end
redis.call("SET", KEYS[2], string.format("%d", born), "PX", 10 * lease)
local young = now < born + lease
local hosts = count + 1
local fair = young and math.max(hosts, tonumber(ARGV[3])) or hosts
local base = math.min(math.floor(BASE / fair), BASE - taken)
base = math.max(0, young and math.min(base, had) or base)
write(KEYS[1], kept, leased and math.max(base, had) or base, 0)

local pool, out = WHOLE - BASE, { hosts, base }
for i = 3, #KEYS do
  local demand, extra = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local others, wanted, n, list, before = read(texts[i])
  if demand < 0 then
    demand = before or 0
  end
  local part = demand > 0 and math.floor(pool * demand / (wanted + demand)) or 0
  if young then
    part = math.min(part > 0 and math.floor(pool / fair) or 0,
                    had + extra - base)
  elseif n > 0 and demand > 0 and math.abs(part - extra) * 50 < pool then
    part = extra
  end
  part = math.max(0, math.min(part, pool - others))
  if demand > 0 or extra > 0 then
    write(KEYS[i], list, math.max(part, extra), demand)
  elseif n == 0 then
    redis.call("DEL", KEYS[i])
  end
  out[i] = part
end
return out
]]


-- The script, on the clock that the Lua expression `time` reads in Redis: a
-- list of seconds and microseconds.
function _M.script(time)
  return (SCRIPT:gsub("%f[%w]TIME%f[%W]", function() return time end, 1))
end


-- A host's side of one router. `conf`: host (its id), prefix (of key names),
-- lease in seconds, hosts (as configured). `base` is the share of id 0 now,
-- `leased` until when the store lent it (0: never).
function _M.new(conf, base, leased, now)
  return setmetatable({
    conf = conf, hosts = conf.hosts, base = base,
    every = conf.lease / RENEWALS, shared = leased > now, leased = leased,
    -- Names may have been leased at any time up to now by who came before.
    over = leased > 0 and now + conf.lease or 0,
    round = 0, at = now,
  }, mt)
end


-- What hosts fall back to.
function mt:fair()
  return 1 / self.hosts
end


-- ---- demand ----

-- Requests a second, smoothed over some renewals. nil: not known yet, this
-- process has not seen the name before, nor begun with it.
local function demand_of(self, one, seconds)
  local was, before = one.was or 0, one.demand
  if one.round ~= self.round - 1 then     -- new to us, or away and back
    if self.round == 1 then
      return nil, true
    end
    was, before = 0, nil
  end
  local came = one.asked - was
  if came < 0 then                    -- evicted, and back
    came = one.asked
  end
  local rate = came / seconds
  return before and (before + rate) / 2 or rate, came > 0
end


-- At most NAMES_MAX of them, those with most demand.
local function busiest(names)
  if #names <= NAMES_MAX then
    return names
  end
  local demands, out = {}, {}
  for i, one in ipairs(names) do
    demands[i] = one.demand or huge
  end
  table.sort(demands)
  local least = demands[#demands - NAMES_MAX + 1]
  for _, above in ipairs{ true, false } do
    for _, one in ipairs(names) do
      local demand = one.demand or huge
      if #out < NAMES_MAX and (above and demand > least
                               or not above and demand == least) then
        out[#out + 1] = one
      end
    end
  end
  return out
end


-- The names worth a lease.
local function choose(self, names, now)
  local seconds = max(now - self.at, 1e-3)
  self.round, self.at = self.round + 1, now
  local wanted, n = {}, 0
  for i = 1, #names do
    local one = names[i]
    local demand, came = demand_of(self, one, seconds)
    one.was, one.demand, one.round = one.asked, demand, self.round
    if came then
      one.at = now
    end
    if one.at and now - one.at < QUIET then
      n = n + 1
      wanted[n] = one
    end
  end
  return busiest(wanted)
end


-- ---- asking ----

local function parts(share)
  return floor(share * WHOLE + 0.5)
end


local function put(ask, self, one)
  ask.keys[#ask.keys + 1] = self.conf.prefix .. one.id
  local demand = one.demand and max(one.demand, DEMAND_MIN) * 1000 or KEEP
  ask.args[#ask.args + 1] = floor(demand + 0.5)
  ask.args[#ask.args + 1] = max(0, parts(one.share) - parts(self.base))
  ask.names[#ask.names + 1] = one
end


-- One renewal: `names` is a list of { id, asked, share }, where `id` is the
-- text of a number, `asked` what came ever and `share` all that it has now. The
-- caller keeps these tables for the next renewal; the plan's fields in them are
-- was, demand, at, and round: of their last renewal. Returns a list of calls
-- { keys, args, names }, one at least.
function mt:asks(names, now)
  local conf, list = self.conf, {}
  local wanted = choose(self, names, now)
  for i = 1, max(1, #wanted), CHUNK do
    local ask = {
      keys = { conf.prefix .. "hosts", conf.prefix .. "born" }, names = {},
      args = { conf.host, floor(conf.lease * 1000), self.hosts,
               parts(self.base), self.leased > now and 1 or 0 },
    }
    for j = i, min(i + CHUNK - 1, #wanted) do
      put(ask, self, wanted[j])
    end
    list[#list + 1] = ask
  end
  return list
end


-- Redis's answer to one of them, sent at `sent`. Returns the base, a list of
-- { name, what it has on top }, and the end of both; or nil where it is no
-- answer.
function mt:granted(ask, reply, sent)
  if type(reply) ~= "table" or #reply ~= #ask.names + 2 then
    return nil
  end
  local extras = {}
  for i, name in ipairs(ask.names) do
    extras[i] = { name, reply[i + 2] / WHOLE }
  end
  self.hosts, self.base = reply[1], reply[2] / WHOLE
  self.shared, self.leased = true, sent + self.conf.lease
  self.over = self.leased
  return self.base, extras, self.leased
end


-- A renewal came to nothing. Returns the base from here on when this host is
-- to go on alone, or nil while leases may still run.
function mt:failed(now)
  if now < self.over + 2 * self.every then
    return nil
  end
  self.shared, self.leased = false, 0
  self.base = self:fair()
  return self.base
end


return _M
