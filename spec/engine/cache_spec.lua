-- engine/cpu_kv: a head's key or value in the cache and out of it again.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
size_t engine_cpu_kv_bytes(uint32_t kv, uint32_t dim);
void engine_cpu_kv_store(uint32_t kv, const float *from, uint32_t dim, unsigned char *to);
const float *engine_cpu_kv_load(uint32_t kv, const unsigned char *from, uint32_t dim,
  float *scratch);
float engine_half_float(uint16_t half);
]]

local C = c.lib
local F16, F32, Q8_0 = C.DROVER_KV_F16, C.DROVER_KV_F32, C.DROVER_KV_Q8_0


-- The vector as it comes back; it ends where its memory ends.
local function through(kv, values)
  local n = #values
  local bytes = tonumber(C.engine_cpu_kv_bytes(kv, n))
  local from, scratch = ffi.new("float[?]", n, values), ffi.new("float[?]", n)
  local to = ffi.new("unsigned char[?]", bytes + 8)
  ffi.fill(to, bytes + 8, 0xa5)
  C.engine_cpu_kv_store(kv, from, n, to)
  for i = bytes, bytes + 7 do
    assert(to[i] == 0xa5, "written past the end")
  end
  local back, out = C.engine_cpu_kv_load(kv, to, n, scratch), {}
  for i = 1, n do
    out[i] = back[i - 1]
  end
  return out, bytes
end


describe("a cache of floats", function()
  it("changes nothing", function()
    local out, bytes = through(F32, { 1.5, -0.1, 1e30, -1e-40 })
    assert.equal(16, bytes)
    assert.same({ 1.5, tonumber(ffi.new("float", -0.1)) }, { out[1], out[2] })
  end)
end)


describe("a cache of halves", function()
  it("keeps every half, and takes the nearest one, of two the even", function()
    local wrong = 0
    for half = 0, 0x7bfe do
      local low, high = C.engine_half_float(half), C.engine_half_float(half + 1)
      local mid, sum = (low + high) / 2, high - low
      local out = through(F16, { low, -low, mid, low + sum * 0.49, low + sum * 0.51 })
      local even = half % 2 == 0 and low or high
      if out[1] ~= low or out[2] ~= -low or out[3] ~= even or out[4] ~= low
         or out[5] ~= high then
        wrong = wrong + 1
      end
    end
    assert.equal(0, wrong)
  end)

  it("has a largest one for what is larger, and NaN for NaN", function()
    local out, bytes = through(F16, { 65504, 65519, 65520, 1e30, -math.huge, 0 / 0 })
    assert.equal(12, bytes)
    assert.same({ 65504, 65504, 65504, 65504, -65504 },
                { out[1], out[2], out[3], out[4], out[5] })
    assert.is_true(out[6] ~= out[6])
  end)
end)


describe("a cache of bytes", function()
  it("is within half a step of each value, for any size of a head", function()
    local x = 3
    for _, n in ipairs{ 4, 32, 48, 64, 80, 96, 128, 256 } do
      local values = {}
      for i = 1, n do
        x = (x * 1103515245 + 12345) % 2147483648
        values[i] = (x / 2147483648 - 0.5) * (i > 32 and 100 or 1)
      end
      local out, bytes = through(Q8_0, values)
      assert.equal(n + 2 * math.ceil(n / 32), bytes)
      for from = 1, n, 32 do
        local most = 0
        for i = from, math.min(n, from + 31) do
          most = math.max(most, math.abs(values[i]))
        end
        for i = from, math.min(n, from + 31) do
          assert.is_true(math.abs(out[i] - values[i]) <= most / 127 * 0.57)
        end
      end
    end
  end)

  it("has zeros for zeros, and a NaN spoils its run alone", function()
    local values = {}
    for i = 1, 64 do
      values[i] = i > 32 and i or 0
    end
    assert.equal(0, through(Q8_0, values)[1])
    assert.is_true(math.abs(through(Q8_0, values)[64] - 64) < 0.1)
    values[3] = 0 / 0
    local out = through(Q8_0, values)
    assert.is_true(out[1] ~= out[1] and out[32] ~= out[32])
    assert.is_true(math.abs(out[33] - 33) < 0.3)
  end)
end)
