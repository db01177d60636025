-- How hosts part a rate: decisions alone, then many hosts at random against a
-- real Redis, whose script runs on a fake clock.
local ffi = require "ffi"
local redis_server = require "spec.support.redis"
local share = require "drover.share"

local LEASE, EVERY = 2, 0.4
local WHOLE = 65536


-- A host as the zone sees it: what it may use of each name now.
local host_mt = {}
host_mt.__index = host_mt


local function new_host(number, hosts, now)
  local self = setmetatable({ number = number, asked = {}, names = {},
                              base = 1 / hosts, leased = 0, hosts = hosts,
                              load = {} }, host_mt)
  self:begin(now)
  return self
end


-- A worker begins to renew: the first one, or one after it.
function host_mt:begin(now)
  self.seen_names = {}
  self.plan = share.new({ host = "host" .. self.number, prefix = "t:",
                          lease = LEASE, hosts = self.hosts },
                        self.base, self.leased, now)
end


function host_mt:of(id, now)
  local own = self.names[id]
  return self.base + (own and own.ends > now and own.share or 0)
end


function host_mt:seen(now)
  local list = {}
  for id, asked in pairs(self.asked) do
    local one = self.seen_names[id] or { id = id }
    self.seen_names[id] = one
    one.asked, one.share = asked, self:of(id, now)
    list[#list + 1] = one
  end
  return list
end


-- What C keeps is a float.
local function as_float(x)
  return tonumber(ffi.new("float[1]", x)[0])
end


function host_mt:take(ask, reply, sent)
  local base, shares, ends = self.plan:granted(ask, reply, sent)
  assert(base)
  self.base, self.leased = as_float(base), ends
  for _, one in ipairs(shares) do
    self.names[one[1].id] = { share = as_float(one[2]), ends = ends }
  end
end


function host_mt:fail(now)
  local base = self.plan:failed(now)
  if base then
    self.base, self.leased = as_float(base), 0
  end
end


describe("a host's plan", function()
  local function plan(hosts)
    return share.new({ host = "h", prefix = "p:", lease = LEASE,
                       hosts = hosts }, 1 / hosts, 0, 100)
  end

  it("asks for itself before it knows any name", function()
    local asks = plan(4):asks({}, 100)
    assert.equal(1, #asks)
    assert.same({ "p:hosts", "p:born" }, asks[1].keys)
    assert.same({ "h", 2000, 4, 16384, 0 }, asks[1].args)
  end)

  it("asks for a name by its demand, and a little when that is old", function()
    local p = plan(2)
    p:asks({}, 100)
    local one = { id = "n", asked = 20, share = 0.75 }
    local ask = p:asks({ one }, 102)[1]
    assert.same({ "p:hosts", "p:born", "p:n" }, ask.keys)
    assert.same({ 10000, 16384 }, { ask.args[6], ask.args[7] })
    for second = 104, 200, 2 do
      ask = p:asks({ one }, second)[1]
      assert.equal(3, #ask.keys)
    end
    assert.equal(1, ask.args[6])
  end)

  it("lets a name go two minutes after its last request", function()
    local p = plan(2)
    p:asks({}, 100)
    local one = { id = "n", asked = 1, share = 0.5 }
    p:asks({ one }, 101)
    assert.equal(1, #p:asks({ one }, 220)[1].names)
    assert.equal(0, #p:asks({ one }, 221)[1].names)
  end)

  it("keeps what is in the books of names that it finds", function()
    local p = plan(2)
    local ask = p:asks({ { id = "n", asked = 7000, share = 0.5 } }, 100)[1]
    assert.equal(-1000, ask.args[6])
  end)

  it("takes a name that came again as new", function()
    local p = plan(2)
    local one = { id = "n", asked = 500, share = 0.5 }
    p:asks({ one }, 100)
    one.asked = 3
    local ask = p:asks({ one }, 101)[1]
    assert.equal(3000, ask.args[6])
  end)

  it("asks for the 1000 names with most demand, 200 a call", function()
    local p, names = plan(2), {}
    p:asks({}, 100)
    for i = 1, 1500 do
      names[i] = { id = "n" .. i, asked = i, share = 0 }
    end
    local asks, least = p:asks(names, 101), math.huge
    assert.equal(5, #asks)
    for _, ask in ipairs(asks) do
      assert.equal(202, #ask.keys)
      for _, one in ipairs(ask.names) do
        least = math.min(least, one.asked)
      end
    end
    assert.equal(501, least)
  end)

  it("counts a lease from before it asked", function()
    local p = plan(2)
    local ask = p:asks({ { id = "n", asked = 1, share = 0.5 } }, 100)[1]
    local base, extras, ends = p:granted(ask, { 3, 4096, 32768 }, 100)
    assert.equal(1 / 16, base)
    assert.equal(1 / 2, extras[1][2])
    assert.equal(100 + LEASE, ends)
    assert.is_true(p.shared)
  end)

  it("goes on alone two renewals after its lease, by the hosts it knew", function()
    local p = plan(2)
    p:granted(p:asks({}, 100)[1], { 4, 4096 }, 100)
    assert.is_nil(p:failed(101))
    assert.is_nil(p:failed(100 + LEASE + 2 * EVERY - 0.01))
    assert.is_true(p.shared)
    assert.equal(1 / 4, p:failed(100 + LEASE + 2 * EVERY))
    assert.is_false(p.shared)
  end)

  it("goes on alone at once where it never had a lease", function()
    assert.equal(1 / 3, plan(3):failed(100))
  end)

  it("takes no answer for one that is none", function()
    local p = plan(2)
    local ask = p:asks({}, 100)[1]
    assert.is_nil(p:granted(ask, nil, 100))
    assert.is_nil(p:granted(ask, { 1 }, 100))
    assert.is_nil(p:granted(ask, { 1, 2, 3 }, 100))
  end)
end)


describe("hosts that share through Redis", function()
  local redis, now
  local script = share.script("{ ARGV[#ARGV - 1], ARGV[#ARGV] }")

  setup(function() redis = redis_server.start() end)
  teardown(function() if redis then redis:stop() end end)
  before_each(function()
    redis:call("FLUSHALL")
    now = 1000
  end)

  local function eval(ask)
    local words = { "EVAL", script, #ask.keys }
    for _, list in ipairs{ ask.keys, ask.args } do
      for i = 1, #list do words[#words + 1] = list[i] end
    end
    words[#words + 1] = math.floor(now)
    words[#words + 1] = math.floor(now % 1 * 1e6)
    return redis:call(unpack(words))
  end

  -- One renewal; time may pass on the way, and the answer may be lost.
  local function renew(host, delay, lost)
    local sent = now
    for _, ask in ipairs(host.plan:asks(host:seen(now), now)) do
      now = now + (delay and delay() or 0)
      local reply = eval(ask)
      now = now + (delay and delay() or 0)
      if lost then
        return host:fail(now)
      end
      host:take(ask, reply, sent)
    end
  end

  -- `seconds` of renewals in turn, with so many requests a second each.
  local function run(hosts, id, rates, seconds)
    local ends = now + seconds
    while now < ends do
      for i, host in ipairs(hosts) do
        if host.asked[id] or rates[i] > 0 then
          host.asked[id] = (host.asked[id] or 0) + rates[i] * EVERY
        end
        renew(host)
      end
      now = now + EVERY
    end
  end

  it("gives a host that is alone all of it", function()
    local a = new_host(1, 1, now)
    run({ a }, "n", { 5 }, 4)
    assert.equal(1, a:of("n", now))
    assert.equal(0.25, a:of("other", now))
  end)

  it("moves shares to where requests come", function()
    local a, b = new_host(1, 2, now), new_host(2, 2, now)
    run({ a, b }, "n", { 5, 5 }, 6)
    assert.near(0.5, a:of("n", now), 0.02)
    assert.near(0.5, b:of("n", now), 0.02)
    run({ a, b }, "n", { 9, 1 }, 8)
    assert.near(0.125 + 0.75 * 0.9, a:of("n", now), 0.02)
    assert.near(0.125 + 0.75 * 0.1, b:of("n", now), 0.02)
    run({ a, b }, "n", { 0, 5 }, 10)
    assert.near(0.875, b:of("n", now), 0.02)
    assert.near(0.125, a:of("n", now), 0.02)
  end)

  it("gives a newcomer its part of the base in the others' next renewals",
     function()
    local a, b = new_host(1, 1, now), new_host(2, 1, now)
    run({ a }, "n", { 100 }, 6)
    renew(b)
    assert.equal(0, b:of("n", now))
    renew(a)                        -- has less from now on
    renew(a)                        -- and says so
    renew(b)
    assert.equal(0.125, b:of("n", now))
    run({ a, b }, "n", { 100, 100 }, 6)
    assert.near(0.5, b:of("n", now), 0.02)
  end)

  it("gives what a dead host had to the others after its lease", function()
    local a, b = new_host(1, 2, now), new_host(2, 2, now)
    run({ a, b }, "n", { 5, 5 }, 6)
    local died = now
    run({ b }, "n", { 5 }, LEASE - 1.5 * EVERY)
    assert.is_true(now < died + LEASE)
    assert.near(0.5, b:of("n", now), 0.02)
    run({ b }, "n", { 5 }, 4 * EVERY)
    assert.equal(1, b:of("n", now))
  end)

  it("leaves nothing in Redis that does not end, and no name's text", function()
    local a = new_host(1, 2, now)
    run({ a }, "00ff00ff00ff00ff", { 5 }, 2)
    local keys = redis:call("KEYS", "*")
    table.sort(keys)
    assert.same({ "t:00ff00ff00ff00ff", "t:born", "t:hosts" }, keys)
    for _, key in ipairs(keys) do
      assert.is_true(redis:call("PTTL", key) > 0)
    end
  end)

  -- Sum over the hosts of what they may use of a name, in parts; `leased`: of
  -- those whose lease runs.
  local function sum(hosts, id, leased)
    local total = 0
    for _, host in pairs(hosts) do
      if not leased or host.leased > now then
        total = total + math.floor(host:of(id, now) * WHOLE + 0.5)
      end
    end
    return total
  end

  local NAMES = { "a", "b", "c" }

  local function check(hosts, leased, said)
    for _, id in ipairs(NAMES) do
      local total = sum(hosts, id, leased)
      if total > WHOLE then
        error(("%s: %d parts of %s at %.3f"):format(said, total, id, now))
      end
    end
  end

  local function change_load(host, random)
    for _, id in ipairs(NAMES) do
      host.load[id] = random(3) == 1 and 0 or random(1000) / 10
    end
  end

  local function work(host, seconds)
    for _, id in ipairs(NAMES) do
      local load = host.load[id] or 0
      if load > 0 or host.asked[id] then
        host.asked[id] = (host.asked[id] or 0) + load * seconds
      end
    end
  end

  local function randoms(seed)
    local state = seed
    return function(n)
      state = (state * 1103515245 + 12345) % 2147483648
      return math.floor(state / 65536) % n + 1
    end
  end

  -- Hosts join, die, are cut off, change worker; answers are late or lost;
  -- Redis loses its memory. Whoever has no lease uses nothing here: what such
  -- a host does, it does alone (below).
  local function schedule(seed, steps)
    local random, hosts, count, largest = randoms(seed), {}, 0, 0
    local function delay() return random(100) / 1000 end
    redis:call("FLUSHALL")
    for step = 1, steps do
      local what, number = random(40), random(6)
      local host = hosts[number]
      if not host then
        count = count + 1
        hosts[number] = new_host(count, 1e9, now)
        change_load(hosts[number], random)
      elseif what == 1 then
        hosts[number] = nil
      elseif what == 2 then
        change_load(host, random)
      elseif what == 3 then
        host:begin(now)
      elseif what == 4 and random(8) == 1 then
        redis:call("FLUSHALL")
      else
        if host.leased <= now then
          host.base = 0
          host:begin(now)
        end
        work(host, 0.3)
        renew(host, delay, what == 5)
      end
      now = now + (random(30) == 1 and random(3000) or random(120)) / 1000
      check(hosts, true, "seed " .. seed .. ", step " .. step)
      largest = math.max(largest, sum(hosts, "a", true))
    end
    return largest
  end

  it("never have more than the whole, whatever happens", function()
    local largest = 0
    for seed = 1, 60 do
      largest = math.max(largest, schedule(seed, 200))
    end
    assert.is_true(largest > 0.95 * WHOLE)
  end)

  -- All of them lose Redis for as long as `gone`, with its memory or without.
  local function outage(seed, gone, forgets)
    local random, hosts = randoms(seed), {}
    redis:call("FLUSHALL")
    for i = 1, 4 do
      hosts[i] = new_host(i, 4, now)
      hosts[i].due = now + random(400) / 1000
      change_load(hosts[i], random)
    end
    local from, ends = now + 8, now + 8 + gone + 6
    local alone = 0
    while now < ends do
      now = now + 0.05
      local away = now >= from and now < from + gone
      if forgets and away then
        redis:call("FLUSHALL")
      end
      for _, host in ipairs(hosts) do
        if now >= host.due then
          host.due = now + EVERY
          work(host, EVERY)
          if away then host:fail(now) else renew(host) end
        end
        alone = alone + (host.plan.shared and 0 or 1)
        check(hosts, false, "outage " .. seed)
      end
    end
    for _, host in ipairs(hosts) do
      assert.is_true(host.plan.shared)
    end
    return alone
  end

  it("have the whole at most while Redis goes and comes back", function()
    local alone = 0
    for seed = 1, 12 do
      alone = alone + outage(seed, seed * 0.7, seed % 2 == 0)
    end
    assert.is_true(alone > 0)
  end)
end)
