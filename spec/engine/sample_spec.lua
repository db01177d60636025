-- engine/sample: which token is drawn.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine_draw { float temperature; uint32_t top_k; float top_p; uint64_t seed, position;
  float min_p; };
struct engine_logprob { int32_t id; float logprob; };
struct engine_candidate { float logit; int32_t id; };
int engine_sample(const float *logits, uint32_t count, const struct engine_draw *draw,
  struct engine_candidate *scratch, int32_t *id, drover_err *err);
double engine_sample_logprob(const float *logits, uint32_t count, int32_t id);
uint32_t engine_sample_logprobs(const float *logits, uint32_t count, int32_t id,
  uint32_t top, struct engine_logprob *out);
]]

local C = c.lib
local NAN, INF = 0 / 0, math.huge


local function draw(logits, opts, position)
  local n = #logits
  local d = ffi.new("struct engine_draw", opts.temperature or 1,
                    opts.top_k or 0, opts.top_p or 1, opts.seed or 1,
                    position or 0, opts.min_p or 0)
  local id, err = ffi.new("int32_t[1]"), ffi.new("drover_err")
  local rc = C.engine_sample(ffi.new("float[?]", n, logits), n, d,
                             ffi.new("struct engine_candidate[?]", n), id, err)
  if rc ~= 0 then
    return nil, ffi.string(err.text), rc
  end
  return id[0]
end


-- How often each token is drawn in `n` positions.
local function counts(logits, opts, n)
  local seen = {}
  for position = 1, n do
    local id = draw(logits, opts, position)
    seen[id] = (seen[id] or 0) + 1
  end
  return seen
end


describe("sample", function()
  it("takes the best token at temperature 0, the lowest id of equals", function()
    assert.equal(2, draw({ 0, 1, 5, 5 }, { temperature = 0 }))
    assert.equal(0, draw({ 3, 3, 3 }, { temperature = 0 }))
    assert.equal(1, draw({ -INF, -5, -INF }, { temperature = 0 }))
    assert.equal(3, draw({ -4, -3, -2, -1 }, { temperature = 0, top_k = 1 }))
  end)

  it("refuses logits that are no numbers, and draws no index from them", function()
    for _, bad in ipairs{ { NAN, 1 }, { 1, NAN }, { NAN, NAN }, { INF, 1 },
                          { -INF, -INF } } do
      for _, opts in ipairs{ { temperature = 0 }, { temperature = 1 },
                             { temperature = 1, top_k = 1 }, { top_p = 0.5 } } do
        local id, text, code = draw(bad, opts)
        assert.is_nil(id)
        assert.equal(C.DROVER_EINTERNAL, code)
        assert.is_truthy(text:find("nan_logits"))
      end
    end
  end)

  it("draws the same for the same seed and position", function()
    local logits = { 1, 2, 3, 2, 1, 0, 1, 2 }
    for position = 0, 50 do
      local opts = { seed = 42, temperature = 2 }
      assert.equal(draw(logits, opts, position), draw(logits, opts, position))
    end
  end)

  it("draws otherwise for other seeds and positions", function()
    local logits = { 0, 0, 0, 0, 0, 0, 0, 0 }
    local by_seed, by_position = {}, {}
    for i = 1, 64 do
      by_seed[draw(logits, { seed = i })] = true
      by_position[draw(logits, {}, i)] = true
    end
    for id = 0, 7 do
      assert.is_true(by_seed[id] and by_position[id])
    end
  end)

  it("follows the softmax", function()
    local seen = counts({ 0, math.log(2), math.log(4), math.log(1) }, {}, 8000)
    for id, share in pairs{ [0] = 1, [1] = 2, [2] = 4, [3] = 1 } do
      local want = 8000 * share / 8        -- five standard deviations
      assert.is_true(math.abs(seen[id] - want) < 5 * math.sqrt(want), id)
    end
  end)

  it("is bolder at a higher temperature", function()
    local logits = { 0, 2 }
    local cold = counts(logits, { temperature = 0.5 }, 1000)[0] or 0
    local hot = counts(logits, { temperature = 4 }, 1000)[0]
    assert.is_true(cold < 60 and hot > 300)
  end)

  it("keeps the top_k best", function()
    local seen = counts({ 1, 0, 1.5, 1.2, -3 }, { top_k = 2 }, 500)
    assert.is_truthy(seen[2] and seen[3])
    assert.is_nil(seen[0] or seen[1] or seen[4])
    assert.is_truthy(counts({ 0, 0, 0 }, { top_k = 9 }, 200)[2])
  end)

  it("keeps the fewest tokens that hold top_p, one at least", function()
    local logits = { math.log(0.5), math.log(0.3), math.log(0.15), math.log(0.05) }
    local function kept(top_p, top_k)
      local n = 0
      for _ in pairs(counts(logits, { top_p = top_p, top_k = top_k }, 1500)) do
        n = n + 1
      end
      return n
    end
    assert.equal(1, kept(0.0001))
    assert.equal(1, kept(0.49))
    assert.equal(2, kept(0.6))
    assert.equal(3, kept(0.9))
    assert.equal(4, kept(1))
    assert.equal(1, kept(0.6, 2))          -- of 0.8 that top_k left, 0.625
    assert.equal(2, kept(0.7, 2))
  end)

  it("draws the filtered token that the whole would, if it was kept", function()
    local logits = { 3, 1, 2, 0, 2.5 }
    for position = 1, 200 do
      local id = draw(logits, {}, position)
      if id == 0 or id == 4 then
        assert.equal(id, draw(logits, { top_k = 2 }, position))
      end
    end
  end)

  it("gives natural log-probabilities", function()
    local row = ffi.new("float[3]", 1000, 1000 + math.log(2), 1000)
    assert.is_true(math.abs(C.engine_sample_logprob(row, 3, 1) - math.log(0.5)) < 1e-4)
    assert.is_true(math.abs(C.engine_sample_logprob(row, 3, 0) - math.log(0.25)) < 1e-4)
  end)

  it("keeps what min_p of the best has, one at least", function()
    local logits = { math.log(0.5), math.log(0.26), math.log(0.2), math.log(0.04) }
    local function kept(opts)
      local n = 0
      for _ in pairs(counts(logits, opts, 1500)) do
        n = n + 1
      end
      return n
    end
    assert.equal(1, kept{ min_p = 1 })
    assert.equal(2, kept{ min_p = 0.5 })
    assert.equal(3, kept{ min_p = 0.1 })
    assert.equal(4, kept{ min_p = 0.01 })
    assert.equal(2, kept{ min_p = 0.1, top_p = 0.7 })
    assert.equal(2, kept{ min_p = 0.5, top_k = 3 })
    assert.equal(4, kept{ min_p = 0.5, temperature = 5 })  -- behind temperature
  end)

  it("draws nothing that -infinity forbids", function()
    for _, opts in ipairs{ {}, { top_k = 5 }, { top_p = 0.99 }, { min_p = 0.01 } } do
      local seen = counts({ -INF, 1, -INF, 1, -INF }, opts, 300)
      assert.is_nil(seen[0] or seen[2] or seen[4])
      assert.is_truthy(seen[1] and seen[3])
    end
  end)

  -- Chi-square with fixed seeds: 1.6 times the degrees of freedom is far past
  -- the 0.001 quantile of 99 degrees (148.2).
  it("passes a chi-square test at 100 tokens and three temperatures", function()
    for seed, temperature in ipairs{ 0.7, 1, 1.8 } do
      local logits, weights, sum, n = {}, {}, 0, 20000
      for i = 1, 100 do
        logits[i] = 2 * math.sin(i * 12.9898)
        weights[i] = math.exp(logits[i] / temperature)
        sum = sum + weights[i]
      end
      local seen, chi = counts(logits, { seed = seed, temperature = temperature }, n), 0
      for i = 1, 100 do
        local want = n * weights[i] / sum
        chi = chi + ((seen[i - 1] or 0) - want) ^ 2 / want
      end
      assert.is_true(chi < 148.2 and chi > 50, tostring(chi))
    end
  end)

  it("gives what a filter keeps its share of the rest", function()
    local logits, sum, n = {}, 0, 8000
    for i = 1, 50 do
      logits[i] = -0.1 * i
    end
    for i = 1, 10 do
      sum = sum + math.exp(-0.1 * i)
    end
    local seen, chi = counts(logits, { top_k = 10, seed = 5 }, n), 0
    for i = 1, 10 do
      local want = n * math.exp(-0.1 * i) / sum
      chi = chi + ((seen[i - 1] or 0) - want) ^ 2 / want
    end
    assert.is_true(chi < 27.9, tostring(chi))        -- 9 degrees, 0.001
    assert.is_nil(seen[10])
  end)

  it("draws the largest of logit and noise, whatever it passes over", function()
    local n = 3000
    local row = ffi.new("float[?]", n)
    for i = 0, n - 1 do
      row[i] = 6 * math.sin(i * 78.233)
    end
    local all = ffi.new("struct engine_candidate[?]", n)
    local id, err = ffi.new("int32_t[1]"), ffi.new("drover_err")
    for position = 1, 300 do
      -- min_p and top_k that take nothing away go by other ways
      local ids = {}
      for i, f in ipairs{ { 0, 0 }, { n, 0 }, { 0, 1e-30 } } do
        local d = ffi.new("struct engine_draw", 1.3, f[1], 1, 9, position, f[2])
        assert(C.engine_sample(row, n, d, all, id, err) == 0)
        ids[i] = id[0]
      end
      assert.equal(ids[2], ids[1])
      assert.equal(ids[2], ids[3])
    end
  end)

  it("finds the best log-probabilities, the lowest of equals first", function()
    local n = 500
    local row, plain, sum = ffi.new("float[?]", n), {}, 0
    for i = 0, n - 1 do
      row[i] = math.floor(40 * math.sin(i * 3.7)) / 10
      sum = sum + math.exp(row[i])
    end
    for i = 0, n - 1 do
      plain[i + 1] = { id = i, logprob = row[i] - math.log(sum) }
    end
    table.sort(plain, function(a, b)
      if a.logprob ~= b.logprob then return a.logprob > b.logprob end
      return a.id < b.id
    end)
    for _, top in ipairs{ 0, 1, 5, 20 } do
      local out = ffi.new("struct engine_logprob[21]")
      assert.equal(top + 1, C.engine_sample_logprobs(row, n, 77, top, out))
      for i = 1, top do
        assert.equal(plain[i].id, out[i - 1].id)
        assert.is_true(math.abs(plain[i].logprob - out[i - 1].logprob) < 1e-5)
      end
      assert.equal(77, out[top].id)
    end
    local few = ffi.new("struct engine_logprob[21]")
    assert.equal(4, C.engine_sample_logprobs(row, 3, 0, 20, few))
  end)
end)
