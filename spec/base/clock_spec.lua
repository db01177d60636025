-- base/clock: the one that reads a clock, and seconds made nanoseconds.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
int64_t clock_now_ns(void);
int64_t clock_ns(double seconds);
double clock_seconds(int64_t ns);
]]

local C = c.lib


describe("clock", function()
  it("never goes back", function()
    local last = C.clock_now_ns()
    for _ = 1, 1000 do
      local now = C.clock_now_ns()
      assert.is_true(now >= last)
      last = now
    end
    assert.is_true(C.drover_clock() >= C.clock_seconds(last))
  end)

  it("knows the wall's time to the second", function()
    assert.is_true(math.abs(C.drover_clock_wall() - os.time()) <= 1)
  end)

  it("turns seconds into nanoseconds and back", function()
    assert.is_true(C.clock_ns(1.5) == 1500000000)
    assert.is_true(C.clock_ns(-2) == -2000000000)
    assert.equal(1.5, C.clock_seconds(1500000000))
  end)

  it("saturates, and reads not-a-number as 0", function()
    local most = ffi.cast("int64_t", 0x7fffffffffffffffULL)
    assert.is_true(C.clock_ns(1e300) == most)
    assert.is_true(C.clock_ns(math.huge) == most)
    assert.is_true(C.clock_ns(-math.huge) == -most)
    assert.is_true(C.clock_ns(0 / 0) == 0)
  end)
end)
