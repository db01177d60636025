-- net/timers: against a plain list, over many random steps.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct net_timer { int64_t at_ns; size_t slot; };
struct net_timers { struct net_timer **heap; size_t count, room; };
void net_timers_deinit(struct net_timers *t);
int net_timers_set(struct net_timers *t, struct net_timer *timer, int64_t at_ns);
void net_timers_drop(struct net_timers *t, struct net_timer *timer);
struct net_timer *net_timers_first(const struct net_timers *t);
]]

local C = c.lib


describe("the heap of timers", function()
  it("has the earliest on top, whatever is set, moved and dropped", function()
    math.randomseed(7)
    local count = 200
    local timers = ffi.new("struct net_timer[?]", count)
    local heap = ffi.new("struct net_timers")
    local set = {}
    for _ = 1, 20000 do
      local i = math.random(0, count - 1)
      if math.random() < 0.3 then
        C.net_timers_drop(heap, timers + i)
        set[i] = nil
      else
        set[i] = math.random(1000)
        assert.equal(0, C.net_timers_set(heap, timers + i, set[i]))
      end
      local least
      for _, at in pairs(set) do
        least = math.min(least or at, at)
      end
      local first = C.net_timers_first(heap)
      assert(first == nil and least == nil or tonumber(first.at_ns) == least)
    end
    C.net_timers_deinit(heap)
  end)
end)
