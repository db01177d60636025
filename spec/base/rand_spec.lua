-- base/rand: the published sequence, and numbers that spread evenly.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct rand_state { uint64_t x; };
uint64_t rand_next(struct rand_state *s);
double rand_unit(struct rand_state *s);
uint64_t rand_entropy(void);
]]

local C = c.lib


describe("rand_next()", function()
  it("is SplitMix64", function()
    local s = ffi.new("struct rand_state", { 1234567 })
    for _, want in ipairs{ 6457827717110365317ULL, 3203168211198807973ULL,
                           9817491932198370423ULL } do
      assert.is_true(C.rand_next(s) == want)
    end
  end)
end)


describe("rand_unit()", function()
  it("fills [0, 1) evenly", function()
    local s, cells = ffi.new("struct rand_state", { 1 }), {}
    for _ = 1, 100000 do
      local x = C.rand_unit(s)
      assert.is_true(x >= 0 and x < 1)
      local i = math.floor(x * 10)
      cells[i] = (cells[i] or 0) + 1
    end
    for i = 0, 9 do
      assert.is_true(math.abs(cells[i] - 10000) < 500)
    end
  end)
end)


describe("drover_entropy()", function()
  it("does not repeat", function()
    local seen = {}
    for _ = 1, 1000 do
      local key = tostring(C.drover_entropy())
      assert.is_nil(seen[key])
      seen[key] = true
    end
  end)
end)
