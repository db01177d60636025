-- engine/sched, kv: who steps next, without a model.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine_sched_limits { uint32_t seqs, rows, chunk, free_blocks; };
struct engine_sched_seq { uint32_t known, computed, blocks; int running; uint32_t rows; };
uint32_t engine_sched_plan(const struct engine_sched_limits *limits,
  struct engine_sched_seq *seqs, uint32_t count);
struct engine_kv { int32_t *spare; uint32_t free, blocks; };
int engine_kv_init(struct engine_kv *kv, uint32_t blocks);
void engine_kv_deinit(struct engine_kv *kv);
uint32_t engine_kv_need(uint32_t tokens);
int engine_kv_take(struct engine_kv *kv, uint32_t count, int32_t *to);
void engine_kv_give(struct engine_kv *kv, const int32_t *blocks, uint32_t count);
]]

local C = c.lib


-- seqs: { known, computed, blocks, running }. Returns the rows of each (or
-- "-" for one that waits) and their sum.
local function plan(limits, seqs)
  local l = ffi.new("struct engine_sched_limits", limits.seqs or 4,
                    limits.rows or 32, limits.chunk or 8, limits.free or 100)
  local list = ffi.new("struct engine_sched_seq[?]", #seqs + 1)
  for i, s in ipairs(seqs) do
    list[i - 1] = ffi.new("struct engine_sched_seq", s[1], s[2], s[3] or 1, s[4] or 0)
  end
  local all = C.engine_sched_plan(l, list, #seqs)
  local out = {}
  for i = 1, #seqs do
    out[i] = list[i - 1].running == 1 and list[i - 1].rows or "-"
  end
  return out, all
end


describe("sched", function()
  it("does nothing when there is nothing", function()
    assert.same({}, (plan({}, {})))
  end)

  it("gives a lone prompt the whole step", function()
    assert.same({ 32 }, (plan({}, { { 100, 0 } })))
    assert.same({ 4 }, (plan({}, { { 100, 96, 1, 1 } })))
  end)

  it("steps all that decode, and prompts in chunks beside them", function()
    local rows, all = plan({}, { { 50, 49, 1, 1 }, { 100, 0, 1, 1 },
                                 { 9, 8, 1, 1 }, { 20, 0 } })
    assert.same({ 1, 8, 1, 8 }, rows)
    assert.equal(18, all)
  end)

  it("never passes the rows of a step", function()
    local rows, all = plan({ rows = 10 }, { { 5, 4, 1, 1 }, { 100, 0, 1, 1 },
                                            { 100, 0, 1, 1 } })
    assert.same({ 1, 8, 1 }, rows)
    assert.equal(10, all)
  end)

  it("lets new ones join while others run, up to the batch", function()
    assert.same({ 1, 1, 1, 1, "-" }, (plan({}, {
      { 5, 4, 1, 1 }, { 7, 6, 1, 1 }, { 1, 0 }, { 1, 0 }, { 1, 0 } })))
  end)

  it("lets one wait whose blocks are not free, and overtakes nobody", function()
    assert.same({ 1, "-", "-" }, (plan({ free = 3 }, {
      { 5, 4, 9, 1 }, { 40, 0, 4 }, { 2, 0, 1 } })))
    assert.same({ 1, 8, "-" }, (plan({ free = 4 }, {
      { 5, 4, 9, 1 }, { 40, 0, 4 }, { 2, 0, 1 } })))
  end)

  it("plans nothing for what can never run", function()
    local rows, all = plan({ free = 3 }, { { 40, 0, 4 } })
    assert.same({ "-" }, rows)
    assert.equal(0, all)
  end)

  it("finishes any mix, and each in the order of its arrival", function()
    local x = 7
    local function random(n)
      x = (x * 1103515245 + 12345) % 2147483648
      return math.floor(x / 65536) % n + 1
    end
    for _ = 1, 50 do
      local seqs, free, turns = {}, 20, 0
      for i = 1, random(12) do
        local prompt, reply = random(60), random(20)
        seqs[i] = { prompt, 0, C.engine_kv_need(prompt + reply), 0,
                    left = reply, id = i }
      end
      local last = 0
      while #seqs > 0 do
        local rows, all = plan({ rows = 16, free = free }, seqs)
        assert.is_true(all > 0 and all <= 16)
        local kept = {}
        for i, s in ipairs(seqs) do
          if rows[i] ~= "-" and s[4] == 0 then
            assert.is_true(s.id > last)
            last, s[4], free = s.id, 1, free - s[3]
          end
          s[2] = s[2] + (rows[i] ~= "-" and rows[i] or 0)
          if s[2] == s[1] then
            s[1], s.left = s[1] + 1, s.left - 1
          end
          if s.left > 0 then
            kept[#kept + 1] = s
          else
            free = free + s[3]
          end
        end
        seqs, turns = kept, turns + 1
        assert.is_true(free >= 0 and turns < 10000)
      end
      assert.equal(20, free)
    end
  end)
end)


describe("kv", function()
  it("gives blocks out once, and takes all or none", function()
    local kv = ffi.gc(ffi.new("struct engine_kv"), C.engine_kv_deinit)
    assert.equal(0, C.engine_kv_init(kv, 10))
    local a, b, seen = ffi.new("int32_t[10]"), ffi.new("int32_t[10]"), {}
    assert.equal(0, C.engine_kv_take(kv, 6, a))
    assert.equal(C.DROVER_EAGAIN, C.engine_kv_take(kv, 5, b))
    assert.equal(4, kv.free)
    assert.equal(0, C.engine_kv_take(kv, 4, b))
    for i = 0, 5 do seen[a[i]] = true end
    for i = 0, 3 do seen[b[i]] = true end
    for i = 0, 9 do assert.is_true(seen[i]) end
    C.engine_kv_give(kv, a, 6)
    assert.equal(6, kv.free)
    assert.equal(0, C.engine_kv_take(kv, 0, a))
  end)

  it("needs a block for each 16 tokens begun", function()
    for tokens, blocks in pairs{ [0] = 0, [1] = 1, [16] = 1, [17] = 2, [32] = 2 } do
      assert.equal(blocks, C.engine_kv_need(tokens))
    end
    assert.equal(0x10000000, C.engine_kv_need(0xffffffff))
  end)
end)
