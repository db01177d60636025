-- The breaker of one row, slowly: the words of src/node/breaker.h as plain
-- tables and ifs. Times are seconds; a deadline is kept in 1/64 s, rounded
-- up. Every outcome is remembered with its period, and counted anew.
local _M = {}
local mt = {}
mt.__index = mt

local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max


function _M.new(admin, slow_from)
  local self = setmetatable({ epoch = 0 }, mt)
  self:reset(admin, slow_from)
  return self
end


local function fresh(self)
  self.state, self.why, self.marked = "closed", "none", false
  self.fails, self.k, self.cools, self.deadline = 0, 0, 0, 0
  self.seen = {}
end


function mt:reset(admin, slow_from)
  fresh(self)
  self.epoch = self.epoch + 1
  self.admin = admin
  if slow_from > 0 then
    self.marked = true
    self:until_at(slow_from)
  end
end


-- Mended by the operator.
function mt:clear()
  fresh(self)
  self.epoch = self.epoch + 1
end


function mt:until_at(seconds)
  self.deadline = ceil(seconds * 64) / 64
end


-- ---- the share of successes ----

function mt:count(ok, now)
  self.seen[#self.seen + 1] = { floor(now / 3), ok }
end


function mt:share(now)
  local period, ok, all, kept = floor(now / 3), 0, 0, {}
  for _, one in ipairs(self.seen) do
    if one[1] > period - 10 then
      kept[#kept + 1] = one
      all = all + 1
      ok = ok + (one[2] and 1 or 0)
    end
  end
  self.seen = kept
  return ok, all
end


-- ---- questions ----

local function is_key(why)
  return why == "key" or why == "quota"
end


-- As long as the operator keeps it back, nothing is due.
function mt:cooled(now)
  return self.state == "cool" and self:due(now)
end


function mt:due(now)
  return self.admin == "active" and self.state ~= "closed"
         and now >= self.deadline
end


function mt:shown()
  if self.admin ~= "active" then
    return self.admin
  end
  return self.state == "closed" and "up"
         or self.state == "probe" and "probing" or "out"
end


function mt:out_for(now)
  if self.state == "closed" or self.state == "probe" then
    return 0
  end
  return max(0, self.deadline - now)
end


function mt:said_why()
  if self.state == "closed" then
    return self.marked and "slow_start" or "none"
  end
  return self.state == "probe" and "probe"
         or self.state == "cool" and "rate" or self.why
end


-- Behind a claim's fence: not removed, drained, opened or cooling since.
function mt:holds(permit)
  return self.admin == "active" and permit.epoch == self.epoch
         and (permit.pass ~= "usual" or self.state == "closed")
end


-- The part of the weight: from 0.1 in 30 s to 1.
function mt:part(now)
  if self.state ~= "closed" or not self.marked then
    return 1
  end
  local since = max(0, now - self.deadline)
  return since >= 30 and 1 or max(0.1, since / 30)
end


-- ---- entering ----

-- A permit { epoch, pass }, or nil.
function mt:enter(now)
  if self.admin ~= "active" then
    return nil
  end
  if self:cooled(now) then
    self.state = "closed"
  end
  if self.state == "closed" then
    return { epoch = self.epoch, pass = "usual" }
  end
  if not self:due(now) then
    return nil
  end
  self.state = "probe"
  self.epoch = self.epoch + 1
  self:until_at(now + 30)
  return { epoch = self.epoch, pass = "probe" }
end


function mt:ejected()
  return self.admin == "active" and (self.state == "open"
         or self.state == "probe") and not is_key(self.why)
end


function mt:panic()
  return self:ejected() and { epoch = self.epoch, pass = "panic" } or nil
end


-- ---- outcomes ----

-- What healthy minutes and another kind of trouble make of k.
local function heal(self, now, why)
  if self.state == "closed" then
    local healthy = floor((now - self.deadline) / 60)
    self.k = max(0, self.k - max(0, healthy))
  end
  if is_key(self.why) ~= is_key(why) then
    self.k = 0
  end
end


-- A new deadline; that of COOL is never made earlier.
local function until_later(self, till)
  local before = self.state == "cool" and self.deadline or 0
  self:until_at(till)
  self.deadline = max(self.deadline, before)
end


local function open(self, why, said, now)
  heal(self, now, why)
  local d = min(300, 5 * 2 ^ self.k)
  local till = now + max(d / 2 + said.rnd * d / 2, min(300, said.retry_after))
  until_later(self, till)
  self.k = min(6, self.k + 1)
  self.epoch = self.epoch + 1
  self.state, self.why, self.marked = "open", why, false
end


-- `seconds` asked for, or the jitter of the cooling.
local function cool(self, seconds, now)
  heal(self, now, self.why)           -- a 429 is no trouble of another kind
  until_later(self, now + seconds)
  self.state = "cool"
end


local outcomes = {}


function outcomes.success(self, _, now)
  self.fails = 0
  if self.state == "closed" then
    self.cools = 0
  elseif self.state == "probe" and not self.marked then
    self.marked = true
    self:until_at(now)
  elseif self.state == "probe" then
    self.state, self.cools, self.seen = "closed", 0, {}
    self:until_at(now)
  end
end


function outcomes.failure(self, said, now)
  self.fails = min(7, self.fails + 1)
  if self.state == "probe" then
    open(self, is_key(self.why) and "failures" or self.why, said, now)
    return
  end
  local ok, all = self:share(now)
  if self.fails >= 5 then
    open(self, "failures", said, now)
  elseif all >= 10 and ok * 2 < all then
    open(self, "share", said, now)
  elseif said.retry_after > 0 then
    cool(self, min(300, said.retry_after), now)
  end
end


function outcomes.limited(self, said, now)
  local asked = min(300, said.retry_after)
  if self.state == "probe" then
    open(self, is_key(self.why) and "failures" or self.why, said, now)
  elseif self.state == "closed" then
    local wait = asked > 0 and asked
                 or said.rnd * min(60, 2 ^ self.cools)
    cool(self, max(0.05, wait), now)
    self.cools = min(7, self.cools + 1)
  elseif asked > 0 then
    cool(self, asked, now)
  end
end


local function refuse(self, why, wait, now)
  until_later(self, now + wait)
  self.epoch = self.epoch + 1
  self.state, self.why, self.marked = "key", why, false
end


function outcomes.refused(self, said, now)
  heal(self, now, "key")
  local wait = max(60 * 2 ^ self.k, said.retry_after)
  self.k = min(6, self.k + 1)
  refuse(self, "key", min(3600, wait), now)
end


function outcomes.spent(self, said, now)
  heal(self, now, "quota")
  refuse(self, "quota", min(86400, max(3600, said.retry_after)), now)
end


function outcomes.neutral(self, _, now)
  if self.state == "probe" then
    self.state = is_key(self.why) and "key" or "open"
    self:until_at(now)
  end
end


local shared = { success = true, failure = true, limited = true }


-- A reply of before: it may only make a deadline later.
local function late(self, said, now)
  local asked = min(300, said.retry_after)
  local counts = said.verdict == "failure" or said.verdict == "limited"
  local out = self.state == "open" or self.state == "cool"
              or self.state == "key"
  if counts and out and asked > 0 then
    self.deadline = max(self.deadline, ceil((now + asked) * 64) / 64)
  end
end


-- said: { verdict, retry_after, rnd }.
function mt:settle(permit, said, now)
  if permit.epoch ~= self.epoch or permit.pass == "panic" then
    late(self, said, now)
    return
  end
  if self:cooled(now) then
    self.state = "closed"
  end
  if shared[said.verdict] then
    self:count(said.verdict == "success", now)
  end
  outcomes[said.verdict](self, said, now)
end


function mt:eject(now, rnd)
  if self.state ~= "closed" or self.admin ~= "active" then
    return false
  end
  open(self, "outlier", { rnd = rnd, retry_after = 0 }, now)
  return true
end


-- No other row is up. What is due later than its own back-off may be has been
-- asked for by the node.
function mt:hurry(now, rnd)
  local own = self.k < 6 and 5 * 2 ^ self.k / 2 or 300
  local left = self.deadline - now
  if self.state ~= "open" or self.admin ~= "active" or left <= 2
     or left > own then
    return false
  end
  self:until_at(now + 1 + rnd)
  return true
end


function mt:tend(now)
  if self:cooled(now) then
    self.state = "closed"
  end
  if self.state == "closed" and self.marked and now >= self.deadline + 30 then
    self.marked = false
  end
end


return _M
