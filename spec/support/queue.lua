-- A queue of src/limit/queue.h for specs: entries by name, and rows as a spec
-- says. `shut[model]`, `full` and `rooms` (how many may be called at once)
-- decide whether there is a row; it is the entry's `only`, or 1.
local ffi = require "ffi"
local c = require "spec.support.c"
local C = c.lib

c.cdef[[
struct queue_entry {
  uint64_t word, tenant, model, cause;
  double ready_at, deadline;
  uint16_t priority, wants;
  uint32_t tokens, mark, seen_any, seen_tenant, seen_model;
  uint64_t tag, seq, bell, token;
  double called_at, rung_at;
  uint16_t only, row, scope, kind;
};
struct limit_queue { uint32_t *shared; struct queue_entry *entries;
                     void *groups; uint32_t max, room, mask; };
struct queue_ask {
  uint64_t tenant, model, bell, token;
  double deadline, wait;
  uint32_t priority, tokens, only, hold, member, scope, kind;
};
struct queue_place { uint32_t place, serial, member; };
struct queue_look {
  uint32_t (*row)(void *arg, const struct queue_entry *e);
  void (*ring)(void *arg, const struct queue_entry *e);
  void *arg;
  uint32_t *called;
  uint32_t rows;
};
struct queue_ahead {
  uint32_t row;
  double now;
  int (*takes)(void *arg, uint64_t model);
  void *arg;
  uint32_t called, called_row, kept, scope, kind;
  double wait;
};
size_t limit_queue_size(uint32_t max);
struct limit_queue limit_queue_view(void *span, uint32_t max);
int limit_queue_enter(const struct limit_queue *q, const struct queue_ask *ask,
                      double now, struct queue_place *out, double *retry);
int limit_queue_called(const struct limit_queue *q,
                       const struct queue_place *at);
int limit_queue_again(const struct limit_queue *q, const struct queue_place *at,
                      const struct queue_ask *ask, double now);
int limit_queue_leave(const struct limit_queue *q,
                      const struct queue_place *at);
void limit_queue_reclaim(const struct limit_queue *q, uint32_t member);
void limit_queue_moved(const struct limit_queue *q, uint64_t tenant,
                       uint64_t model);
void limit_queue_moved_all(const struct limit_queue *q);
uint32_t limit_queue_count(const struct limit_queue *q);
void limit_queue_ahead(const struct limit_queue *q, const struct queue_ask *ask,
                       struct queue_ahead *a);
int limit_queue_hold(const struct limit_queue *q, uint64_t self);
int limit_queue_let(const struct limit_queue *q, uint64_t self);
void limit_queue_heal(const struct limit_queue *q, uint64_t self);
void limit_queue_sweep(const struct limit_queue *q,
                       const struct queue_look *look, double now);
int limit_queue_pop(const struct limit_queue *q, const struct queue_look *look,
                    double now);
uint64_t member_self(void);
]]

local ROWS = 8

local _M = { C = C }

local mt = {}
mt.__index = mt

-- One callback each for all queues: LuaJIT has few. `current` is whose turn
-- it is.
local current
local row_cb = ffi.cast("uint32_t (*)(void *, const struct queue_entry *)",
  function(_, e)
    if current.full or current.shut[tonumber(e.model)] or
       current.look.called[0] >= current.rooms then
      return 0
    end
    return e.only > 0 and e.only or 1
  end)
local ring_cb = ffi.cast("void (*)(void *, const struct queue_entry *)",
  function(_, e)
    local name = current.names[tonumber(e.token)]
    current.rings[name] = (current.rings[name] or 0) + 1
    current.rung = name
  end)
local takes_cb = ffi.cast("int (*)(void *, uint64_t)", function(_, model)
  return current.takes(tonumber(model)) and 1 or 0
end)


local function ask_of(fields)
  local ask = ffi.new("struct queue_ask", { deadline = math.huge, tokens = 1,
                                            priority = 1 })
  for key, value in pairs(fields) do
    if key ~= "now" then
      ask[key] = value
    end
  end
  return ask
end


function _M.new(max)
  local size = tonumber(C.limit_queue_size(max))
  local span = ffi.new("uint64_t[?]", math.ceil(size / 8))
  local self = setmetatable({
    span = span, view = C.limit_queue_view(span, max), shut = {},
    rooms = math.huge, names = {}, places = {}, rings = {}, retry = 0,
    takes = function() return true end, tokens = 0,
    counts = ffi.new("uint32_t[?]", ROWS + 1),
  }, mt)
  self.look = ffi.new("struct queue_look", {
    row = row_cb, ring = ring_cb, called = self.counts, rows = ROWS,
  })
  return self
end


-- The code of limit_queue_enter(); `fields` are those of struct queue_ask, and
-- now. self.retry is what it said.
function mt:enter(name, fields)
  local ask, retry = ask_of(fields), ffi.new("double[1]")
  self.tokens = self.tokens + 1
  self.names[self.tokens] = name
  ask.token = self.tokens
  local place = ffi.new("struct queue_place")
  local rc = C.limit_queue_enter(self.view, ask, fields.now or 0, place, retry)
  if rc == 0 then
    self.places[name] = place
  end
  self.retry = retry[0]
  return rc
end


function mt:sweep(now)
  current = self
  C.limit_queue_sweep(self.view, self.look, now)
end


-- The name of who was popped, or nil.
function mt:pop(now)
  current = self
  return C.limit_queue_pop(self.view, self.look, now) == 1 and self.rung or nil
end


function mt:again(name, fields)
  return C.limit_queue_again(self.view, self.places[name], ask_of(fields),
                             fields.now or 0)
end


function mt:leave(name)
  return C.limit_queue_leave(self.view, self.places[name])
end


function mt:called(name)
  return C.limit_queue_called(self.view, self.places[name])
end


function mt:ahead(fields, row, now)
  local out = ffi.new("struct queue_ahead", { row = row, now = now,
                                              takes = takes_cb })
  current = self
  C.limit_queue_ahead(self.view, ask_of(fields), out)
  return out
end


-- A compiled call may not call back into Lua.
jit.off(mt.sweep)
jit.off(mt.pop)
jit.off(mt.ahead)


-- Entries in use lie below.
function mt:top()
  return self.view.shared[0]
end


return _M
