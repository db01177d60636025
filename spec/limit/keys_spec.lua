local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct limit_cells { uint64_t *at; size_t stride; const uint32_t *top; };
]]
c.cdef[[
struct limit_row { uint32_t row, max; };
struct limit_ask { uint32_t member, tokens, count; struct limit_row of[8]; };
]]
c.cdef[[
struct limit_spend { uint64_t hours[26], days[32], spare[6]; };
]]
c.cdef[[
int limit_cells_take(const struct limit_cells *c, const struct limit_ask *ask,
                     uint64_t *sum);
void limit_spend_add(struct limit_spend *s, unsigned rings, uint32_t hour,
                     int64_t micro);
uint64_t member_self(void);

struct limit_at { uint64_t tag; uint32_t place; int word; };
struct limit_rate { uint32_t rate, unit, burst; };
struct limit_name {
  int64_t tat[2];
  uint64_t asked, share;
  uint32_t has_cells, has_dollars, under, spare[5];
};
struct limit_keys {
  uint64_t *tags;
  struct limit_name *names;
  struct limit_spend *spend;
  uint64_t *locks;
  struct limit_cells cells;
  const uint64_t *base;
  uint32_t first_row, mask;
};
size_t limit_keys_places(uint32_t names);
uint64_t limit_keys_tag(uint32_t scope, uint64_t name);
uint32_t limit_keys_seek(const struct limit_keys *k, uint64_t tag);
uint32_t limit_keys_find(const struct limit_keys *k, uint64_t tag,
                         uint64_t self, double now);
int limit_keys_holds(const struct limit_keys *k, uint32_t place, uint64_t tag);
struct limit_step { int64_t was, to; };
int64_t limit_keys_take(const struct limit_keys *k, struct limit_at at,
                        const struct limit_rate *r, int64_t cost, int64_t now,
                        struct limit_step *step);
void limit_keys_undo(const struct limit_keys *k, struct limit_at at,
                     const struct limit_step *step);
int64_t limit_keys_charge(const struct limit_keys *k, struct limit_at at,
                          int64_t cost, int64_t now);
void limit_keys_give(const struct limit_keys *k, struct limit_at at,
                     int64_t ns);
void limit_keys_ask(const struct limit_keys *k, uint32_t place, uint64_t tag);
uint32_t limit_keys_share(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, double now);
void limit_keys_set_share(const struct limit_keys *k, uint32_t place,
                          uint64_t tag, float share, double until);
uint32_t limit_keys_parts(float share);
void limit_keys_scale(const struct limit_keys *k, uint32_t place,
                      uint32_t parts, double now);
uint64_t limit_keys_asked(const struct limit_keys *k, uint32_t place,
                          double *asked);
uint32_t limit_keys_count(const struct limit_keys *k);
]]

local NOWHERE, MOVED, ALL = 4294967295, -1, 65536
local TENANT = C.DROVER_SCOPE_TENANT
local SECOND = 1000000000LL
local ONE = ffi.new("struct limit_rate", 60, 1, 1)          -- one a second
local FIFTY = ffi.new("struct limit_rate", 3000, 1, 50)
local self = C.member_self()
local alive                         -- what the last table points to


local function new_keys(names)
  local places = tonumber(C.limit_keys_places(names))
  local keep = {
    tags = ffi.new("uint64_t[?]", places),
    names = ffi.new("struct limit_name[?]", places),
    spend = ffi.new("struct limit_spend[?]", places),
    locks = ffi.new("uint64_t[?]", places / 4),
    cells = ffi.new("uint64_t[?]", (places + 1) * 8),
    top = ffi.new("uint32_t[1]", 1), base = ffi.new("uint64_t[1]"),
  }
  local k = ffi.new("struct limit_keys", {
    tags = keep.tags, names = keep.names, spend = keep.spend,
    locks = keep.locks, base = keep.base, first_row = 1,
    mask = places / 8 - 2,
    cells = { at = keep.cells, stride = 8, top = keep.top },
  })
  alive = keep
  return k, alive, places
end


local function tag(name, scope)
  return C.limit_keys_tag(scope or TENANT, name)
end


local function find(k, name, now)
  return C.limit_keys_find(k, tag(name), self, now or 100)
end


local function at(k, name, word)
  return ffi.new("struct limit_at", tag(name), find(k, name), word or 0)
end


describe("a tag", function()
  it("says its scope and has room for a lock", function()
    for scope = 0, 4 do
      for name = 0, 50 do
        local t = tag(name, scope)
        assert.equal(0, tonumber(t % 2))
        assert.equal(scope, tonumber(t / 2 % 8))
        assert.is_true(t ~= 0)
      end
    end
  end)

  it("differs from those of other names", function()
    local seen, same = {}, 0
    for i = 1, 100000 do
      local t = tostring(tag(i * 16))
      same = same + (seen[t] and 1 or 0)
      seen[t] = true
    end
    assert.equal(0, same)
  end)
end)


describe("the table of names", function()
  it("finds a name where it was put", function()
    local k = new_keys(64)
    assert.equal(NOWHERE, C.limit_keys_seek(k, tag(7)))
    local place = find(k, 7)
    assert.is_true(place >= 8)
    assert.equal(place, find(k, 7))
    assert.equal(place, C.limit_keys_seek(k, tag(7)))
    assert.are_not.equal(place, C.limit_keys_find(k, tag(7, 2), self, 1))
    assert.equal(2, C.limit_keys_count(k))
  end)

  it("keeps a place for the router, that no other name gets", function()
    local k = new_keys(4)
    for i = 1, 200 do
      assert.are_not.equal(0, find(k, i))
    end
    assert.equal(0, C.limit_keys_find(k, tag(0, 0), self, 100))
  end)

  it("holds as many as it was made for", function()
    local k, keep = new_keys(16384)
    for i = 1, 16384 do
      local place = find(k, i)
      assert(place ~= NOWHERE)
      keep.names[place].tat[0] = 1000 * SECOND
    end
    for i = 1, 16384 do
      assert(C.limit_keys_seek(k, tag(i)) ~= NOWHERE)
    end
  end)

  it("takes no new name when all are busy, and resets none", function()
    local k, keep, places = new_keys(16)
    local known = {}
    for i = 1, 400 do
      local place = find(k, i)
      if place ~= NOWHERE then
        known[i] = place
        keep.names[place].tat[i % 2] = 1000 * SECOND + i
      end
    end
    assert.equal(places - 8, C.limit_keys_count(k))
    for i, place in pairs(known) do
      assert.equal(place, C.limit_keys_seek(k, tag(i)))
      assert.equal(1000 * SECOND + i, keep.names[place].tat[i % 2])
    end
  end)

  it("forgets who is idle, not before", function()
    local k, keep, places = new_keys(4)               -- one set
    for i = 1, 8 do
      keep.names[find(k, i)].tat[i % 2] = 100 * SECOND
    end
    assert.equal(16, places)
    assert.equal(NOWHERE, find(k, 99, 100))
    assert.equal(NOWHERE, find(k, 99, 100.049))       -- clocks may differ
    assert.are_not.equal(NOWHERE, find(k, 99, 100.051))
    assert.are_not.equal(NOWHERE, C.limit_keys_seek(k, tag(99)))
    assert.equal(8, C.limit_keys_count(k))
  end)

  it("does not forget who has something in flight, or spent dollars", function()
    local k, keep = new_keys(4)
    local sum = ffi.new("uint64_t[1]")
    for i = 1, 8 do
      local place = find(k, i)
      if i == 3 then
        keep.names[place].has_cells = 1
        C.limit_cells_take(k.cells, ffi.new("struct limit_ask", 0, 0, 1,
                                            { { 1 + place, 5 } }), sum)
      elseif i == 5 then
        keep.names[place].has_dollars = 1
        C.limit_spend_add(k.spend[place], 3, 0, 1)
      end
    end
    for i = 100, 300 do
      find(k, i, 100)
    end
    assert.are_not.equal(NOWHERE, C.limit_keys_seek(k, tag(3)))
    assert.are_not.equal(NOWHERE, C.limit_keys_seek(k, tag(5)))
    assert.equal(NOWHERE, C.limit_keys_seek(k, tag(4)))
  end)

  it("keeps a busy name through a flood of a million", function()
    local k = new_keys(256)
    local busy = at(k, 1)
    local refused, taken = 0, 1
    assert.equal(0LL, C.limit_keys_take(k, busy, FIFTY, SECOND / 50,
                                        100 * SECOND, nil))
    for i = 1, 1e6 do
      C.limit_keys_find(k, tag(i + 1000), self, 100 + i * 1e-5)
      if i % 1000 == 0 then                -- 100 a second; 50 pass
        local now = 100 * SECOND + i * 10000LL
        local wait = C.limit_keys_take(k, busy, FIFTY, SECOND / 50, now, nil)
        refused = refused + (wait > 0 and 1 or 0)
        taken = taken + (wait == 0 and 1 or 0)
      end
    end
    assert.equal(busy.place, C.limit_keys_seek(k, busy.tag))
    assert.is_true(taken <= 10 * 50 + 50)
    assert.is_true(taken >= 10 * 50)
    assert.equal(1001, taken + refused)
  end)
end)


describe("a booking that is undone", function()
  local step = ffi.new("struct limit_step")

  it("leaves nothing behind", function()
    local k, keep = new_keys(4)
    local a = at(k, 1)
    C.limit_keys_take(k, a, FIFTY, 5, 7 * SECOND, nil)
    C.limit_keys_take(k, a, FIFTY, 9, 7 * SECOND, step)
    C.limit_keys_undo(k, a, step)
    assert.equal(7 * SECOND + 5, keep.names[a.place].tat[0])
  end)

  it("stays when somebody has booked since, who waited for it", function()
    local k, keep = new_keys(4)
    local a = at(k, 1)
    C.limit_keys_take(k, a, ONE, SECOND, 7 * SECOND, step)
    C.limit_keys_take(k, a, ONE, SECOND, 9 * SECOND, nil)
    C.limit_keys_undo(k, a, step)
    assert.equal(10 * SECOND, keep.names[a.place].tat[0])
  end)
end)


describe("an evictor that died", function()
  it("keeps no name from its user", function()
    local k, keep = new_keys(4)
    local a = at(k, 1)
    keep.tags[a.place] = a.tag + 1
    assert.equal(a.place, C.limit_keys_seek(k, a.tag))
    assert.equal(0LL, C.limit_keys_take(k, a, ONE, SECOND, 0, nil))
    assert.equal(a.tag, keep.tags[a.place])
  end)

  it("keeps no place from the next", function()
    local k, keep = new_keys(4)
    for i = 1, 8 do
      local place = find(k, i)
      keep.tags[place] = keep.tags[place] + 1
    end
    for i = 11, 18 do
      assert.are_not.equal(NOWHERE, find(k, i))
    end
    assert.equal(8, C.limit_keys_count(k))
  end)

  it("or inserter keeps no lock", function()
    local k, keep = new_keys(4)
    -- A process that is no more: pid 4194303, started at 1.
    local dead = ffi.cast("uint64_t", bit.lshift(1ULL, 24)) + 4194303 * 4 + 1
    for i = 0, 3 do
      keep.locks[i] = dead
    end
    assert.are_not.equal(NOWHERE, find(k, 1))
    for i = 2, 20 do
      assert.are_not.equal(NOWHERE, find(k, i))
    end
  end)
end)


describe("a place that went to another name", function()
  local k, keep, a

  before_each(function()
    k, keep = new_keys(4)
    a = at(k, 1)
    keep.tags[a.place] = tag(2)
    keep.names[a.place].tat[0] = 500 * SECOND
  end)

  it("is left as it was by a taking", function()
    assert.equal(0, C.limit_keys_holds(k, a.place, a.tag))
    assert.equal(MOVED, tonumber(C.limit_keys_take(k, a, ONE, 5, 500 * SECOND, nil)))
    assert.equal(500 * SECOND, keep.names[a.place].tat[0])
  end)

  it("is left as it was by a debt", function()
    assert.equal(MOVED, tonumber(C.limit_keys_charge(k, a, 5, 600 * SECOND)))
    assert.equal(500 * SECOND, keep.names[a.place].tat[0])
  end)

  it("is left as it was by what is given back", function()
    C.limit_keys_give(k, a, SECOND)
    assert.equal(500 * SECOND, keep.names[a.place].tat[0])
    keep.tags[a.place] = a.tag
    C.limit_keys_give(k, a, SECOND)
    assert.equal(499 * SECOND, keep.names[a.place].tat[0])
  end)
end)


describe("a shared rate", function()
  local k, keep, a
  local asked = ffi.new("double[1]")

  before_each(function()
    k, keep = new_keys(4)
    a = at(k, 1)
  end)

  local function share(now)
    return C.limit_keys_share(k, a.place, a.tag, now or 10)
  end

  it("is whole before any share is set", function()
    assert.equal(ALL, share())
    C.limit_keys_set_share(k, a.place, a.tag, 0.25, 20)
    assert.equal(ALL, share())
  end)

  it("has the part that all have, and its own on top for its time", function()
    keep.base[0] = 1 + ALL / 4
    assert.equal(ALL / 4, share())
    C.limit_keys_set_share(k, a.place, a.tag, 0.5, 20)
    assert.equal(ALL * 3 / 4, share(19))
    assert.equal(ALL * 3 / 4, share(20))
    assert.equal(ALL / 4, share(20.1))
    C.limit_keys_set_share(k, a.place, a.tag, 1, 20)
    assert.equal(ALL, share())
    keep.base[0] = 1
    C.limit_keys_set_share(k, a.place, a.tag, 0, 20)
    assert.equal(1, share())
  end)

  it("does not pass to the place's next name", function()
    keep.base[0] = 1 + ALL / 4
    C.limit_keys_set_share(k, a.place, a.tag, 0.5, 20)
    C.limit_keys_ask(k, a.place, a.tag)
    local other = tag(12345)
    keep.tags[a.place] = other
    assert.equal(ALL / 4, C.limit_keys_share(k, a.place, other, 10))
    assert.equal(0, tonumber(C.limit_keys_asked(k, a.place, asked)))
    C.limit_keys_ask(k, a.place, other)
    assert.equal(other, C.limit_keys_asked(k, a.place, asked))
    assert.equal(1, asked[0])
  end)

  it("counts who asked", function()
    assert.equal(0, tonumber(C.limit_keys_asked(k, a.place, asked)))
    for _ = 1, 5 do
      C.limit_keys_ask(k, a.place, a.tag)
    end
    assert.equal(a.tag, C.limit_keys_asked(k, a.place, asked))
    assert.equal(5, asked[0])
  end)

  it("is read from any number", function()
    for value, parts in pairs{ [0] = 0, [-1] = 0, [0.5] = ALL / 2, [1] = ALL,
                               [7] = ALL } do
      assert.equal(parts, C.limit_keys_parts(value))
    end
    assert.equal(0, C.limit_keys_parts(0 / 0))
  end)

  it("keeps what is owed when the part changes", function()
    local name = keep.names[a.place]
    name.tat[0], name.tat[1] = 14 * SECOND, 5 * SECOND
    C.limit_keys_scale(k, a.place, ALL / 4, 10)
    assert.equal(26 * SECOND, name.tat[0])
    assert.equal(5 * SECOND, name.tat[1])
    C.limit_keys_scale(k, a.place, ALL / 4, 10)
    assert.equal(26 * SECOND, name.tat[0])
    C.limit_keys_scale(k, a.place, ALL, 18)
    assert.equal(20 * SECOND, name.tat[0])
  end)
end)
