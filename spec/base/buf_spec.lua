-- base/buf: grows up to its cap, and appends all or nothing.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct buf { char *at; size_t size, room, cap; };
void buf_init(struct buf *b, size_t cap);
void buf_deinit(struct buf *b, int secret);
int buf_add(struct buf *b, const void *bytes, size_t size);
int buf_print(struct buf *b, const char *fmt, ...);
int buf_reserve(struct buf *b, size_t more);
void buf_drop(struct buf *b, size_t count);
void mem_fail_at(long nth, int on);
]]

local C = c.lib


local function new(cap)
  local b = ffi.gc(ffi.new("struct buf"), function(x) C.buf_deinit(x, 1) end)
  C.buf_init(b, cap)
  return b
end


local function text(b)
  return ffi.string(b.at, b.size)
end


describe("buf", function()
  it("keeps what is added, piece by piece", function()
    local b, want = new(10000), {}
    for i = 1, 300 do
      want[i] = ("<%d>"):format(i)
      assert.equal(0, C.buf_add(b, want[i], #want[i]))
    end
    assert.equal(table.concat(want), text(b))
  end)

  it("takes its cap and not one byte more", function()
    for _, cap in ipairs{ 0, 1, 127, 128, 129, 1000 } do
      local b = new(cap)
      assert.equal(0, C.buf_add(b, ("x"):rep(cap), cap))
      assert.equal(C.DROVER_ETOOLARGE, C.buf_add(b, "y", 1))
      assert.equal(C.DROVER_ETOOLARGE, C.buf_reserve(b, ffi.cast("size_t", -1)))
      assert.equal(cap, tonumber(b.size))
      assert.equal(0, C.buf_add(b, nil, 0))
    end
  end)

  it("is as it was when there is no memory", function()
    local b = new(1000)
    assert.equal(0, C.buf_add(b, "abc", 3))
    C.mem_fail_at(1, 1)
    assert.equal(C.DROVER_ENOMEM, C.buf_add(b, ("x"):rep(500), 500))
    C.mem_fail_at(0, 0)
    assert.equal("abc", text(b))
    assert.equal(0, C.buf_add(b, "d", 1))
    assert.equal("abcd", text(b))
  end)

  it("prints, and refuses what does not fit", function()
    local b = new(12)
    assert.equal(0, C.buf_print(b, "%s-%d", "a", ffi.cast("int", 7)))
    assert.equal("a-7", text(b))
    assert.equal(C.DROVER_ETOOLARGE, C.buf_print(b, "%s", "0123456789"))
    assert.equal("a-7", text(b))
  end)

  it("drops bytes off the front", function()
    local b = new(100)
    C.buf_add(b, "abcdef", 6)
    C.buf_drop(b, 2)
    assert.equal("cdef", text(b))
    C.buf_drop(b, 0)
    assert.equal("cdef", text(b))
    C.buf_drop(b, 100)
    assert.equal(0, tonumber(b.size))
  end)

  it("is empty and of use again after deinit", function()
    local b = new(100)
    C.buf_add(b, "secret", 6)
    C.buf_deinit(b, 1)
    assert.is_true(b.at == nil)
    assert.equal(0, C.buf_add(b, "x", 1))
    assert.equal("x", text(b))
  end)
end)
