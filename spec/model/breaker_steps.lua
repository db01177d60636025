-- Drives src/node/breaker.c beside its model: one row, requests that settle
-- late and out of order, ejections, the operator's words, a clock that jumps.
local ffi = require "ffi"
local c = require "spec.support.c"
require "spec.support.router"                 -- declares struct node_row
local model = require "spec.model.breaker"
local steps = require "spec.model.steps"
local C = c.lib

c.cdef[[
struct breaker_permit { uint32_t epoch, probe; };
struct breaker_said { int verdict; float retry_after; double rnd; };
int node_breaker_due(const struct node_row *own, double now);
int node_breaker_enter(drover_node *row, struct node_row *own, double now,
                       struct breaker_permit *out);
int node_breaker_panic(const struct node_row *own, struct breaker_permit *out);
int node_breaker_ejected(const struct node_row *own);
int node_breaker_holds(const struct node_row *own,
                       const struct breaker_permit *permit);
int node_breaker_settle(drover_node *row, struct node_row *own,
                        const struct breaker_permit *permit,
                        const struct breaker_said *said, double now);
int node_breaker_hurry(drover_node *row, struct node_row *own, double now,
                       double rnd);
int node_breaker_eject(drover_node *row, struct node_row *own, double now,
                       double rnd);
void node_breaker_tend(drover_node *row, struct node_row *own, double now);
float node_breaker_part(const struct node_row *own, double now);
int node_breaker_admin(drover_node *row, struct node_row *own, int to,
                       int only_from);
void node_breaker_reset(drover_node *row, struct node_row *own, int admin,
                        double slow_from);
void node_breaker_clear(drover_node *row, struct node_row *own);
uint32_t node_breaker_fails(const struct node_row *own);
double node_breaker_out_for(const struct node_row *own, double now);
int node_breaker_cooling(const struct node_row *own, double now);
int node_breaker_why(const struct node_row *own);
]]

local VERDICTS = { [0] = "neutral", "success", "failure", "limited",
                   "refused", "spent" }
local ADMIN = { [0] = "active", "draining", "removed" }
local PASS = { [0] = "usual", "probe", "panic" }
local STATES = { [0] = "up", "probing", "out", "draining", "removed" }
local WHY = { [0] = "none", "failures", "share", "outlier", "probe", "rate",
              "key", "quota", "slow_start" }

local _M = {}


local function number_of(names, word)
  for i = 0, #names do
    if names[i] == word then return i end
  end
end


-- A verdict, by the spell: mostly good, mostly bad, or so mixed that it is
-- their share that counts.
local function said_of(run)
  local kind, spell = "success", run.spell
  run.turn = run.turn + 1
  if spell == "mixed" then
    kind = run.turn % 3 == 0 and "success"
           or run.steps:choose { "failure", "limited", "failure", "success" }
  elseif run.steps:below(100) < (spell == "bad" and 70 or 12) then
    kind = run.steps:choose { "failure", "failure", "failure", "limited",
                              "refused", "spent", "neutral" }
  end
  local asks = run.steps:one_in(6) and run.steps:choose { 0.5, 7, 250, 100000 }
  return { verdict = kind, retry_after = asks or 0,
           rnd = run.steps:below(65) / 64 }
end


local acts = {}


function acts.enter(run)
  local permit = ffi.new("struct breaker_permit")
  local code = C.node_breaker_enter(run.row, run.own, run.now, permit) == 1
  local own = run.model:enter(run.now)
  run.steps:note(code)
  run.steps:same("enter", own ~= nil, code)
  if code then
    run.steps:same("pass", own.pass, PASS[permit.probe])
    run.held[#run.held + 1] = { own, permit }
  end
end


function acts.panic(run)
  local permit = ffi.new("struct breaker_permit")
  local code = C.node_breaker_panic(run.own, permit) == 1
  local own = run.model:panic()
  run.steps:same("panic", own ~= nil, code)
  if code then
    run.held[#run.held + 1] = { own, permit }
  end
end


function acts.settle(run)
  if #run.held == 0 then
    return acts.enter(run)
  end
  local pair = table.remove(run.held, run.steps:below(#run.held) + 1)
  local said = said_of(run)
  run.steps:note(said.verdict, said.retry_after, said.rnd, pair[1].pass,
                 pair[1].epoch)
  local s = ffi.new("struct breaker_said", number_of(VERDICTS, said.verdict),
                    said.retry_after, said.rnd)
  C.node_breaker_settle(run.row, run.own, pair[2], s, run.now)
  run.model:settle(pair[1], said, run.now)
end


function acts.eject(run)
  local rnd = run.steps:below(65) / 64
  run.steps:same("eject", run.model:eject(run.now, rnd),
                 C.node_breaker_eject(run.row, run.own, run.now, rnd) == 1)
end


function acts.hurry(run)
  local rnd = run.steps:below(65) / 64
  run.steps:same("hurry", run.model:hurry(run.now, rnd),
                 C.node_breaker_hurry(run.row, run.own, run.now, rnd) == 1)
end


function acts.admin(run)
  local to = run.steps:choose { 0, 0, 1, 2 }
  local from = run.steps:below(4) - 1
  local own = from < 0 or ADMIN[from] == run.model.admin
  run.steps:note(to, from)
  run.steps:same("admin", own,
                 C.node_breaker_admin(run.row, run.own, to, from) == 1)
  if own then
    run.model.admin = ADMIN[to]
  end
end


function acts.reset(run)
  local from = run.steps:one_in(2) and run.now or 0
  C.node_breaker_reset(run.row, run.own, 0, from)
  run.model:reset("active", from)
end


function acts.clear(run)
  C.node_breaker_clear(run.row, run.own)
  run.model:clear()
end


function acts.spell(run)
  run.spell = run.steps:choose { "good", "bad", "mixed", "mixed" }
end


local OFTEN = { "enter", "enter", "enter", "settle", "settle", "settle",
                "settle" }
local SELDOM = { "eject", "hurry", "hurry", "admin", "admin", "reset", "clear",
                 "panic", "spell", "spell", "spell" }
local GAPS = { 0, 0, 0, 0.25, 0.5, 1, 2.5, 4, 20, 60, 61 }
local SHORT = { 0, 0, 0.25, 0.5, 1, 1.5, 3 }


local function compare(run)
  local s, m, own, now = run.steps, run.model, run.own, run.now
  s:same("due", m:due(now), C.node_breaker_due(own, now) == 1)
  s:same("ejected", m:ejected(), C.node_breaker_ejected(own) == 1)
  C.node_breaker_tend(run.row, own, now)
  m:tend(now)
  s:same("state", m:shown(), STATES[run.row.state])
  s:same("fails", m.fails, C.node_breaker_fails(own))
  s:same("out_for", m:out_for(now), C.node_breaker_out_for(own, now))
  s:near("part", m:part(now), C.node_breaker_part(own, now))
  if m.state == "closed" then
    s:near("weight", 2 * m:part(now), run.row.weight)
  end
  s:same("cooling", m.state == "cool" and now < m.deadline,
         C.node_breaker_cooling(own, now) == 1)
  s:same("why", m:said_why(), WHY[C.node_breaker_why(own)])
  for _, pair in ipairs(run.held) do
    s:same("holds", m:holds(pair[1]),
           C.node_breaker_holds(own, pair[2]) == 1)
  end
end


-- `count` steps of that seed; raises where model and code part.
function _M.run(count, seed)
  local run = {
    steps = steps.new("breaker", seed), now = 1000, held = {},
    spell = "good", turn = 0,
    row = ffi.new("drover_node"), own = ffi.new("struct node_row"),
    model = model.new("active", 0),
  }
  run.row.weight, run.own.weight = 2, 2
  C.node_breaker_reset(run.row, run.own, 0, 0)
  for _ = 1, count do
    local s = run.steps
    local name = s:one_in(25) and s:choose(SELDOM) or s:choose(OFTEN)
    run.now = run.now + (s:one_in(3)
      and s:choose(run.spell == "mixed" and SHORT or GAPS) or 0)
    s:step(name, run.now)
    if #run.held > 12 then
      name = "settle"
    end
    acts[name](run)
    compare(run)
  end
  return run.steps
end


return _M
