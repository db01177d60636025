local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

c.cdef[[
struct member_table { uint64_t *words; uint32_t count; uint32_t *top; };
uint64_t member_self(void);
int member_alive(uint64_t word, uint64_t self);
int member_claim(const struct member_table *t, uint64_t self);
void member_leave(const struct member_table *t, int slot);
int member_reap(const struct member_table *t, uint64_t self, uint32_t from);
uint32_t member_count(const struct member_table *t);
int member_lock(uint64_t *word, uint64_t self);
void member_unlock(uint64_t *word);
int sched_yield(void);
void *mmap(void *, size_t, int, int, int, long);
]]


-- A table in memory that children share.
local function new_table(count)
  local map = ffi.C.mmap(nil, 4096, 3, 0x21, -1, 0)     -- RW, SHARED | ANON
  local words = ffi.cast("uint64_t *", map)
  local top = ffi.cast("uint32_t *", words + 500)
  return ffi.new("struct member_table", words, count, top), words
end


local function word_of_dead_child()
  local _, words = new_table(1)
  router.child(function() words[0] = C.member_self() end)
  assert(words[0] ~= 0)
  return words[0]
end


describe("a member", function()
  it("takes the first free slot, and several of one process differ", function()
    local t = new_table(3)
    local self = C.member_self()
    assert.equal(0, C.member_claim(t, self))
    assert.equal(1, C.member_claim(t, self))
    C.member_leave(t, 0)
    assert.equal(0, C.member_claim(t, self))
    assert.equal(2, C.member_claim(t, self))
    assert.equal(C.DROVER_ERESOURCE, C.member_claim(t, self))
    assert.equal(3, C.member_count(t))
    assert.equal(3, t.top[0])
  end)

  it("is alive while its process runs and dead afterwards", function()
    local self = C.member_self()
    assert.equal(1, C.member_alive(self, self))
    assert.equal(0, C.member_alive(word_of_dead_child(), self))
  end)

  it("is dead when its pid has another start time by now", function()
    local self = C.member_self()
    local other = self + bit.lshift(1ULL, 24)           -- started a tick later
    assert.equal(0, C.member_alive(other, self))
    local t, words = new_table(2)
    words[0] = self - bit.lshift(1ULL, 24)              -- our pid, an earlier life
    t.top[0] = 1
    assert.equal(0, C.member_reap(t, self, 0))
  end)

  it("is dead as a zombie that nobody has waited for", function()
    local t = new_table(1)
    local pid = ffi.C.fork()
    if pid == 0 then
      C.member_claim(t, C.member_self())
      ffi.C._exit(0)
    end
    local self, slot = C.member_self(), -1
    while slot < 0 do
      ffi.C.sched_yield()
      slot = C.member_reap(t, self, 0)
    end
    assert.equal(0, slot)
    ffi.C.waitpid(pid, nil, 0)
  end)

  it("is reaped once, and the slot is free after that", function()
    local t, words = new_table(4)
    router.child(function() C.member_claim(t, C.member_self()) end)
    local self = C.member_self()
    assert.equal(0, C.member_reap(t, self, 0))
    assert.equal(-1, C.member_reap(t, self, 0))         -- ours already
    router.child(function()                             -- we live: not theirs
      assert(C.member_reap(t, C.member_self(), 0) == -1)
    end)
    C.member_leave(t, 0)
    assert.is_true(words[0] == 0)
  end)

  it("is reaped by the next one when its reaper died", function()
    local t = new_table(4)
    router.child(function() C.member_claim(t, C.member_self()) end)
    assert.equal(0, router.child(function()
      return C.member_reap(t, C.member_self(), 0)
    end))
    assert.equal(0, C.member_reap(t, C.member_self(), 0))
  end)

  it("cannot keep a lock when it is dead", function()
    local _, words = new_table(1)
    local self = C.member_self()
    assert.equal(1, C.member_lock(words, self))
    assert.equal(0, C.member_lock(words, self))         -- held by a live one
    C.member_unlock(words)
    router.child(function() C.member_lock(words, C.member_self()) end)
    assert.is_true(words[0] ~= 0)
    assert.equal(1, C.member_lock(words, self))
  end)
end)
