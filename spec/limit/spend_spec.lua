local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct limit_spend { uint64_t hours[26], days[32], spare[6]; };
int64_t limit_spend_micro(double dollars);
int64_t limit_spend_micro_down(double dollars);
uint32_t limit_spend_hour(double now);
double limit_spend_wait(const struct limit_spend *s, int ring, int64_t max,
                        int64_t micro, double now);
int limit_spend_take(struct limit_spend *s, const int64_t max[2],
                     int64_t micro, double now);
void limit_spend_give(struct limit_spend *s, unsigned rings, uint32_t hour,
                      int64_t micro);
void limit_spend_add(struct limit_spend *s, unsigned rings, uint32_t hour,
                     int64_t micro);
int limit_spend_idle(const struct limit_spend *s, double now);
]]

local DAY, MONTH, TAKEN = 0, 1, 2
local HOUR = 3600


local function take(s, day, month, micro, now)
  return C.limit_spend_take(s, ffi.new("int64_t[2]", day, month), micro, now)
end


local function wait(s, ring, max, micro, now)
  return C.limit_spend_wait(s, ring, max, micro, now)
end


describe("dollars", function()
  local s

  before_each(function() s = ffi.new("struct limit_spend") end)

  it("are counted in millionths, never too few", function()
    for dollars, micro in pairs{ [0] = 0, [1e-9] = 1, [0.25] = 250000,
                                 [12.3456789] = 12345679, [-1] = 0,
                                 [1e300] = 2 ^ 47 } do
      assert.equal(micro, tonumber(C.limit_spend_micro(dollars)))
    end
    assert.equal(0, tonumber(C.limit_spend_micro(0 / 0)))
    assert.equal(12345678, tonumber(C.limit_spend_micro_down(12.3456789)))
  end)

  it("pass until the limit is reached, to the last millionth", function()
    assert.equal(TAKEN, take(s, 1000, 0, 999, 10))
    assert.equal(DAY, take(s, 1000, 0, 2, 20))
    assert.equal(TAKEN, take(s, 1000, 0, 1, 20))
    assert.equal(DAY, take(s, 1000, 0, 1, 20))
    assert.equal(TAKEN, take(s, 1000, 0, 0, 20))
  end)

  it("are booked in neither ring when one refuses", function()
    assert.equal(TAKEN, take(s, 1000, 500, 400, 10))
    assert.equal(MONTH, take(s, 1000, 500, 200, 10))
    assert.equal(0, wait(s, DAY, 1000, 600, 10))
    assert.equal(DAY, take(s, 500, 1000, 200, 10))
    assert.equal(0, wait(s, MONTH, 1000, 600, 10))
    assert.is_true(wait(s, MONTH, 1000, 601, 10) > 0)
  end)

  it("count for all of a day, wherever in the hour they were spent", function()
    for _, at in ipairs{ 0, 1, 1800, 3599.9, 50 * HOUR + 7 } do
      s = ffi.new("struct limit_spend")
      assert.equal(TAKEN, take(s, 100, 0, 100, at))
      for _, later in ipairs{ 1, HOUR, 23 * HOUR, 24 * HOUR - 0.01 } do
        assert.equal(DAY, take(s, 100, 0, 1, at + later))
      end
      assert.equal(TAKEN, take(s, 100, 0, 1, at + 25 * HOUR))
    end
  end)

  it("count for all of thirty days, and roll over days", function()
    local day = 24 * HOUR
    for _, at in ipairs{ 0, 5 * HOUR, day - 1, 400 * day + 3 } do
      s = ffi.new("struct limit_spend")
      assert.equal(TAKEN, take(s, 0, 100, 100, at))
      assert.equal(MONTH, take(s, 0, 100, 1, at + 30 * day - 0.01))
      assert.equal(TAKEN, take(s, 0, 100, 1, at + 31 * day))
    end
  end)

  it("come back an hour at a time", function()
    for i = 0, 9 do
      assert.equal(TAKEN, take(s, 1000, 0, 100, i * HOUR + 5))
    end
    assert.equal(DAY, take(s, 1000, 0, 1, 10 * HOUR))
    assert.equal(15 * HOUR, wait(s, DAY, 1000, 1, 10 * HOUR))
    assert.equal(15 * HOUR, wait(s, DAY, 1000, 100, 10 * HOUR))
    assert.equal(16 * HOUR, wait(s, DAY, 1000, 101, 10 * HOUR))
    assert.equal(24 * HOUR, wait(s, DAY, 1000, 1000, 10 * HOUR))
    assert.equal(TAKEN, take(s, 1000, 0, 100, 25 * HOUR))
    assert.equal(DAY, take(s, 1000, 0, 1, 25 * HOUR))
  end)

  it("never pass when they are more than the limit", function()
    assert.equal(25 * HOUR, wait(s, DAY, 1000, 1001, 10))
    assert.equal(31 * 24 * HOUR, wait(s, MONTH, 1000, 1001, 10))
    assert.equal(DAY, take(s, 1000, 0, 1001, 10))
  end)

  it("are given back to the hour they were booked in", function()
    assert.equal(TAKEN, take(s, 1000, 1000, 600, 100))
    assert.equal(TAKEN, take(s, 1000, 1000, 400, HOUR + 100))
    C.limit_spend_give(s, 3, 0, 600)
    assert.equal(0, wait(s, DAY, 1000, 600, HOUR + 200))
    assert.is_true(wait(s, DAY, 1000, 601, HOUR + 200) > 0)
    assert.equal(24 * HOUR - 200, wait(s, DAY, 1000, 700, 2 * HOUR + 200))
    C.limit_spend_give(s, 3, 0, 999)                  -- never below nothing
    assert.is_true(wait(s, DAY, 1000, 601, HOUR + 200) > 0)
    C.limit_spend_give(s, 3, 1 + 26, 400)             -- another turn's hour
    assert.is_true(wait(s, DAY, 1000, 601, HOUR + 200) > 0)
  end)

  it("that were spent above the limit are a debt", function()
    C.limit_spend_add(s, 3, 0, 5000)
    assert.equal(DAY, take(s, 1000, 0, 1, 24 * HOUR))
    assert.equal(TAKEN, take(s, 1000, 0, 1, 25 * HOUR))
    assert.equal(MONTH, take(s, 0, 1000, 1, 25 * HOUR))
  end)

  it("of a process that is in the next hour already count too", function()
    assert.equal(TAKEN, take(s, 1000, 0, 700, HOUR + 0.001))
    assert.equal(DAY, take(s, 1000, 0, 400, HOUR - 0.001))
    assert.equal(TAKEN, take(s, 1000, 0, 300, HOUR - 0.001))
    assert.equal(DAY, take(s, 1000, 0, 1, HOUR + 0.002))
  end)

  it("are idle when nothing is remembered", function()
    assert.equal(1, C.limit_spend_idle(s, 10))
    take(s, 1000, 1000, 10, 10)
    assert.equal(0, C.limit_spend_idle(s, 10))
    assert.equal(0, C.limit_spend_idle(s, 26 * HOUR))  -- the month's
    assert.equal(1, C.limit_spend_idle(s, 31 * 24 * HOUR))
    take(s, 1000, 0, 10, 10)
    C.limit_spend_give(s, 3, 0, 20)
    assert.equal(1, C.limit_spend_idle(s, 10))
  end)

  it("of any 24 hours are never above the limit, over a month", function()
    local spent, x, now = {}, 12345, 0
    for _ = 1, 6000 do
      x = (x * 1103515245 + 12345) % 2147483648
      now = now + x % 900
      local micro = 1 + x % 97
      if take(s, 3000, 50000, micro, now) == TAKEN then
        spent[#spent + 1] = { now, micro }
      end
    end
    assert.is_true(#spent > 500)
    local windows = { { 24 * HOUR, 3000 }, { 30 * 24 * HOUR, 50000 } }
    for _, window in ipairs(windows) do
      local sum, first, most = 0, 1, 0
      for _, one in ipairs(spent) do
        sum = sum + one[2]
        while spent[first][1] <= one[1] - window[1] do
          sum, first = sum - spent[first][2], first + 1
        end
        most = math.max(most, sum)
      end
      assert.is_true(most <= window[2] and most > window[2] * 0.9)
    end
  end)
end)
