-- engine/sample: which token is drawn.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine_draw { float temperature; uint32_t top_k; float top_p; uint64_t seed, position; };
struct engine_candidate { float logit; int32_t id; };
int engine_sample(const float *logits, uint32_t count, const struct engine_draw *draw,
  struct engine_candidate *scratch, int32_t *id, drover_err *err);
double engine_sample_logprob(const float *logits, uint32_t count, int32_t id);
]]

local C = c.lib
local NAN, INF = 0 / 0, math.huge


local function draw(logits, opts, position)
  local n = #logits
  local d = ffi.new("struct engine_draw", opts.temperature or 1,
                    opts.top_k or 0, opts.top_p or 1, opts.seed or 1,
                    position or 0)
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
end)
