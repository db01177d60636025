-- engine/draft: guesses at what comes next.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
uint32_t engine_draft_find(const int32_t *ids, size_t count, uint32_t most, int32_t *to);
uint32_t engine_draft_want(float gain);
float engine_draft_learn(float gain, uint32_t tried, uint32_t came);
]]

local C = c.lib


describe("guesses", function()
  it("are what followed where the last words stood before", function()
    local to = ffi.new("int32_t[8]")
    local function find(ids, most)
      local n = C.engine_draft_find(ffi.new("int32_t[?]", #ids + 1, ids), #ids, most or 8, to)
      local out = {}
      for i = 1, n do
        out[i] = to[i - 1]
      end
      return out
    end
    assert.same({ 4, 5, 1, 2, 3 }, find{ 1, 2, 3, 4, 5, 1, 2, 3 })
    assert.same({ 4, 5 }, find({ 1, 2, 3, 4, 5, 1, 2, 3 }, 2))
    assert.same({ 7, 1, 2, 3 }, find{ 1, 2, 3, 4, 1, 2, 3, 7, 1, 2, 3 })   -- the latest
    assert.same({ 3, 9, 1, 2 }, find{ 1, 2, 3, 9, 1, 2 })                  -- two words
    assert.same({ 8, 0, 5, 2, 3 }, find{ 5, 2, 3, 8, 0, 5, 2, 3 })
    assert.same({ 5 }, find{ 5, 5, 5, 5 })
    for _, ids in ipairs{ {}, { 1 }, { 1, 2 }, { 1, 1 }, { 1, 2, 3, 4, 5 } } do
      assert.same({}, find(ids))
    end
    assert.same({}, find({ 1, 2, 1, 2 }, 0))
  end)

  it("are as many as came true of late, and are tried again", function()
    assert.equal(4, C.engine_draft_want(1))
    assert.equal(8, C.engine_draft_want(4))
    local gain = 1
    for _ = 1, 8 do
      gain = C.engine_draft_learn(gain, 4, 0)
    end
    assert.is_true(gain < 0.3)
    for _ = 1, 30 do
      gain = C.engine_draft_learn(gain, 0, 0)
    end
    assert.is_true(gain > 0.3)
    for _ = 1, 20 do
      gain = C.engine_draft_learn(gain, 4, 4)
    end
    assert.is_true(gain > 3.5)
  end)
end)
