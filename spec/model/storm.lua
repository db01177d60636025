-- A storm on a made clock: requests that arrive steadily, nodes that all fail
-- for a minute and then are well. Decisions, breaker and retry budget are the
-- library's (drover.h), the rules of a retry are lua/drover/retry.lua's; only
-- the waiting and the nodes are played.
local c = require "spec.support.c"
local err = require "drover.err"
local retries = require "drover.retry"
local router = require "spec.support.router"
local steps = require "spec.model.steps"
local C = c.lib

local RETRY = { attempts = 3, min = 0.25, max = 8, ambiguous = "once" }
local TIMEOUT, TICK = 30, 0.25

local _M = {}


-- ---- a heap of what is to happen, by time ----

local function later(run, at, f, ...)
  local heap = run.heap
  local i = #heap + 1
  heap[i] = { at = at, f = f, ... }
  while i > 1 do
    local up = math.floor(i / 2)
    if heap[up].at <= heap[i].at then break end
    heap[up], heap[i] = heap[i], heap[up]
    i = up
  end
end


local function soonest(heap)
  local first, last = heap[1], table.remove(heap)
  if #heap == 0 then return first end
  heap[1] = last
  local i = 1
  while 2 * i <= #heap do
    local child = 2 * i
    if heap[child + 1] and heap[child + 1].at < heap[child].at then
      child = child + 1
    end
    if heap[i].at <= heap[child].at then break end
    heap[i], heap[child] = heap[child], heap[i]
    i = child
  end
  return first
end


-- ---- one request ----

local function ended(run, q, ok)
  run.requests[#run.requests + 1] = { at = q.begun - 1000, ok = ok }
end


local send


-- As flight.lua does: another node at once, the same after a wait; what is
-- not surely unsent takes one from the budget.
local function failed(run, q)
  local e = err.new(run.kind, nil, { status = run.status,
                                     maybe_billed = run.billed })
  local left = q.begun + TIMEOUT - run.now
  if retries.decide(RETRY, e, q.sends, q) == "stop"
     or not retries.in_time(RETRY, left, run.took) then
    return ended(run, q, false)
  end
  local function granted()
    if not q.freed and retries.class(e) == "unsent" then
      q.freed = true
      return true
    end
    local ok = C.drover_retry_take(run.router, run.now) == 1
    if ok then
      run.taken[#run.taken + 1] = { at = run.now - 1000 }
    end
    return ok
  end
  q.pick.again = 0
  if C.drover_pick_node(run.router, q.pick, run.now, run.steps:unit(),
                        router.err) == 0 then
    if granted() then
      return send(run, q, true)
    end
    C.drover_ticket_done(run.router, q.pick, run.nothing, run.now)
    return ended(run, q, false)
  end
  local wait = retries.pause(RETRY, e, q.sends, run.steps:unit(), 0)
  if not wait or wait >= left or not granted() then
    return ended(run, q, false)
  end
  run.pauses[#run.pauses + 1] = run.now - 1000 + wait
  later(run, run.now + wait, function()
    q.pick.again = 1
    if C.drover_pick_node(run.router, q.pick, run.now, run.steps:unit(),
                          router.err) ~= 0 then
      return ended(run, q, false)
    end
    send(run, q, true)
  end)
end


function send(run, q, is_retry)
  q.sends = q.sends + 1
  C.drover_ticket_sent(run.router, q.pick)
  run.attempts[#run.attempts + 1] = { at = run.now - 1000,
                                      retry = is_retry }
  later(run, run.now + run.took, function()
    local ok = run.healthy(run.now)
    C.drover_ticket_done(run.router, q.pick, ok and run.good or run.bad,
                         run.now)
    if ok then
      return ended(run, q, true)
    end
    failed(run, q)
  end)
end


local function arrive(run)
  local q = { pick = router.pick(), begun = run.now, sends = 0 }
  run.count = run.count + 1
  if C.drover_pick_node(run.router, q.pick, run.now, run.steps:unit(),
                        router.err) == 0 then
    send(run, q, false)
  else
    ended(run, q, false)
  end
  if run.rate > 0 then
    later(run, run.now + (0.5 + run.steps:unit()) / run.rate, arrive)
  end
end


local function tick(run)
  C.drover_tick(run.router, run.now)
  later(run, run.now + TICK, tick)
end


-- what: { seed, nodes, rate (requests a second), crowd (so many at once, at
-- the beginning), kind, status, billed, took, from, till (the nodes fail),
-- part (of what they do then; 1: all), seconds }. Returns { requests,
-- attempts, pauses, taken (from the budget) }, lists with times since the
-- beginning.
function _M.run(what)
  local run = {
    steps = steps.new("storm", what.seed), now = 1000, heap = {}, count = 0,
    requests = {}, attempts = {}, pauses = {}, taken = {}, rate = what.rate,
    kind = what.kind, status = what.status, billed = what.billed,
    took = what.took, good = router.outcome { first_token_ms = 20 },
    nothing = router.outcome { code = err.code("cancelled") },
    bad = router.outcome { code = err.code(what.kind) },
  }
  function run.healthy(now)
    return now < 1000 + what.from or now >= 1000 + what.till
           or run.steps:unit() >= (what.part or 1)
  end
  run.router = router.with(what.nodes, { now = 999, concurrent = 10000,
    node = { capacity = 2000 }, policy = "peak_ewma",
    members_max = 4, tickets_max = 4096 })
  for _ = 1, what.crowd or 1 do
    later(run, run.now, arrive)
  end
  later(run, run.now, tick)
  while run.now < 1000 + what.seconds do
    local one = soonest(run.heap)
    run.now = one.at
    one.f(run, unpack(one))
  end
  router.close(run.router)
  return run
end


return _M
