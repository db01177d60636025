-- The packed backend's ops against the plain one's, through the hatch alone:
-- random shapes, odd sizes, 1 to 33 rows, each type. Weights that are floats are
-- within 2e-6 of the terms' sizes; integer activations within half a step of
-- each of them, times the weight.
local ffi = require "ffi"
local c = require "spec.support.c"
local weights = require "spec.support.weights"
require "spec.support.backend"

local C = c.lib
local KINDS = weights.types
local F32 = KINDS[1]
local ROWS, BLOCKS = 40, 64


-- ---- a backend with a state, weights and buffers ----

local Side = {}
Side.__index = Side


local function side(b, shape, kv)
  local s = setmetatable({ b = b, weights = {}, buffers = {} }, Side)
  local out = ffi.new("struct engine_state *[1]")
  local limits = ffi.new("struct engine_limits", ROWS, ROWS, BLOCKS, 2,
                         kv or C.DROVER_KV_F32)
  assert(b.state_new(out, shape, limits, nil) == 0)
  s.state = out[0]
  return s
end


function Side:weight(kind, rows, cols, bytes)
  local read = ffi.cast("int (*)(void *, uint64_t, void *, size_t, drover_err *)",
    function(_, from, to, size)
      ffi.copy(to, ffi.cast("char *", bytes) + tonumber(from), size)
      return 0
    end)
  local from = ffi.new("struct engine_weight_from", kind.id, cols, rows, read)
  local out = ffi.new("struct engine_weight *[1]")
  assert(self.b.weight_new(out, from, nil) == 0)
  read:free()
  self.weights[#self.weights + 1] = out[0]
  return out[0]
end


function Side:buffer(width, values, rows)
  local out = ffi.new("struct engine_buffer *[1]")
  assert(self.b.buffer_new(out, ROWS, width, nil) == 0)
  if values then
    self.b.upload(out[0], values, rows * width)
  end
  self.buffers[#self.buffers + 1] = out[0]
  return out[0]
end


function Side:close()
  for _, w in ipairs(self.weights) do
    self.b.weight_free(w)
  end
  for _, b in ipairs(self.buffers) do
    self.b.buffer_free(b)
  end
  self.b.state_free(self.state)
end


-- fn(side) inside a step of these rows.
function Side:step(rows, fn)
  self.b.step_begin(self.state, rows)
  fn(self)
  assert(self.b.step_end(self.state, nil) == 0)
end


-- ---- shapes and rows ----

-- Of an architecture; sizes are whole blocks of 32 where `kind` wants them.
local function shape_of(arch, over)
  local s = ffi.new("struct engine_shape", {
    arch = C.engine_arch_find(arch), layers = 2, width = 64, heads = 4,
    kv_heads = 2, head_dim = 16, ff = 96, vocab = 50, rot = 16, context = 128,
    eps = 1e-5, score_scale = 0.25, embed_scale = 1, residual_scale = 1,
    logit_scale = 1, expert_scale = 1,
    rope = { base = 10000, scale = 1, stretch = 1 },
    rope_local = { base = 10000, scale = 1, stretch = 1 },
  })
  for k, v in pairs(over or {}) do
    s[k] = v
  end
  return s
end


-- Sequences of some rows each, from a position on, in blocks of no order.
local function rows_of(counts, from, vocab)
  local held = { token = {}, pos = {}, start = { 0 }, block = {}, out = {} }
  for i, n in ipairs(counts) do
    for k = 0, n - 1 do
      local r = #held.pos
      held.pos[r + 1], held.token[r + 1] = from[i] + k, (r * 17 + i) % vocab
    end
    held.start[i + 1] = #held.pos
    held.out[i] = #held.pos - 1
    for k = 0, 7 do
      held.block[#held.block + 1] = (k * 7 + i * 8) % BLOCKS
    end
  end
  local arrays = {}
  for k, list in pairs(held) do
    arrays[k] = ffi.new("int32_t[?]", #list + 1, list)
  end
  return ffi.new("struct engine_rows", {
    rows = #held.pos, seqs = #counts, outs = #counts, token = arrays.token,
    pos = arrays.pos, seq_start = arrays.start, block = arrays.block,
    block_ld = 8, out_row = arrays.out,
  }), arrays
end


local function near(want, got, n, what, bound)
  for i = 0, n - 1 do
    local most = type(bound) == "number" and bound * (1 + math.abs(want[i]))
      or bound(i)
      if math.abs(want[i] - got[i]) > most or got[i] ~= got[i] then
      error(("%s: %g at %d, %g expected"):format(what, got[i], i, want[i]), 2)
    end
  end
end


-- fn on both backends; what it returns (a buffer) is compared by rows.
local function both(shape, rows, count, width, what, bound, fn)
  local got = {}
  for i, b in ipairs{ C.engine_cpu_plain, C.engine_cpu_packed } do
    local s, buffer = side(b, shape), nil
    s:step(rows, function()
      buffer = fn(s)
    end)
    got[i] = ffi.new("float[?]", count * width)
    for r = 0, count - 1 do
      ffi.copy(got[i] + r * width, s.b.read(buffer, r), 4 * width)
    end
    s:close()
  end
  near(got[1], got[2], count * width, what, bound)
end


-- What an input may add to an output's error, for each unit of its weight: a
-- rounding, and half a step of its block's scale where it becomes an integer.
local function allowed(x, n, cols, is_rounded)
  local out = ffi.new("double[?]", n * cols)
  for r = 0, n - 1 do
    for from = 0, cols - 1, 32 do
      local most, last = 0, math.min(from + 31, cols - 1)
      for k = from, last do
        most = math.max(most, math.abs(x[r * cols + k]))
      end
      for k = from, last do
        out[r * cols + k] = 4e-6 * math.abs(x[r * cols + k])
          + (is_rounded and most / 127 / 2 * 1.001 or 0)
      end
    end
  end
  return out
end


-- ---- the ops ----

describe("the packed backend's", function()
  for _, kind in ipairs(KINDS) do
    it("product is the plain one's, in " .. kind.name, function()
      for seed = 1, 6 do
        local random = weights.random(seed * 100 + kind.id)
        local cols = kind.values == 1 and 1 + random(90)
          or kind.values * (1 + random(kind.values == 32 and 4 or 2))
        local outs, n = 1 + random(70), 1 + random(33)
        local bytes = weights.matrix(kind, outs, cols, random)
        local x, bias = weights.floats(n * cols, random), weights.floats(outs, random)
        local shape = shape_of("llama", { width = cols, ff = cols })
        local rows, keep = rows_of({ n }, { 0 }, 50)
        local values = ffi.new("float[?]", outs * cols)
        for o = 0, outs - 1 do
          C.engine_quant_row(kind.id, bytes + o * cols / kind.values * kind.bytes,
                             cols, values + o * cols)
        end
        local at = random(5)
        local may = allowed(x, n, cols, kind.values > 1)
        both(shape, rows, n, outs + at, kind.name, function(i)
          local r, o, sum = math.floor(i / (outs + at)), i % (outs + at) - at, 1e-6
          for k = 0, o < 0 and -1 or cols - 1 do
            sum = sum + math.abs(values[o * cols + k]) * may[r * cols + k]
          end
          return sum
        end, function(s)
          local y, act = s:buffer(outs + at), s:buffer(cols, x, n)
          s.b.matmul(s.state, y, at, act, ffi.new("struct engine_linear",
            s:weight(kind, outs, cols, bytes), s:weight(F32, 1, outs, bias)))
          return y
        end)
        assert(keep)
      end
    end)
  end

  it("embedding is the plain one's, bit for bit", function()
    for _, kind in ipairs(KINDS) do
      local random = weights.random(kind.id)
      local cols = kind.values == 1 and 24 or kind.values
      local bytes = weights.matrix(kind, 50, cols, random)
      local rows, keep = rows_of({ 5, 1, 3 }, { 0, 0, 0 }, 50)
      both(shape_of("llama", { width = cols, embed_scale = 1.5 }), rows, 9, cols,
           kind.name, 0, function(s)
        local x = s:buffer(cols)
        s.b.embed(s.state, x, s:weight(kind, 50, cols, bytes))
        return x
      end)
      assert(keep)
    end
  end)

  it("norms are the plain one's, and add as it does", function()
    for _, width in ipairs{ 8, 31, 64, 288 } do
      local random = weights.random(width)
      local n = 3 + random(30)
      local x, add = weights.floats(n * width, random), weights.floats(n * width, random)
      local gain = weights.floats(width, random)
      local shape = shape_of("llama", { width = width, residual_scale = 0.5 })
      local rows, keep = rows_of({ n - 2, 1, 1 }, { 0, 0, 0 }, 50)
      both(shape, rows, n, width, "norm", 0, function(s)
        local act, xb = s:buffer(width), s:buffer(width, x, n)
        s.b.norm(s.state, act, xb, s:buffer(width, add, n),
                 s:weight(F32, 1, width, gain))
        s.b.norm_own(s.state, act, s:weight(F32, 1, width, gain))
        return act
      end)
      both(shape, rows, 3, width, "gather_norm", 0, function(s)
        local act, xb = s:buffer(width), s:buffer(width, x, n)
        s.b.gather_norm(s.state, act, xb, s:buffer(width, add, n),
                        s:weight(F32, 1, width, gain))
        return act
      end)
      assert(keep)
    end
  end)

  it("gated units are the plain one's", function()
    for _, arch in ipairs{ "llama", "gemma2", "gpt-oss" } do
      for _, ff in ipairs{ 1, 40, 96, 192 } do
        local random, n = weights.random(ff), 11
        local gu = weights.floats(n * 2 * ff, random, 8)
        local rows, keep = rows_of({ n }, { 0 }, 50)
        both(shape_of(arch, { ff = ff }), rows, n, ff, arch, 4e-6, function(s)
          local act = s:buffer(ff)
          s.b.glu(s.state, act, s:buffer(2 * ff, gu, n))
          return act
        end)
        assert(keep)
      end
    end
  end)

  -- Two steps: a prompt and what follows; the second is compared.
  it("attention is the plain one's", function()
    for seed = 1, 24 do
      local random = weights.random(seed)
      local share, kv = 1 + random(4), 1 + random(3)
      local dim = ({ 8, 16, 20, 48, 64, 80 })[1 + random(6)]
      local window = random(3) == 0 and 1 + random(20) or 0
      local windowed = ffi.new("unsigned char[2]", window > 0 and 1 or 0, 0)
      local shape = shape_of(({ "llama", "qwen3", "gemma3" })[1 + random(3)], {
        heads = share * kv, kv_heads = kv, head_dim = dim, rot = dim / 2 * 2,
        width = 32, ff = 32, window = window, windowed = windowed,
        score_scale = 1 / math.sqrt(dim), score_cap = random(3) == 0 and 5 or 0,
      })
      local q, width = share * kv * dim, (share + 2) * kv * dim
      local first = { 1 + random(18), 1 + random(6) }
      local second = { 1 + random(4), 1 + random(9) }
      local a, keep_a = rows_of(first, { 0, 0 }, 50)
      local b, keep_b = rows_of(second, first, 50)
      local before = weights.floats(a.rows * width, random)
      local after = weights.floats(b.rows * width, random)
      local gain = weights.floats(dim, random)
      local sinks = weights.floats(share * kv, random)
      local layer, has = random(2), random(2) == 1
      local function put(s, values, n)
        local qkv = s:buffer(width, values, n)
        local g = has and s:weight(F32, 1, dim, gain) or nil
        s.b.qkv_store(s.state, layer, qkv, g, g)
        return qkv
      end
      both(shape, b, b.rows, q, "attention", 2e-5, function(s)
        s.b.step_end(s.state, nil)
        s:step(a, function()
          put(s, before, a.rows)
        end)
        s.b.step_begin(s.state, b)
        local act, qkv = s:buffer(q), put(s, after, b.rows)
        s.b.attention(s.state, act, layer, qkv,
                      has and s:weight(F32, 1, share * kv, sinks) or nil)
        return act
      end)
      assert(keep_a and keep_b)
    end
  end)

  it("mixture is the plain one's", function()
    for seed = 1, 8 do
      local random = weights.random(seed)
      local experts, used = 3 + random(6), 1 + random(3)
      local ff, width, n = ({ 12, 32, 100 })[1 + random(3)], 20 + random(50), 1 + random(20)
      local shape = shape_of(seed % 2 == 0 and "gpt-oss" or "qwen3moe", {
        width = width, ff = ff, experts = experts, used = used, expert_scale = 1.5 })
      local function matrix(rows, cols)
        return weights.matrix(F32, rows, cols, random)
      end
      local router, gate = matrix(experts, width), matrix(experts * ff, width)
      local up, down = matrix(experts * ff, width), matrix(experts * width, ff)
      local bias = weights.floats(experts * (ff + width), random)
      local x = weights.floats(n * width, random)
      local rows, keep = rows_of({ n }, { 0 }, 50)
      both(shape, rows, n, width, "moe", 1e-4, function(s)
        local e = ffi.new("struct engine_experts")
        e.router.w = s:weight(F32, experts, width, router)
        e.gate.w = s:weight(F32, experts * ff, width, gate)
        e.up.w = s:weight(F32, experts * ff, width, up)
        e.down.w = s:weight(F32, experts * width, ff, down)
        e.gate.bias = s:weight(F32, experts, ff, bias)
        e.down.bias = s:weight(F32, experts, width, bias)
        local y = s:buffer(width)
        s.b.moe(s.state, y, s:buffer(width, x, n), e)
        return y
      end)
      assert(keep)
    end
  end)

  it("logits are scaled and capped as the plain one's", function()
    local random = weights.random(5)
    local bytes, x = weights.matrix(F32, 50, 40, random), weights.floats(4 * 40, random)
    local rows, keep = rows_of({ 2, 1, 3, 1 }, { 0, 0, 0, 0 }, 50)
    both(shape_of("llama", { width = 40, logit_scale = 3, logit_cap = 2 }), rows,
         4, 50, "logits", 1e-5, function(s)
      local y = s:buffer(50)
      s.b.logits(s.state, y, s:buffer(40, x, 4), s:weight(F32, 50, 40, bytes))
      return y
    end)
    assert(keep)
  end)
end)
