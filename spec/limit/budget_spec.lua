local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct limit_budget { uint64_t *words; uint32_t members;
                      const uint32_t *top; };
size_t limit_budget_size(uint32_t members);
void limit_budget_sent(const struct limit_budget *b, uint32_t member,
                       double now);
int limit_budget_take(const struct limit_budget *b, uint32_t milli,
                      uint32_t reserve, double now);
]]


local function budget(members)
  local size = tonumber(C.limit_budget_size(members))
  local keep = { ffi.new("uint64_t[?]", size / 8),
                 ffi.new("uint32_t[1]", members) }
  return ffi.new("struct limit_budget", keep[1], members, keep[2]), keep
end


local function sends(b, count, now, member)
  for _ = 1, count do
    C.limit_budget_sent(b, member or 0, now)
  end
end


local function takes(b, now, milli, reserve)
  local count = 0
  while C.limit_budget_take(b, milli or 200, reserve or 10, now) == 1 do
    count = count + 1
  end
  return count
end


describe("a budget", function()
  it("has its reserve when nothing was sent", function()
    local b, keep = budget(2)
    assert.equal(10, takes(b, 5))
    assert.equal(0, takes(b, 5))
    assert.equal(0, takes(b, 14.9))
    assert.equal(10, takes(b, 15))
    assert(keep)
  end)

  it("earns a retry with each five first sends of all members", function()
    local b, keep = budget(3)
    sends(b, 20, 100, 0)
    sends(b, 29, 100.5, 1)
    sends(b, 1, 101, 2)
    assert.equal(20, takes(b, 101.5))
    sends(b, 4, 102)
    assert.equal(0, takes(b, 102))
    sends(b, 1, 102)
    assert.equal(1, takes(b, 102))
    assert(keep)
  end)

  it("forgets sends and retries after ten seconds", function()
    local b, keep = budget(1)
    sends(b, 1000, 50)
    assert.equal(210, takes(b, 59.9))
    assert.equal(0, takes(b, 60))           -- the sends are gone
    assert.equal(0, takes(b, 68.9))
    assert.equal(10, takes(b, 69))          -- and so are the retries
    assert(keep)
  end)

  it("goes by another ratio and reserve when it is told to", function()
    local b, keep = budget(1)
    sends(b, 100, 1)
    assert.equal(100 * 0.5 + 3, takes(b, 1, 500, 3))
    assert.equal(0, takes(b, 1, 0, 53))
    assert.equal(1, takes(b, 1, 0, 54))
    assert(keep)
  end)

  it("sees what a process that is a second ahead has done", function()
    local b, keep = budget(1)
    assert.equal(10, takes(b, 21.01))
    assert.equal(0, takes(b, 20.99))
    assert(keep)
  end)

  it("is never passed in ten seconds of any run", function()
    local b, keep = budget(2)
    local events, x, now = {}, 4321, 0
    for _ = 1, 20000 do
      x = (x * 1103515245 + 12345) % 2147483648
      now = now + (x % 1000) / 1e5
      if x % 7 < 3 then
        C.limit_budget_sent(b, x % 2, now)
        events[#events + 1] = { now, 1, 0 }
      elseif C.limit_budget_take(b, 200, 10, now) == 1 then
        events[#events + 1] = { now, 0, 1 }
      end
    end
    -- By whole seconds, as the ring has them.
    local by_second = {}
    for _, e in ipairs(events) do
      local at = math.floor(e[1])
      local sum = by_second[at] or { 0, 0 }
      by_second[at] = { sum[1] + e[2], sum[2] + e[3] }
    end
    local retries = 0
    for last = 9, math.floor(now) do
      local first_sends, again = 0, 0
      for at = last - 9, last do
        local sum = by_second[at] or { 0, 0 }
        first_sends, again = first_sends + sum[1], again + sum[2]
      end
      assert.is_true(again <= first_sends * 0.2 + 10)
      retries = retries + again
    end
    assert.is_true(retries > 1000)
    assert(keep)
  end)
end)
