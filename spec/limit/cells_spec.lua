local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct limit_cells { uint64_t *at; size_t stride; const uint32_t *top; };
struct limit_row { uint32_t row, max; };
struct limit_ask { uint32_t member, tokens, count; struct limit_row of[8]; };
size_t limit_cells_stride(uint32_t members);
int limit_cells_take(const struct limit_cells *c, const struct limit_ask *ask,
                     uint64_t *sum);
int limit_cells_take_two(const struct limit_cells *c,
                         const struct limit_ask *ask, uint64_t *sum);
void limit_cells_give(const struct limit_cells *c,
                      const struct limit_ask *ask);
void limit_cells_drop(const struct limit_cells *c, uint32_t member,
                      uint32_t row, uint32_t tokens);
uint64_t limit_cells_sum(const struct limit_cells *c, uint32_t row);
void limit_cells_reclaim(const struct limit_cells *c, uint32_t member,
                         uint32_t rows);
void limit_cells_clear(const struct limit_cells *c, uint32_t member,
                       uint32_t row);
]]

local TAKEN, ROW_FULL, ALL_FULL = -1, 0, 1
local sum = ffi.new("uint64_t[1]")


local function new_cells(members, rows)
  local stride = C.limit_cells_stride(members)
  local keep = { ffi.new("uint64_t[?]", tonumber(stride) * rows),
                 ffi.new("uint32_t[1]", members) }
  return ffi.new("struct limit_cells", keep[1], stride, keep[2]), keep
end


-- rows: a list of { row, max }.
local function ask(member, tokens, rows)
  return ffi.new("struct limit_ask", member, tokens, #rows, rows)
end


local function take(cells, member, row, tokens, all_max, row_max)
  return C.limit_cells_take_two(cells, ask(member, tokens,
    { { row, row_max }, { 0, all_max } }), sum)
end


local function give(cells, member, row, tokens)
  C.limit_cells_give(cells, ask(member, tokens, { { row, 0 }, { 0, 0 } }))
end


local function on(cells, row)
  return tonumber(C.limit_cells_sum(cells, row) % 2 ^ 32)
end


describe("cells", function()
  it("lie on lines of their own, one set a row", function()
    assert.equal(8, tonumber(C.limit_cells_stride(1)))
    assert.equal(8, tonumber(C.limit_cells_stride(8)))
    assert.equal(16, tonumber(C.limit_cells_stride(9)))
    assert.equal(256, tonumber(C.limit_cells_stride(256)))
  end)

  it("admit up to the row's limit over all members", function()
    local cells, keep = new_cells(3, 4)
    for i = 0, 4 do
      assert.equal(TAKEN, take(cells, i % 3, 2, 10, 100, 5))
    end
    assert.equal(ROW_FULL, take(cells, 0, 2, 10, 100, 5))
    assert.equal(TAKEN, take(cells, 0, 3, 10, 100, 5))
    give(cells, 1, 2, 10)
    assert.equal(TAKEN, take(cells, 0, 2, 10, 100, 5))
    assert(keep)
  end)

  it("admit up to the limit of the whole", function()
    local cells, keep = new_cells(2, 4)
    assert.equal(TAKEN, take(cells, 0, 1, 0, 2, 9))
    assert.equal(TAKEN, take(cells, 1, 2, 0, 2, 9))
    assert.equal(ALL_FULL, take(cells, 0, 3, 0, 2, 9))
    assert.equal(2, tonumber(C.limit_cells_sum(cells, 0)))
    assert.equal(0, tonumber(C.limit_cells_sum(cells, 3)))
    assert(keep)
  end)

  it("count tokens beside requests, and nothing is left of either", function()
    local cells, keep = new_cells(2, 2)
    take(cells, 0, 1, 4294967295, 9, 9)
    take(cells, 1, 1, 7, 9, 9)
    assert.equal(2, tonumber(C.limit_cells_sum(cells, 1) % 2 ^ 32))
    assert.equal(2, tonumber(sum[0] % 2 ^ 32))
    give(cells, 0, 1, 4294967295)
    assert.equal(1, tonumber(C.limit_cells_sum(cells, 1) % 2 ^ 32))
    assert.equal(7, tonumber(C.limit_cells_sum(cells, 1) / 2 ^ 32))
    give(cells, 1, 1, 7)
    assert.equal(0, tonumber(C.limit_cells_sum(cells, 1)))
    assert.equal(0, tonumber(C.limit_cells_sum(cells, 0)))
    assert(keep)
  end)

  it("are all taken back from a dead member", function()
    local cells, keep = new_cells(2, 4)
    take(cells, 0, 1, 5, 9, 9)
    take(cells, 1, 1, 5, 9, 9)
    take(cells, 1, 3, 5, 9, 9)
    C.limit_cells_reclaim(cells, 1, 4)
    assert.equal(1, tonumber(C.limit_cells_sum(cells, 0) % 2 ^ 32))
    assert.equal(1, tonumber(C.limit_cells_sum(cells, 1) % 2 ^ 32))
    assert.equal(0, tonumber(C.limit_cells_sum(cells, 3)))
    assert(keep)
  end)

  it("are raised in no row when one of them is full, whichever it is", function()
    for full = 1, 7 do
      local cells, keep = new_cells(2, 8)
      local rows = {}
      for i = 1, 7 do
        rows[i] = { i, i == full and 3 or 9 }
      end
      for i = 1, 3 do
        assert.equal(TAKEN, C.limit_cells_take(cells, ask(i % 2, 5, rows), sum))
      end
      assert.equal(full - 1, C.limit_cells_take(cells, ask(1, 5, rows), sum))
      for i = 1, 7 do
        assert.equal(3, on(cells, i))
        assert.equal(15, tonumber(C.limit_cells_sum(cells, i) / 2 ^ 32))
      end
      C.limit_cells_give(cells, ask(1, 5, rows))
      assert.equal(TAKEN, C.limit_cells_take(cells, ask(0, 5, rows), sum))
      assert.equal(3, tonumber(sum[0] % 2 ^ 32))
      assert(keep)
    end
  end)

  it("are given back, and emptied, one row alone", function()
    local cells, keep = new_cells(2, 4)
    take(cells, 0, 1, 5, 9, 9)
    take(cells, 1, 1, 5, 9, 9)
    C.limit_cells_drop(cells, 0, 1, 5)
    assert.equal(1, on(cells, 1))
    assert.equal(2, on(cells, 0))
    C.limit_cells_clear(cells, 1, 1)
    assert.equal(0, tonumber(C.limit_cells_sum(cells, 1)))
    assert.equal(2, on(cells, 0))
    assert(keep)
  end)

  it("take back nothing behind the rows that are named", function()
    local cells, keep = new_cells(2, 4)
    take(cells, 1, 3, 5, 9, 9)
    C.limit_cells_reclaim(cells, 1, 3)
    assert.equal(0, on(cells, 0))
    assert.equal(1, on(cells, 3))
    assert(keep)
  end)
end)
