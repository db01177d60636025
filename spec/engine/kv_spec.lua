-- engine/kv, prefix: who holds which blocks, and what they are known to hold.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct engine_prefix_key { uint64_t salt; int32_t before; const int32_t *token; };
struct engine_prefix_block { uint64_t salt; int32_t before, next, known, token[16]; };
struct engine_prefix {
  struct engine_prefix_block *block; int32_t *slot; uint32_t slots; uint64_t secret;
};
int32_t engine_prefix_find(const struct engine_prefix *p, const struct engine_prefix_key *key);
uint64_t engine_prefix_hash(const struct engine_prefix *p, const struct engine_prefix_key *key);
struct engine_kv_link { uint32_t holders; int32_t older, newer; };
struct engine_kv {
  struct engine_kv_link *link; int32_t oldest, newest; uint32_t free, blocks;
  struct engine_prefix prefix;
};
struct engine_seat { int32_t *block; uint32_t most, held, kept; uint64_t salt; };
int engine_kv_init(struct engine_kv *kv, uint32_t blocks, uint64_t secret);
void engine_kv_deinit(struct engine_kv *kv);
uint32_t engine_kv_need(uint32_t tokens);
int engine_kv_take(struct engine_kv *kv, uint32_t count, int32_t *to);
void engine_kv_hold(struct engine_kv *kv, const int32_t *blocks, uint32_t count);
void engine_kv_give(struct engine_kv *kv, const int32_t *blocks, uint32_t count);
uint32_t engine_kv_find(const struct engine_kv *kv, uint64_t salt,
  const int32_t *ids, size_t count, int32_t *to);
long engine_seat_open(struct engine_kv *kv, struct engine_seat *s,
  const int32_t *ids, uint32_t tokens);
int engine_seat_grow(struct engine_kv *kv, struct engine_seat *s, uint32_t tokens);
void engine_seat_keep(struct engine_kv *kv, struct engine_seat *s,
  const int32_t *ids, uint32_t computed);
uint32_t engine_seat_advance(struct engine_kv *kv, struct engine_seat *s,
  const int32_t *ids, uint32_t computed, uint32_t known);
int engine_seat_fork(struct engine_kv *kv, const struct engine_seat *from,
  uint32_t computed, struct engine_seat *to, int32_t copy[2]);
void engine_seat_close(struct engine_kv *kv, struct engine_seat *s);
uint32_t engine_seat_own(const struct engine_kv *kv, const struct engine_seat *s);
]]

local C = c.lib
local anchors = setmetatable({}, { __mode = "k" })


local function pool(blocks)
  local kv = ffi.gc(ffi.new("struct engine_kv"), C.engine_kv_deinit)
  assert.equal(0, C.engine_kv_init(kv, blocks, 12345))
  return kv
end


local function seat(salt)
  local s, block = ffi.new("struct engine_seat"), ffi.new("int32_t[64]")
  s.block, s.most, s.salt = block, 64, salt or 0
  anchors[s] = block
  return s
end


-- `count` ids that go on from `from`; from `fork` on they are others.
local function ids(count, from, fork)
  local out = ffi.new("int32_t[?]", count + 1)
  for i = 0, count - 1 do
    out[i] = (from or 0) + i + (fork and i >= fork and 5000 or 0)
  end
  return out
end


-- A sequence that has computed all of its tokens.
local function computed(kv, list, count, salt)
  local s = seat(salt)
  local hit = tonumber(C.engine_seat_open(kv, s, list, count))
  assert(hit >= 0)
  C.engine_seat_keep(kv, s, list, count)
  return s, hit
end


local function blocks(s)
  local out = {}
  for i = 1, s.held do
    out[i] = s.block[i - 1]
  end
  return out
end


describe("kv", function()
  it("gives blocks out once, and takes all or none", function()
    local kv = pool(10)
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

  it("has a block free when its last holder has given it back", function()
    local kv, a = pool(2), ffi.new("int32_t[2]")
    C.engine_kv_take(kv, 1, a)
    C.engine_kv_hold(kv, a, 1)
    C.engine_kv_give(kv, a, 1)
    assert.equal(1, kv.free)
    C.engine_kv_give(kv, a, 1)
    assert.equal(2, kv.free)
    C.engine_kv_hold(kv, a, 1)
    assert.equal(1, kv.free)
  end)

  it("needs a block for each 16 tokens begun", function()
    for tokens, count in pairs{ [0] = 0, [1] = 1, [16] = 1, [17] = 2, [32] = 2 } do
      assert.equal(count, C.engine_kv_need(tokens))
    end
    assert.equal(0x10000000, C.engine_kv_need(0xffffffff))
  end)
end)


describe("a prompt's beginning", function()
  it("is found again while its sequence runs and after it", function()
    local kv, list = pool(16), ids(50)
    local first = computed(kv, list, 50)
    assert.equal(3, C.engine_kv_find(kv, 0, list, 50, nil))
    local second, hit = computed(kv, ids(60, 0, 40), 60)
    assert.equal(32, hit)
    assert.same({ first.block[0], first.block[1] },
                { second.block[0], second.block[1] })
    assert.not_equal(first.block[2], second.block[2])
    C.engine_seat_close(kv, first)
    C.engine_seat_close(kv, second)
    assert.equal(16, kv.free)
    assert.equal(3, C.engine_kv_find(kv, 0, list, 50, nil))
  end)

  it("is known in whole blocks of what is computed alone", function()
    local kv, list, s = pool(16), ids(50), seat()
    C.engine_seat_open(kv, s, list, 50)
    assert.equal(0, C.engine_kv_find(kv, 0, list, 50, nil))
    C.engine_seat_keep(kv, s, list, 31)
    assert.equal(1, C.engine_kv_find(kv, 0, list, 50, nil))
    C.engine_seat_keep(kv, s, list, 32)
    assert.equal(2, C.engine_kv_find(kv, 0, list, 50, nil))
    assert.equal(1, C.engine_kv_find(kv, 0, list, 31, nil))
    assert.equal(0, C.engine_kv_find(kv, 0, ids(50, 16), 50, nil))   -- not in the middle
  end)

  it("leaves the last token to be computed", function()
    local kv, list = pool(16), ids(48)
    computed(kv, list, 48)
    local _, hit = computed(kv, list, 48)
    assert.equal(32, hit)
    _, hit = computed(kv, ids(49), 49)
    assert.equal(48, hit)
  end)

  it("is not found under another salt", function()
    local kv, list = pool(16), ids(50)
    computed(kv, list, 50, 1)
    assert.equal(3, C.engine_kv_find(kv, 1, list, 50, nil))
    assert.equal(0, C.engine_kv_find(kv, 2, list, 50, nil))
    local s, hit = computed(kv, list, 50, 2)
    assert.equal(0, hit)
    assert.equal(3, C.engine_kv_find(kv, 2, list, 50, nil))
    assert.equal(3, s.kept)
  end)

  it("is never another's, even when all hashes are equal", function()
    local kv = pool(64)
    kv.prefix.slots = 1               -- one chain for all
    local lists = {}
    for i = 1, 6 do
      lists[i] = ids(64, i, 16 * (i % 4))
      computed(kv, lists[i], 64, i % 2)
    end
    for i = 1, 6 do
      assert.equal(4, C.engine_kv_find(kv, i % 2, lists[i], 64, nil))
      assert.equal(0, C.engine_kv_find(kv, 2, lists[i], 64, nil))
      local mixed = ids(64, i, 16 * (i % 4))
      ffi.copy(mixed, lists[(i + 1) % 6 + 1], 64)
      assert.equal(1, C.engine_kv_find(kv, i % 2, mixed, 64, nil))
    end
  end)

  it("is held once: equal blocks become one", function()
    local kv, list = pool(16), ids(40)
    local a, b = seat(), seat()
    C.engine_seat_open(kv, a, list, 40)
    C.engine_seat_open(kv, b, list, 40)
    assert.equal(10, kv.free)
    C.engine_seat_keep(kv, a, list, 40)
    C.engine_seat_keep(kv, b, list, 40)
    assert.equal(12, kv.free)
    assert.same({ a.block[0], a.block[1] }, { b.block[0], b.block[1] })
    assert.not_equal(a.block[2], b.block[2])
    assert.equal(1, C.engine_seat_own(kv, a))
    C.engine_seat_close(kv, b)
    assert.equal(3, C.engine_seat_own(kv, a))
  end)

  it("is taken over as soon as another has computed it", function()
    local kv, list = pool(16), ids(49)
    local a, b = seat(), seat()
    C.engine_seat_open(kv, a, list, 49)
    C.engine_seat_open(kv, b, list, 49)
    assert.equal(0, C.engine_seat_advance(kv, b, list, 0, 49))
    C.engine_seat_keep(kv, a, list, 32)
    assert.equal(32, C.engine_seat_advance(kv, b, list, 0, 49))
    C.engine_seat_keep(kv, a, list, 49)
    assert.equal(48, C.engine_seat_advance(kv, b, list, 32, 49))
    assert.same({ a.block[0], a.block[1], a.block[2] }, { b.block[0], b.block[1], b.block[2] })
    assert.equal(11, kv.free)
    local d = seat()
    C.engine_seat_open(kv, d, list, 16)
    assert.equal(0, C.engine_seat_advance(kv, d, list, 0, 16))   -- its last token
  end)

  it("outlives its end: the longest unused goes first, from the back", function()
    local kv, old, new = pool(6), ids(48), ids(48, 1000)
    C.engine_seat_close(kv, (computed(kv, old, 48)))
    C.engine_seat_close(kv, (computed(kv, new, 48)))
    local a = ffi.new("int32_t[6]")
    for _, want in ipairs{ { 2, 3 }, { 1, 3 }, { 0, 3 }, { 0, 2 } } do
      C.engine_kv_take(kv, 1, a)
      assert.same(want, { C.engine_kv_find(kv, 0, old, 48, nil),
                          C.engine_kv_find(kv, 0, new, 48, nil) })
    end
  end)

  it("that is used again goes later", function()
    local kv, old, new = pool(6), ids(48), ids(48, 1000)
    C.engine_seat_close(kv, (computed(kv, old, 48)))
    C.engine_seat_close(kv, (computed(kv, new, 48)))
    local s = seat()
    C.engine_seat_open(kv, s, old, 33)
    C.engine_seat_close(kv, s)
    local a = ffi.new("int32_t[6]")
    C.engine_kv_take(kv, 3, a)
    assert.same({ 2, 1 }, { C.engine_kv_find(kv, 0, old, 48, nil),
                            C.engine_kv_find(kv, 0, new, 48, nil) })
  end)

  it("fills a pool to the last block, or holds nothing", function()
    local kv, list = pool(4), ids(80)
    local s = seat()
    assert.equal(C.DROVER_EAGAIN, tonumber(C.engine_seat_open(kv, s, list, 80)))
    assert.same({ 4, 0 }, { kv.free, s.held })
    assert.equal(0, tonumber(C.engine_seat_open(kv, s, list, 60)))
    assert.equal(0, C.engine_seat_grow(kv, s, 64))
    assert.equal(C.DROVER_EAGAIN, C.engine_seat_grow(kv, s, 65))
    assert.same({ 0, 4 }, { kv.free, s.held })
  end)
end)


describe("a fork", function()
  it("shares full blocks and copies the partial one", function()
    local kv, list, to, copy = pool(16), ids(40), seat(), ffi.new("int32_t[2]")
    local from = computed(kv, list, 40)
    assert.equal(0, C.engine_seat_fork(kv, from, 40, to, copy))
    assert.same({ from.block[0], from.block[1] }, { to.block[0], to.block[1] })
    assert.same({ from.block[2], to.block[2] }, { copy[0], copy[1] })
    assert.not_equal(from.block[2], to.block[2])
    assert.equal(12, kv.free)
    C.engine_seat_close(kv, from)
    C.engine_seat_close(kv, to)
    assert.equal(16, kv.free)
  end)

  it("copies nothing at a block's end, and wants a free block for a part", function()
    local kv, list, to, copy = pool(3), ids(40), seat(), ffi.new("int32_t[2]")
    local from = computed(kv, list, 40)
    assert.equal(C.DROVER_EAGAIN, C.engine_seat_fork(kv, from, 40, to, copy))
    assert.equal(0, to.held)
    assert.equal(0, C.engine_seat_fork(kv, from, 32, to, copy))
    assert.same({ -1, -1, 2 }, { copy[0], copy[1], to.held })
  end)
end)


describe("any use of a pool", function()
  it("keeps its books", function()
    local x = 11
    local function random(n)
      x = (x * 1103515245 + 12345) % 2147483648
      return math.floor(x / 65536) % n
    end
    local kv, running, hits = pool(24), {}, 0
    for _ = 1, 4000 do
      local what = random(4)
      if what < 2 and #running < 6 then
        local n = random(70) + 2
        local list, s = ids(n, 0, 16 * random(5)), seat(random(2))
        local hit = tonumber(C.engine_seat_open(kv, s, list, n))
        if hit >= 0 then
          hits = hits + hit
          running[#running + 1] = { s, list, n, hit }
        end
      elseif what == 2 and #running > 0 then
        local r = running[random(#running) + 1]
        r[4] = C.engine_seat_advance(kv, r[1], r[2], r[4], r[3])
        r[4] = math.min(r[3], r[4] + random(40))
        C.engine_seat_keep(kv, r[1], r[2], r[4])
      elseif #running > 0 then
        local r = table.remove(running, random(#running) + 1)
        C.engine_seat_close(kv, r[1])
      end
      local held, distinct = {}, 0
      for _, r in ipairs(running) do
        for _, b in ipairs(blocks(r[1])) do
          distinct = distinct + (held[b] and 0 or 1)
          held[b] = (held[b] or 0) + 1
        end
      end
      assert.equal(24 - distinct, kv.free)
      local known = 0
      for b = 0, 23 do
        assert.equal(held[b] or 0, kv.link[b].holders)
        local p = kv.prefix.block[b]
        known = known + p.known
        if p.known == 1 and p.before >= 0 then       -- a parent outlives it
          assert.equal(1, kv.prefix.block[p.before].known)
        end
      end
    end
    assert.is_true(hits > 1000)
  end)
end)
