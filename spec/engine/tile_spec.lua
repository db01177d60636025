-- Packed matrices and what multiplies them: what is packed comes back bit for
-- bit, every machine's kernels give the bits of the plain ones, a row's result
-- is the same in any batch, and it is the product.
local ffi = require "ffi"
local c = require "spec.support.c"
local weights = require "spec.support.weights"
require "spec.support.backend"

local fast = ffi.load("build/libdrover_dev.so")
local NAMES = { "plain", "avx2", "avx512" }


-- A matrix packed by `lib`, and its bytes.
local function pack(lib, kind, rows, cols, random)
  local bytes = weights.matrix(kind, rows, cols, random)
  local read = ffi.cast("int (*)(void *, uint64_t, void *, size_t, drover_err *)",
    function(_, from, to, size)
      ffi.copy(to, bytes + tonumber(from), size)
      return 0
    end)
  local from = ffi.new("struct engine_weight_from", kind.id, cols, rows, read)
  local out = ffi.new("struct engine_tiles *[1]")
  assert(lib.engine_tiles_new(out, from, nil) == 0)
  read:free()
  return ffi.gc(out[0], lib.engine_tiles_free), bytes
end


-- Floats' rows are of any length, others' of whole blocks.
local function length(kind, random)
  if kind.values == 1 then
    return 1 + random(70)
  end
  return kind.values * (1 + random(kind.values == 32 and 9 or 3))
end


-- [batch][cols] activations as floats and as integers.
local function inputs(isa, batch, cols, random)
  local x = weights.floats(batch * cols, random)
  local blocks = math.floor(cols / 32)
  local q = ffi.new("int8_t[?]", batch * cols)
  local act = ffi.new("struct engine_act[?]", batch * blocks + 1)
  for r = 0, batch - 1 do
    isa.quantise(x + r * cols, cols, q + r * cols, act + r * blocks)
  end
  return { x = x, q = q, act = act, cols = cols }
end


-- Rows at … at + n of `in`, times weight rows first … end.
local function product(isa, w, from, at, n, first, last, bias)
  local to = ffi.new("float[?]", n * (last - first) + 1)
  local p = ffi.new("struct engine_product", {
    w = w, q = from.q + at * from.cols, q_ld = from.cols,
    act = from.act + at * math.floor(from.cols / 32),
    x = from.x + at * from.cols, x_ld = from.cols, rows = n,
    first = first, ["end"] = last, to = to, to_ld = last - first, bias = bias,
  })
  if w.form == nil then
    isa.floats(p, first, last)
  else
    isa.tiles(p, math.floor(first / 8), math.ceil(last / 8))
  end
  return to
end


local function same_bits(a, b, n, what)
  local x, y = ffi.cast("uint32_t *", a), ffi.cast("uint32_t *", b)
  for i = 0, n - 1 do
    if x[i] ~= y[i] then
      error(("%s: %g at %d, %g expected"):format(what, b[i], i, a[i]), 2)
    end
  end
end


for _, kind in ipairs(weights.types) do
  describe("tiles of " .. kind.name, function()
    it("hold a file's values, bit for bit", function()
      for seed = 1, 12 do
        local random = weights.random(seed)
        local rows, cols = 1 + random(30), length(kind, random)
        local w, bytes = pack(c.lib, kind, rows, cols, random)
        local want, got = ffi.new("float[?]", cols), ffi.new("float[?]", cols)
        for r = 0, rows - 1 do
          local row = bytes + r * cols / kind.values * kind.bytes
          c.lib.engine_quant_row(kind.id, row, cols, want)
          c.lib.engine_tiles_row(w, r, got)
          same_bits(want, got, cols, "row " .. r)
        end
      end
    end)

    it("give the product of their integers", function()
      local isa = c.lib.engine_isa_find("plain")
      local random = weights.random(99)
      local rows, cols = 13, length(kind, random)
      local w = pack(c.lib, kind, rows, cols, random)
      local x = inputs(isa, 3, cols, random)
      local row = ffi.new("float[?]", cols)
      local got = product(isa, w, x, 0, 3, 0, rows)
      for o = 0, rows - 1 do
        c.lib.engine_tiles_row(w, o, row)
        for r = 0, 2 do
          local sum, size = 0, 0
          for i = 0, cols - 1 do
            local value = kind.values == 1 and x.x[r * cols + i]
              or x.q[r * cols + i]
                 * x.act[r * math.floor(cols / 32) + math.floor(i / 32)].scale
            sum, size = sum + value * row[i], size + math.abs(value * row[i])
          end
          assert(math.abs(got[r * rows + o] - sum) <= 2e-6 * size)
        end
      end
    end)

    it("are multiplied alike by all machines and in any batch", function()
      for seed = 1, 70 do
        local random = weights.random(1000 * kind.id + seed)
        local batch, rows = 1 + random(33), 1 + random(60)
        local cols = length(kind, random)
        local w = pack(fast, kind, rows, cols, random)
        local plain = fast.engine_isa_find("plain")
        local x = inputs(plain, batch, cols, random)
        local first = random(rows)
        local last = first + 1 + random(rows - first)
        local bias = random(2) == 1 and weights.floats(rows, random) or nil
        local want = product(plain, w, x, 0, batch, first, last, bias)
        for _, name in ipairs(NAMES) do
          local isa = fast.engine_isa_find(name)
          if isa ~= nil then
            local n = last - first
            same_bits(want, product(isa, w, x, 0, batch, first, last, bias),
                      batch * n, name)
            local r = random(batch)
            same_bits(want + r * n, product(isa, w, x, r, 1, first, last, bias),
                      n, name .. " alone")
          end
        end
      end
    end)
  end)
end


describe("activations", function()
  it("are the same integers on all machines", function()
    local random = weights.random(7)
    local x = weights.floats(64 * 50, random)
    for i = 0, 31 do
      x[i], x[32 + i] = 0, x[32 + i] * 1e-33
    end
    local want
    for _, name in ipairs(NAMES) do
      local isa = fast.engine_isa_find(name)
      if isa ~= nil then
        local q, act = ffi.new("int8_t[3200]"), ffi.new("struct engine_act[100]")
        isa.quantise(x, 3200, q, act)
        local got = ffi.string(q, 3200) .. ffi.string(act, ffi.sizeof(act))
        want = want or got
        assert.equal(want, got)
      end
    end
  end)

  it("lie within half a step, and a NaN is not lost", function()
    local isa = fast.engine_isa_find(nil)
    local x = weights.floats(32, weights.random(8))
    local q, act = ffi.new("int8_t[32]"), ffi.new("struct engine_act[1]")
    isa.quantise(x, 32, q, act)
    local sum = 0
    for i = 0, 31 do
      assert(math.abs(x[i] - q[i] * act[0].scale) <= act[0].scale * 0.5001)
      sum = sum + q[i]
    end
    assert.equal(sum, act[0].whole)
    assert.equal(sum, act[0].half[0] + act[0].half[1])
    x[5] = 0 / 0
    isa.quantise(x, 32, q, act)
    assert(act[0].scale ~= act[0].scale)
  end)
end)


describe("halves", function()
  it("are narrowed and widened alike by all machines", function()
    local n = 65536 + 7
    local x, random = ffi.new("float[?]", n), weights.random(3)
    local bits = ffi.cast("uint32_t *", x)
    for i = 0, n - 1 do
      bits[i] = random(65536) * 65536 + random(65536)
      if bits[i] % 2147483648 > 0x7f800000 then
        x[i] = i
      end
    end
    for _, name in ipairs(NAMES) do
      local isa = fast.engine_isa_find(name)
      if isa ~= nil then
        local half, back = ffi.new("uint16_t[?]", n), ffi.new("float[?]", n)
        isa.narrow(x, n, half)
        isa.widen(half, n, back)
        for i = 0, n - 1 do
          assert(half[i] == fast.engine_float_half(x[i]), name)
          assert(back[i] == fast.engine_half_float(half[i]), name)
        end
      end
    end
  end)

  it("come back from floats as they were", function()
    for i = 0, 65535 do
      if i % 32768 <= 0x7c00 then   -- LuaJIT cannot hold every NaN
        assert(fast.engine_float_half(fast.engine_half_float(i)) == i)
      end
    end
  end)
end)
