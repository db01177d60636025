local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct limit_rate { uint32_t rate, unit, burst; };
struct limit_rate limit_gcra_rate(uint32_t per_min, uint32_t burst,
                                  uint32_t share);
int64_t limit_gcra_cost(const struct limit_rate *r, uint64_t n);
int64_t limit_gcra_deep(const struct limit_rate *r);
int64_t limit_gcra_ns(double now);
int64_t limit_gcra_wait(const int64_t *tat, const struct limit_rate *r,
                        int64_t cost, int64_t now);
int64_t limit_gcra_scale(int64_t tat, int64_t now, uint32_t from, uint32_t to);
int64_t limit_gcra_take(int64_t *tat, const struct limit_rate *r, int64_t cost,
                        int64_t now, int64_t *was);
int64_t limit_gcra_charge(int64_t *tat, int64_t cost, int64_t now,
                          int64_t *was);
]]

local ALL = 65536
local SECOND = 1000000000LL
local MOST = 2LL ^ 61
local was = ffi.new("int64_t[1]")


local function rate(per_min, burst, share)
  return C.limit_gcra_rate(per_min, burst or 0, share or ALL)
end


local function word(tat)
  return ffi.new("int64_t[1]", tat or 0)
end


-- Book n at `now` (ns): 0 or how long to wait.
local function take(w, r, n, now)
  return C.limit_gcra_take(w, r, C.limit_gcra_cost(r, n), now, was)
end


describe("a rate", function()
  it("has a burst of one second's worth, or of one", function()
    for per_min, burst in pairs{ [1] = 1, [59] = 1, [60] = 1, [61] = 1,
                                 [119] = 1, [120] = 2, [6000] = 100,
                                 [4294967295] = 71582788 } do
      assert.equal(burst, rate(per_min).burst)
    end
    assert.equal(7, rate(60, 7).burst)
  end)

  it("costs whole nanoseconds, rounded up", function()
    local r = rate(7)
    assert.equal(8571428572LL, C.limit_gcra_cost(r, 1))
    assert.equal(60 * SECOND, C.limit_gcra_cost(r, 7))
    assert.equal(0LL, C.limit_gcra_cost(r, 0))
    assert.equal(SECOND, C.limit_gcra_cost(rate(60), 1))
    -- Where 64 bits are not enough, and beyond all time.
    assert.equal(60 * SECOND, C.limit_gcra_cost(rate(4294967295), 4294967295))
    assert.equal(71583 * SECOND * 60, C.limit_gcra_cost(rate(60000), 4294980000))
    assert.equal(MOST, C.limit_gcra_cost(rate(1, 1, 1), 4294967295))
  end)

  it("is never above its part when hosts share it", function()
    for _, per_min in ipairs{ 1, 3, 60, 1000, 999983, 4294967295 } do
      for _, share in ipairs{ 1, 2, 3, 655, 16384, 21845, 32768, 65535 } do
        local r = rate(per_min, 0, share)
        local exact = per_min * share / ALL
        local is = r.rate / r.unit
        assert.is_true(is <= exact or r.rate == 1, per_min .. " " .. share)
        assert.is_true(is > exact * 0.999 - 1 / 1024)
        assert.is_true(r.burst >= 1)
      end
    end
    assert.equal(25, rate(60, 100, ALL / 4).burst)
  end)

  it("takes times as they come", function()
    assert.equal(0LL, C.limit_gcra_ns(-1))
    assert.equal(0LL, C.limit_gcra_ns(0 / 0))
    assert.equal(1500000000LL, C.limit_gcra_ns(1.5))
    assert.equal(MOST, C.limit_gcra_ns(1e300))
  end)
end)


describe("a word", function()
  it("lets the burst pass at once, then one at a time", function()
    local w, r, now = word(), rate(60, 5), 100 * SECOND
    for _ = 1, 5 do
      assert.equal(0LL, take(w, r, 1, now))
    end
    local wait = SECOND - 4                     -- the four others' rounding
    assert.equal(wait, take(w, r, 1, now))
    assert.equal(1LL, take(w, r, 1, now + wait - 1))
    assert.equal(0LL, take(w, r, 1, now + wait))
    assert.equal(SECOND, take(w, r, 1, now + wait))
  end)

  it("lets a burst of ones pass at any rate", function()
    for _, conf in ipairs{ { 7, 3 }, { 90, 75 }, { 999983, 900 }, { 13, 1 },
                           { 70000000, 1000 }, { 3, 1000 } } do
      for _, share in ipairs{ ALL, ALL * 3 / 4, 655 } do
        local w, r = word(), rate(conf[1], conf[2], share)
        for _ = 1, r.burst do
          assert.equal(0LL, take(w, r, 1, SECOND))
        end
        assert.is_true(take(w, r, 1, SECOND) > 0)
      end
    end
  end)

  it("books nothing when it refuses, and asking books nothing", function()
    local w, r, now = word(), rate(60, 3), SECOND
    take(w, r, 2, now)
    local before = w[0]
    assert.equal(SECOND - 2, take(w, r, 2, now))
    assert.equal(SECOND - 2, C.limit_gcra_wait(w, r, C.limit_gcra_cost(r, 2),
                                               now))
    assert.equal(0LL, C.limit_gcra_wait(w, r, C.limit_gcra_cost(r, 1), now))
    assert.equal(before, w[0])
  end)

  it("says what it was", function()
    local w = word(5)
    assert.equal(0LL, take(w, rate(60), 1, 7))
    assert.equal(5LL, was[0])
    assert.equal(7 + SECOND, w[0])
  end)

  it("has no calendar: what was used comes back at the rate alone", function()
    local w, r = word(), rate(60, 60)
    -- All of a minute's worth at its end, then at the beginning of the next.
    assert.equal(0LL, take(w, r, 60, 59 * SECOND))
    assert.equal(58 * SECOND - 59, take(w, r, 60, 61 * SECOND))
    assert.equal(0LL, take(w, r, 2, 61 * SECOND))
  end)

  it("is held by debts until they are paid", function()
    local w, r, now = word(), rate(60, 2), 10 * SECOND
    assert.equal(now + 30 * SECOND, C.limit_gcra_charge(w, 30 * SECOND, now, was))
    assert.equal(0LL, was[0])
    assert.equal(29 * SECOND - 1, take(w, r, 1, now))
    assert.equal(0LL, take(w, r, 1, now + 29 * SECOND))
    assert.equal(SECOND - 1, take(w, r, 1, now + 29 * SECOND))
  end)

  it("bears any number of debts", function()
    local w = word()
    for _ = 1, 5 do
      C.limit_gcra_charge(w, MOST, MOST, was)
    end
    assert.equal(MOST, w[0])
    C.limit_gcra_charge(w, 5, 9, was)
    assert.is_true(w[0] >= MOST and w[0] <= MOST + 5)
  end)

  it("keeps what is owed when its part changes", function()
    local now = 50 * SECOND
    assert.equal(now - 3, C.limit_gcra_scale(now - 3, now, ALL, 1))
    assert.equal(now + 40, C.limit_gcra_scale(now + 10, now, ALL, ALL / 4))
    assert.equal(now + 3, C.limit_gcra_scale(now + 10, now, ALL / 4, ALL))
    assert.equal(MOST, C.limit_gcra_scale(MOST, now, ALL, 1))
  end)
end)


-- Every window of a run, by one pass: with P(t) = what was booked up to and
-- with t, less rate * t, no later P may be above an earlier one (before its
-- booking) by more than the burst.
local function worst(events, per_ns)
  local sum, least, most = 0, math.huge, -math.huge
  for _, e in ipairs(events) do
    least = math.min(least, sum - per_ns * e[1])
    sum = sum + e[2]
    most = math.max(most, sum - per_ns * e[1] - least)
  end
  return most
end


describe("the law of a rate", function()
  -- xorshift on 31 bits: the same run each time.
  local function random(seed)
    local x = seed
    return function(n)
      x = bit.bxor(x, bit.lshift(x, 13))
      x = bit.bxor(x, bit.rshift(x, 17))
      x = bit.bxor(x, bit.lshift(x, 5))
      return bit.band(x, 0x7fffffff) % n
    end
  end

  -- `behind`: clocks of several processes, some a little behind; nothing is
  -- given back then, since that is in order of the swaps and not of the clocks.
  local function run(conf, seed, behind)
    local r, w, next_random = rate(conf[1], conf[2], conf[3]), word(),
                              random(seed)
    local per_ns = tonumber(r.rate) / r.unit / 60e9
    local step = math.ceil(1 / per_ns / 1000)
    local events, booked, now = {}, {}, 0LL
    for _ = 1, 20000 do
      now = now + next_random(2000) * step
      local at = now - (behind and next_random(1000) * step or 0)
      local n = 1 + next_random(math.min(r.burst, 9))
      if not behind and #booked > 0 and next_random(4) == 0 then
        -- Settled with less: the rest is given back.
        local k = table.remove(booked, 1 + next_random(#booked))
        local used = next_random(k + 1)
        w[0] = w[0] - (C.limit_gcra_cost(r, k) - C.limit_gcra_cost(r, used))
        events[#events + 1] = { tonumber(at), used - k, #events }
      elseif at >= 0 and take(w, r, n, at) == 0 then
        events[#events + 1] = { tonumber(at), n, #events }
        booked[#booked + 1] = n
      end
    end
    assert.is_true(#booked > 100)
    table.sort(events, function(a, b)
      return a[1] < b[1] or a[1] == b[1] and a[3] < b[3]
    end)
    return worst(events, per_ns) - r.burst, per_ns
  end

  for seed, conf in ipairs{ { 60, 0, ALL }, { 7, 3, ALL }, { 6000, 0, ALL },
                            { 999983, 5000, ALL }, { 90, 0, 21845 },
                            { 120000, 777, 5 }, { 1, 2, ALL } } do
    it("holds in every window: " .. table.concat(conf, " "), function()
      local above, per_ns = run(conf, seed * 77777)
      assert.is_true(above <= 1001 * per_ns + 1e-5)
      above, per_ns = run(conf, seed * 77777, true)
      assert.is_true(above <= 1001 * per_ns + 1e-5)
    end)
  end

  it("is seen to be broken where a word forgets", function()
    local r, w, events = rate(60, 2), word(), {}
    for i = 0, 9 do
      if i == 5 then
        w[0] = 0
      end
      if take(w, r, 1, i * SECOND / 10) == 0 then
        events[#events + 1] = { i * 1e8, 1 }
      end
    end
    assert.is_true(worst(events, 1e-9) > 2)
  end)
end)
