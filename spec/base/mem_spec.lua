-- base/mem: counts what lives, and fails the allocation it is told to.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
void *mem_alloc(size_t size);
void *mem_calloc(size_t count, size_t size);
void *mem_realloc(void *old, size_t size);
void mem_free(void *p);
char *mem_dup(const char *text, size_t size);
void mem_wipe(void *p, size_t size);
void mem_fail_at(long nth, int on);
long mem_asked(void);
long mem_live(void);
long mem_live_bytes(void);
]]

local C = c.lib


describe("mem", function()
  after_each(function() C.mem_fail_at(0, 0) end)

  it("gives zero bytes a pointer that may be freed", function()
    for _, p in ipairs{ C.mem_alloc(0), C.mem_calloc(0, 8), C.mem_calloc(8, 0),
                        C.mem_realloc(nil, 0) } do
      assert.is_true(p ~= nil)
      C.mem_free(p)
    end
    C.mem_free(nil)
  end)

  it("refuses a product that is past all memory", function()
    assert.is_true(C.mem_calloc(2 ^ 33, 2 ^ 33) == nil)
    assert.is_true(C.mem_dup("x", ffi.cast("size_t", -1)) == nil)
  end)

  it("copies a text and closes it", function()
    local p = C.mem_dup("abc\0def", 7)
    assert.equal("abc\0def\0", ffi.string(p, 8))
    C.mem_free(p)
    p = C.mem_dup(nil, 0)
    assert.equal("", ffi.string(p))
    C.mem_free(p)
  end)

  it("wipes", function()
    local p = ffi.new("char[8]", "secret")
    C.mem_wipe(p, 8)
    assert.equal(("\0"):rep(8), ffi.string(p, 8))
    C.mem_wipe(nil, 8)
  end)

  it("counts the blocks that live", function()
    local before = C.mem_live()
    local p = C.mem_alloc(10)
    p = C.mem_realloc(p, 1000)
    assert.equal(1, tonumber(C.mem_live() - before))
    C.mem_free(p)
    assert.equal(0, tonumber(C.mem_live() - before))
  end)

  it("counts their bytes, also of one that grew", function()
    local before = C.mem_live_bytes()
    local p = C.mem_realloc(C.mem_alloc(10), 100000)
    local more = tonumber(C.mem_live_bytes() - before)
    assert.is_true(more >= 100000 and more < 200000)
    C.mem_free(p)
    assert.equal(0, tonumber(C.mem_live_bytes() - before))
  end)

  it("fails the n-th allocation, once", function()
    C.mem_fail_at(2, 0)
    local p = C.mem_alloc(1)
    assert.is_true(C.mem_calloc(1, 1) == nil)
    local q = C.mem_realloc(p, 2)
    assert.is_true(q ~= nil)
    assert.equal(3, tonumber(C.mem_asked()))
    C.mem_free(q)
  end)

  it("fails the n-th and all after it", function()
    C.mem_fail_at(1, 1)
    assert.is_true(C.mem_alloc(1) == nil)
    assert.is_true(C.mem_dup("x", 1) == nil)
    assert.is_true(C.mem_realloc(nil, 1) == nil)
  end)

  it("leaves the old block when it cannot grow it", function()
    local p = C.mem_dup("abc", 3)
    C.mem_fail_at(1, 0)
    assert.is_true(C.mem_realloc(p, 100) == nil)
    assert.equal("abc", ffi.string(p))
    C.mem_free(p)
  end)
end)
