-- Renews this host's shares of the rates that many hosts have together: asks
-- Redis off the requests' path, from a timer, and tells the zone, where all
-- workers see it. What to ask and what to make of the answers is in share.lua.
--
-- Of an nginx's workers number 0 does it; nginx gives a dead worker's number
-- to its successor, so nobody can hold the office and be gone. While an old
-- one leaves and a new one begins both may renew: it is one host's entry.
--
-- Redis's texts go into the log but for those about AUTH, which may repeat
-- what they were sent.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local bit = require "bit"
local C = require "drover.core"
local resolve = require "drover.resty.resolve"
local share = require "drover.share"

local tohex = bit.tohex

local _M = {}

local TIMEOUT_MAX = 1                 -- seconds of one step with Redis
local CLIENTS = { "resty.redis", "nginx.redis" }
local IDLE_MS, POOL = 60000, 2
local TIDY = 100                      -- renewals from one tidying to the next

local script = share.script('redis.call("TIME")')
local seen = ffi.new("drover_share")


-- The Redis client that is there, or nil and what is missing.
local function client()
  for _, name in ipairs(CLIENTS) do
    local ok, module = pcall(require, name)
    if ok then
      return module
    end
  end
  return nil, "needs resty.redis or nginx.redis (Debian: lua-nginx-redis)"
end


-- While nginx reads its configuration: look the address up. Returns nil, or
-- why rates cannot be shared here.
function _M.check(conf)
  local _, why = client()
  conf.address = not why and resolve(conf.host) or nil
  return why
end


-- ---- who we are ----

local function first_line(path)
  local file = io.open(path)
  local line = file and file:read("*l") or ""
  if file then
    file:close()
  end
  return line
end


local function hash(text)
  return tohex(C.drover_hash(text, #text))
end


-- One zone, one host: of a shared zone the master is what lasts over reloads
-- and dead workers; another machine, container or start is another host.
local function host_id(shared)
  local pid = shared and require("ngx.process").get_master_pid()
              or ngx.worker.pid()
  local began = first_line("/proc/" .. pid .. "/stat"):match("%) (.*)") or ""
  began = began:match("^" .. ("%S+ "):rep(19) .. "(%d+)") or ""
  return hash(table.concat({
    first_line("/proc/sys/kernel/random/boot_id"),
    first_line("/proc/sys/kernel/hostname"), pid, began,
  }, "|"))
end


-- ---- Redis ----

-- The first word of what Redis says: WRONGPASS, ERR, NOAUTH.
local function word(text)
  return tostring(text):match("^%u+") or "failed"
end


-- Log in and choose the database. true, or nil and why not.
local function greet(redis, conf)
  if conf.password then
    local ok, why
    if conf.user then
      ok, why = redis:auth(conf.user, conf.password)
    else
      ok, why = redis:auth(conf.password)
    end
    if not ok then
      return nil, "AUTH: " .. (ok == nil and why or word(why))
    end
  end
  if conf.db ~= 0 then
    local ok, why = redis:select(conf.db)
    if not ok then
      return nil, "SELECT " .. conf.db .. ": " .. tostring(why)
    end
  end
  return true
end


-- A connection that is logged in; or nil, why.
local function connect(self)
  local conf, redis = self.conf, self.client:new()
  redis:set_timeout(1000 * math.min(TIMEOUT_MAX, self.plan.every))
  local ok, why = redis:connect(conf.address, conf.port, { pool = self.pool })
  if not ok then
    return nil, why
  end
  if redis:get_reused_times() == 0 then
    ok, why = greet(redis, conf)
  end
  if not ok then
    redis:close()
    return nil, why
  end
  return redis
end


local function call(redis, ask)
  local words = { script, #ask.keys }
  for _, list in ipairs{ ask.keys, ask.args } do
    for i = 1, #list do
      words[#words + 1] = list[i]
    end
  end
  return redis:eval(unpack(words))
end


-- ---- renewing ----

-- The names in use, as the plan wants them: the same table for a name each
-- time, found by as much of its number as Lua can hash.
local function names_of(self, handle)
  local known, list, n = self.known, {}, 0
  local place = C.drover_share_next(handle, 0, seen)
  while place ~= 0 do
    local key = tonumber(seen.id)
    local one = known[key]
    if not one or one.number ~= seen.id then
      one = { id = tohex(seen.id), number = seen.id }
      known[key] = one
    end
    one.asked, one.share = seen.asked, seen.share
    n = n + 1
    list[n] = one
    place = C.drover_share_next(handle, place, seen)
  end
  return list
end


-- Forget names that were in use once.
local function tidy(self)
  local round = self.plan.round
  if round % TIDY == 0 then
    for key, one in pairs(self.known) do
      if one.round ~= round then
        self.known[key] = nil
      end
    end
  end
end


local function take(handle, base, extras, ends)
  C.drover_share_set(handle, 0, base, ends)
  for _, one in ipairs(extras) do
    C.drover_share_set(handle, one[1].number, one[2], ends)
  end
end


-- All calls of one renewal. true, or nil and why not.
local function renew(self)
  local redis, why = connect(self)
  if not redis then
    return nil, why
  end
  local router, plan = self.router, self.plan
  local names = names_of(self, router.handle)
  for _, ask in ipairs(plan:asks(names, C.drover_clock())) do
    local sent = C.drover_clock()
    local reply, wrong = call(redis, ask)
    if router.closed then
      redis:close()
      return true
    end
    local base, extras, ends = plan:granted(ask, reply, sent)
    if not base then
      redis:close()
      return nil, tostring(wrong)
    end
    take(router.handle, base, extras, ends)
  end
  redis:set_keepalive(IDLE_MS, POOL)
  tidy(self)
  return true
end


local function say(self, why)
  if why and not self.down then
    ngx.log(ngx.ERR, "drover: router ", self.router.name, ": limits.redis: ",
            why, "; without it each host goes on with its fair share, 1/",
            self.plan.hosts)
  elseif not why and self.down then
    ngx.log(ngx.WARN, "drover: router ", self.router.name, ": limits.redis: ",
            "is back, rates are shared again")
  end
  self.down = why ~= nil
end


local function turn(premature, self)
  local router, now = self.router, C.drover_clock()
  if premature or router.closed or ngx.worker.exiting() or now < self.busy then
    return
  end
  self.busy = now + self.conf.lease     -- a turn that raised ends, too
  local ok, why = renew(self)
  self.busy = 0
  if router.closed then
    return
  end
  say(self, not ok and (why or "no answer") or nil)
  if not ok then
    C.drover_count(router.handle, C.DROVER_STORE_ERROR)
    local base = self.plan:failed(C.drover_clock())
    if base then
      C.drover_share_set(router.handle, 0, base, 0)
    end
  end
end


-- Begin to renew the shares of a router that is ready for work. In the worker
-- that does it for its host; in the others nothing happens.
function _M.start(router, shared)
  if shared and ngx.worker.id() ~= 0 then
    return
  end
  local conf = router.conf.limits.redis
  local prefix = conf.prefix .. ":" .. hash(router.name) .. ":"
  local leased = ffi.new("double[1]")
  local base = C.drover_share_base(router.handle, leased)
  local self = {
    router = router, conf = conf, client = client(), known = {}, busy = 0,
    down = false,
    pool = prefix .. conf.host .. ":" .. conf.port .. ":" .. conf.db,
    plan = share.new({
      host = host_id(shared), prefix = prefix, lease = conf.lease,
      hosts = conf.hosts,
    }, base, leased[0], C.drover_clock()),
  }
  assert(ngx.timer.at(0, turn, self))
  assert(ngx.timer.every(self.plan.every, turn, self))
end


return _M
