-- base/hash: the same everywhere, never 0, and every bit moves.
local c = require "spec.support.c"

c.cdef[[
uint64_t hash_bytes(uint64_t seed, const void *bytes, size_t size);
uint64_t hash_mix(uint64_t x);
]]

local C = c.lib


local function bits(x)
  local n = 0
  while x ~= 0 do
    x = bit.band(x, x - 1)
    n = n + 1
  end
  return n
end


describe("drover_hash()", function()
  it("gives the same number for the same bytes", function()
    assert.is_true(C.drover_hash("lambkin", 7) == C.drover_hash("lambkin", 7))
    assert.is_true(C.drover_hash("lambkin", 7) == C.hash_bytes(0, "lambkin", 7))
  end)

  it("counts every byte, zeros too", function()
    local seen = {}
    for size = 0, 64 do
      local key = tostring(C.drover_hash(("\0"):rep(64), size))
      assert.is_nil(seen[key])
      seen[key] = true
    end
  end)

  it("is never 0", function()
    for i = 1, 10000 do
      assert.is_true(C.drover_hash(tostring(i), #tostring(i)) ~= 0)
    end
    assert.is_true(C.drover_hash(nil, 0) ~= 0)
  end)

  it("differs with the seed", function()
    assert.is_true(C.hash_bytes(1, "a", 1) ~= C.hash_bytes(2, "a", 1))
  end)

  it("moves about half the bits for one bit of the input", function()
    local sum = 0
    for i = 0, 999 do
      local text = ("node-%d"):format(i)
      local flipped = string.char(bit.bxor(text:byte(1), 1)) .. text:sub(2)
      sum = sum + bits(bit.bxor(C.drover_hash(text, #text),
                                C.drover_hash(flipped, #flipped)))
    end
    assert.is_true(sum / 1000 > 30 and sum / 1000 < 34)
  end)
end)


describe("hash_mix()", function()
  it("is SplitMix64's finaliser", function()
    -- the first output of SplitMix64 with seed 0
    assert.is_true(C.hash_mix(0x9e3779b97f4a7c15ULL) == 0xe220a8397b1dcdafULL)
  end)
end)
