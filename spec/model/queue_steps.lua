-- Drives src/limit/queue.c beside its model: requests of a few tenants and
-- models enter, are popped, go back, leave, are late or never answer.
local ffi = require "ffi"
local c = require "spec.support.c"
local model = require "spec.model.queue"
local steps = require "spec.model.steps"
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
struct queue_shared_head {
  uint32_t top, again;
  uint64_t lock, seq, stamp, round[3], served;
  double rate;
};
struct limit_queue { struct queue_shared_head *shared;
                     struct queue_entry *entries; void *groups;
                     uint32_t max, room, mask; };
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
uint32_t limit_queue_count(const struct limit_queue *q);
void limit_queue_sweep(const struct limit_queue *q,
                       const struct queue_look *look, double now);
int limit_queue_pop(const struct limit_queue *q, const struct queue_look *look,
                    double now);
]]

local MAX, ROWS, MODELS, TENANTS = 24, 4, 3, 4
local SCOPES = { "router", "tenant", "model", "node" }
local SCOPE = { router = 0, tenant = 1, model = 2, node = 3 }
local KIND = { concurrent = 1, requests = 2, tokens = 3 }
local ECLOSED = -18

local _M = {}


-- A row for an entry: the first of its model with room beside those called.
-- Row n takes model n, row 4 takes all.
local function row_of(room, m, only, called)
  for row = 1, ROWS do
    if (row == m or row == ROWS) and (only == 0 or only == row)
       and room[row] > (called[row] or 0) then
      return row
    end
  end
end


local function new_look(run)
  local called = ffi.new("uint32_t[?]", ROWS + 1)
  local look = ffi.new("struct queue_look")
  run.row_cb = ffi.cast("uint32_t (*)(void *, const struct queue_entry *)",
    function(_, e)
      return row_of(run.room, tonumber(e.model), e.only, called) or 0
    end)
  run.ring_cb = ffi.cast("void (*)(void *, const struct queue_entry *)",
    function(_, e)
      run.rung[#run.rung + 1] = tonumber(e.token)
    end)
  look.row, look.ring = run.row_cb, run.ring_cb
  look.called, look.rows = called, ROWS
  run.look, run.called = look, called
end


-- What refused: nothing known, a limit with a time, or one without.
local function refusal(run)
  local s = run.steps
  if s:one_in(3) then
    return { wait = 0 }
  end
  local scope = s:choose(SCOPES)
  local kind = s:choose { "concurrent", "concurrent", "requests", "tokens" }
  return { scope = scope, kind = kind,
           wait = kind ~= "concurrent" and s:choose { 0.125, 0.5, 3 } or 0 }
end


local function c_ask(ask)
  local a = ffi.new("struct queue_ask")
  a.tenant, a.model, a.only = ask.tenant or 0, ask.model or 0, ask.only or 0
  a.priority, a.tokens = ask.priority or 0, ask.tokens or 0
  a.deadline, a.wait = ask.deadline or 0, ask.wait
  a.scope, a.kind = SCOPE[ask.scope] or 0, KIND[ask.kind] or 0
  a.member, a.token = ask.member or 0, ask.token or 0
  return a
end


local acts = {}


function acts.enter(run)
  local s = run.steps
  local ask = refusal(run)
  ask.tenant, ask.model = s:below(TENANTS) + 1, s:below(MODELS) + 1
  ask.only = s:one_in(8) and s:choose { ask.model, ROWS } or 0
  ask.priority = s:choose { 0, 1, 1, 1, 2 }
  ask.tokens = s:choose { 0, 10, 100, 100, 400, 4000 }
  ask.deadline = run.now + s:choose { 2, 8, 1e7, 1e7, 2e7, math.huge }
  ask.member = s:below(3)
  run.tokens = run.tokens + 1
  ask.token = run.tokens
  s:note(ask.tenant, ask.model, ask.only, ask.priority, ask.tokens,
         ask.deadline, tostring(ask.scope), ask.wait)
  local at, retry = ffi.new("struct queue_place"), ffi.new("double[1]")
  local code = C.limit_queue_enter(run.q, c_ask(ask), run.now, at, retry)
  local hopeless = ask.wait > ask.deadline - run.now
                   or code ~= 0 and ask.deadline < run.now + 10
                      and run.q.shared.rate > 0
  local place = not hopeless and run.model:enter(ask, run.now) or nil
  s:same("enter", place or 0, code == 0 and at.place or 0)
  if place then
    run.held[place] = { at = at, ask = ask }
  end
end


-- One of ours, in a state that the model says ("called", "waiting").
local function one(run, state)
  local list = {}
  for place in pairs(run.held) do
    local e = run.model.places[place]
    if not e then
      run.held[place] = nil           -- it was late
    elseif e.state == state then
      list[#list + 1] = place
    end
  end
  table.sort(list)
  return #list > 0 and run.steps:choose(list) or nil
end


function acts.answer(run)
  local place = one(run, "called")
  if not place then
    return acts.enter(run)
  end
  local mine = run.held[place]
  local e = run.model.places[place]
  if run.steps:one_in(3) then
    local ask = refusal(run)
    ask.tenant, ask.model, ask.only = e.tenant, e.model, e.only
    run.steps:note("again", place, tostring(ask.scope), ask.wait)
    run.steps:same("again", 0, C.limit_queue_again(run.q, mine.at, c_ask(ask),
                                                   run.now))
    run.model:again(place, ask, run.now)
  else
    run.steps:note("leaves", place)
    run.steps:same("leave", 1, C.limit_queue_leave(run.q, mine.at))
    run.model:leave(place)
    run.held[place] = nil
    if run.steps:one_in(2) and run.room[e.row] > 0 then
      run.room[e.row] = run.room[e.row] - 1
      run.used[#run.used + 1] = { e.row, e.tenant, e.model }
    end
  end
end


function acts.give_up(run)
  local place = one(run, "waiting")
  if place then
    run.steps:same("leave", 1, C.limit_queue_leave(run.q, run.held[place].at))
    run.model:leave(place)
    run.steps:same("gone", ECLOSED,
                   C.limit_queue_called(run.q, run.held[place].at))
    run.held[place] = nil
  end
end


function acts.finish(run)
  if #run.used > 0 then
    local u = table.remove(run.used, run.steps:below(#run.used) + 1)
    run.room[u[1]] = run.room[u[1]] + 1
    C.limit_queue_moved(run.q, u[2], u[3])
    run.model:give_back(u[2], u[3])
  end
end


function acts.die(run)
  local member = run.steps:below(3)
  C.limit_queue_reclaim(run.q, member)
  for place, mine in pairs(run.held) do
    if mine.ask.member == member then
      run.model:leave(place)
      run.held[place] = nil
    end
  end
end


function acts.pump(run)
  local s, m = run.steps, run.model
  run.rung = {}
  C.limit_queue_sweep(run.q, run.look, run.now)
  local rung = {}
  for i, place in ipairs(m:sweep(run.now)) do
    rung[i] = run.held[place].ask.token
  end
  local function row(e, called)
    return row_of(run.room, e.model, e.only, called)
  end
  repeat
    local place, at = m:pop(row, run.now)
    local code = C.limit_queue_pop(run.q, run.look, run.now)
    s:same("popped one", place and 1 or 0, code)
    if place then
      rung[#rung + 1] = run.held[place].ask.token
      s:note("popped", place, at)
      s:same("popped", rung[#rung], run.rung[#run.rung])
      s:same("row", at, run.q.entries[place - 1].row)
    end
  until not place
  s:same("rung", table.concat(rung, " "), table.concat(run.rung, " "))
end


local OFTEN = { "enter", "enter", "enter", "answer", "answer", "answer",
                "finish", "finish", "pump", "pump" }
local SELDOM = { "give_up", "give_up", "give_up", "die" }
local GAPS = { 0, 0, 0.125, 0.125, 0.25, 0.5, 1.5 }


local function compare(run)
  local s, m = run.steps, run.model
  s:same("count", m:waiting(), C.limit_queue_count(run.q))
  for priority = 0, 2 do
    s:same("round", m.round[priority],
           tonumber(run.q.shared.round[priority]))
  end
  for place = 1, MAX do
    local e, mine = m.places[place], run.held[place]
    if e then
      s:same("called", e.state == "called" and 1 or 0,
             C.limit_queue_called(run.q, mine.at))
      s:same("tag", e.tag, tonumber(run.q.entries[place - 1].tag))
    end
  end
end


local function new_run(seed)
  local span = ffi.new("uint64_t[?]", tonumber(C.limit_queue_size(MAX)) / 8 + 1)
  local run = {
    steps = steps.new("queue", seed), now = 1000, span = span, held = {},
    q = C.limit_queue_view(span, MAX), model = model.new(MAX), tokens = 0,
    room = { 2, 1, 3, 2 }, used = {}, rung = {},
  }
  new_look(run)
  return run
end


local function drive(run, count)
  for _ = 1, count do
    local s = run.steps
    local name = s:one_in(30) and s:choose(SELDOM) or s:choose(OFTEN)
    run.now = run.now + (s:one_in(3) and s:choose(GAPS) or 0)
    s:step(name, run.now)
    acts[name](run)
    compare(run)
  end
end
jit.off(drive, true)                  -- C calls back into Lua from below


-- `count` steps of that seed; raises where model and code part.
function _M.run(count, seed)
  local run = new_run(seed)
  local ok, why = pcall(drive, run, count)
  run.row_cb:free()
  run.ring_cb:free()
  if not ok then
    error(why, 0)
  end
  return run.steps
end


return _M
