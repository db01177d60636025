local ffi = require "ffi"
local c = require "spec.support.c"
require "spec.support.router"                 -- declares getpid
local C = c.lib

c.cdef[[
struct zone { uint64_t magic, stamp, size, id, salt, count, offset[12]; };
int zone_make(struct zone **out, uint64_t stamp, const size_t *sizes, int count,
              drover_err *err);
int zone_publish(struct zone **z, const char *name, drover_err *err);
int zone_find(struct zone **out, const char *name, uint64_t stamp, int *maker,
              drover_err *err);
void *zone_span(struct zone *z, int index);
void zone_drop(struct zone *z);
]]

local err = ffi.new("drover_err")
local maker = ffi.new("int[1]")


local function make(stamp, ...)
  local sizes = { ... }
  local out = ffi.new("struct zone *[1]")
  local rc = C.zone_make(out, stamp, ffi.new("size_t[?]", #sizes, sizes), #sizes,
                         err)
  assert.equal(0, rc)
  return out
end


describe("a zone", function()
  it("has its spans apart, aligned and zero", function()
    local z = make(7, 100, 1, 5000)
    local last = 0
    for i, size in ipairs{ 100, 1, 5000 } do
      local at = ffi.cast("uint8_t *", C.zone_span(z[0], i - 1))
      local offset = tonumber(at - ffi.cast("uint8_t *", z[0]))
      assert.equal(0, offset % 64)
      assert.is_true(offset >= last)
      for j = 0, size - 1 do
        assert(at[j] == 0)
        at[j] = 255
      end
      last = offset + size
    end
    assert.is_true(tonumber(z[0].size) >= last)
    C.zone_drop(z[0])
  end)

  it("is found again by its name, with who made it", function()
    local z = make(7, 64)
    local mine = z[0]
    assert.equal(0, C.zone_publish(z, "zone_spec.a", err))
    assert.is_true(z[0] == mine)
    local found = ffi.new("struct zone *[1]")
    assert.equal(0, C.zone_find(found, "zone_spec.a", 7, maker, err))
    assert.is_true(found[0] == mine)
    assert.equal(ffi.C.getpid(), maker[0])
  end)

  it("stays the first one's when two publish a name", function()
    local first, second = make(7, 64), make(7, 64)
    C.zone_publish(first, "zone_spec.b", err)
    assert.equal(0, C.zone_publish(second, "zone_spec.b", err))
    assert.is_true(first[0] == second[0])
  end)

  it("is refused when another layout asks for it", function()
    local z = make(7, 64)
    C.zone_publish(z, "zone_spec.c", err)
    local found = ffi.new("struct zone *[1]")
    assert.equal(C.DROVER_EFORMAT,
                 C.zone_find(found, "zone_spec.c", 8, maker, err))
    assert.matches("another build", ffi.string(err.text))
  end)

  it("is refused when its first line is damaged", function()
    local z = make(7, 64)
    C.zone_publish(z, "zone_spec.d", err)
    z[0].magic = 1
    local found = ffi.new("struct zone *[1]")
    assert.equal(C.DROVER_EFORMAT,
                 C.zone_find(found, "zone_spec.d", 7, maker, err))
  end)

  it("is not found when nobody made it", function()
    local found = ffi.new("struct zone *[1]")
    assert.equal(C.DROVER_ENOTFOUND,
                 C.zone_find(found, "zone_spec.none", 7, maker, err))
  end)

  it("has an id and a salt of its own", function()
    local a, b = make(7, 64), make(7, 64)
    assert.is_true(a[0].id ~= b[0].id and a[0].salt ~= b[0].salt)
    C.zone_drop(a[0])
    C.zone_drop(b[0])
  end)

  it("refuses a size that overflows", function()
    local out = ffi.new("struct zone *[1]")
    local sizes = ffi.new("size_t[2]", -1ULL, 64)
    assert.equal(C.DROVER_ETOOLARGE, C.zone_make(out, 7, sizes, 2, err))
  end)
end)
