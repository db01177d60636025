-- Random sequences of operations against a slow model in Lua: what is in
-- flight, the limits, tickets and the breaker say the same at every step. The
-- seeds are fixed; a failure prints its seed and step.
local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local breaker = require "spec.model.breaker"
local C = c.lib

local NODES, CAPACITY, CONCURRENT, STEPS, SEEDS = 4, 3, 8, 2000, 12
local err = router.err


local function lots(seed)
  local x = seed
  return function(n)
    x = (x * 16807) % 2147483647
    return n and 1 + math.floor(x / 2147483647 * n) or x / 2147483647
  end
end


-- ---- the model: spec/model/breaker.lua and what is in flight ----

local SHOWN = { up = C.DROVER_UP, probing = C.DROVER_PROBING,
                out = C.DROVER_OUT, draining = C.DROVER_DRAINING }


local function new_model()
  local m = { nodes = {} }
  for i = 1, NODES do
    m.nodes[i] = { breaker = breaker.new("active", 0), inflight = 0,
                   attempts = 0 }
  end
  return m
end


local function may(n, now)
  local b = n.breaker
  return b.admin == "active" and n.inflight < CAPACITY and
         (b.state == "closed" or b:due(now))
end


-- The jitter is drawn inside the library, so the model is told the deadline:
-- no earlier than without jitter, and no later than with all of it.
local function settle(s, t, said)
  local n = s.m.nodes[t.node]
  n.inflight = n.inflight - 1
  if t.sent then
    n.attempts = n.attempts + 1
  end
  local was = n.breaker.deadline
  n.breaker:settle(t.permit, said, s.now)
  C.drover_node_stat(s.r, t.node, s.stats, s.now)
  if n.breaker.deadline ~= was and s.stats.out_for > 0 then
    local least, got = n.breaker.deadline, s.now + s.stats.out_for
    local most = said.retry_after == 0 and said.verdict == "limited"
                 and math.max(s.now + 60, s.now + 2 * (least - s.now))
                 or s.now + 2 * (least - s.now)
    assert(got >= least and got <= most + 1 / 64, "deadline")
    n.breaker.deadline = got
  end
end


-- ---- one run of both ----

local RESULTS = {
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_ERESET, verdict = "failure" },
  { code = C.DROVER_ETIMEOUT, verdict = "failure" },
  { code = C.DROVER_EOVERLOADED, verdict = "failure", retry_after = 2 },
  { code = C.DROVER_ERATELIMITED, verdict = "limited" },
  { code = C.DROVER_EBADREQUEST, verdict = "success" },
  { code = C.DROVER_ECANCELLED, verdict = "neutral" },
  { code = C.DROVER_ERATELIMITED, verdict = "limited", retry_after = 20 },
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_EUNAUTHORIZED, verdict = "refused" },
  { code = C.DROVER_EQUOTA, verdict = "spent" },
}

local run = {}


function run.claim(s)
  local i, p = s.lot(NODES), router.pick()
  C.drover_pick_begin(s.r, p, s.now, s.lot())
  local allowed = may(s.m.nodes[i], s.now)
  assert.equal(allowed and 1 or 0, C.drover_pick_may(s.r, p, i))
  local rc = C.drover_pick_claim(s.r, p, i, err)
  if not allowed then
    assert.equal(C.DROVER_EAGAIN, rc)
  elseif #s.open >= CONCURRENT then
    assert.equal(C.DROVER_EOVERLOADED, rc)
    local b = s.m.nodes[i].breaker
    b:settle(b:enter(s.now), { verdict = "neutral", retry_after = 0 }, s.now)
  else
    assert.equal(0, rc)
    local n = s.m.nodes[i]
    n.inflight = n.inflight + 1
    s.open[#s.open + 1] = {
      p = p, t = { node = i, permit = n.breaker:enter(s.now) },
    }
  end
end


function run.sent(s)
  local one = s.open[s.lot(math.max(1, #s.open))]
  if one and not one.t.sent then
    assert.equal(0, C.drover_ticket_sent(s.r, one.p))
    one.t.sent = true
  end
end


function run.settle(s)
  if #s.open == 0 then
    return
  end
  local one = table.remove(s.open, s.lot(#s.open))
  local result = RESULTS[s.lot(s.sick and 6 or #RESULTS)]
  local verdict = result.verdict
  if verdict == "success" and not one.t.sent then
    verdict = "neutral"
  end
  local copy = ffi.new("drover_pick", one.p)
  assert.equal(0, C.drover_ticket_done(s.r, one.p, router.outcome{
    code = result.code, retry_after = result.retry_after or 0,
  }, s.now))
  assert.equal(C.DROVER_ECLOSED,
               C.drover_ticket_done(s.r, copy, router.outcome(), s.now))
  settle(s, one.t, { verdict = verdict, rnd = 0,
                     retry_after = result.retry_after or 0 })
end


function run.drain(s)
  local i = s.lot(NODES)
  local b = s.m.nodes[i].breaker
  local drain = b.admin == "active" and s.lot() < 0.2
  b.admin = drain and "draining" or "active"
  assert.equal(0, C.drover_node_drain(s.r, "n" .. i, drain and 1 or 0))
end


-- With nobody up, who is out is tried sooner; when, the model is told.
local function hurry(s)
  for _, n in ipairs(s.m.nodes) do
    if n.breaker:shown() == "up" then
      return
    end
  end
  for i, n in ipairs(s.m.nodes) do
    if n.breaker:hurry(s.now, 0) then
      C.drover_node_stat(s.r, i, s.stats, s.now)
      local left = s.stats.out_for
      assert(left >= 1 and left <= 2 + 1 / 64, "hurried")
      n.breaker.deadline = s.now + left
    end
  end
end


function run.tick(s)
  s.now = s.now + math.floor(s.lot() ^ 4 * 5000) / 64
  s.sick = s.lot() < 0.4
  assert.equal(0, C.drover_tick(s.r, s.now))
  for i, n in ipairs(s.m.nodes) do
    n.breaker:tend(s.now)
    C.drover_node_stat(s.r, i, s.stats, s.now)
    if s.stats.why == C.DROVER_WHY_OUTLIER and n.breaker.why ~= "outlier" then
      n.breaker:eject(s.now, 0)
      n.breaker.deadline = s.now + s.stats.out_for
    end
  end
  hurry(s)
end


local function compare(s)
  assert.equal(#s.open, C.drover_inflight(s.r, 0))
  for i, n in ipairs(s.m.nodes) do
    local row = C.drover_nodes(s.r)[i]
    C.drover_node_stat(s.r, i, s.stats, s.now)
    if n.breaker:cooled(s.now) and row.state == C.DROVER_UP then
      n.breaker.state = "closed"        -- a decision woke it
    end
    assert.same({ n.inflight, n.inflight, SHOWN[n.breaker:shown()],
                  n.breaker.fails, n.attempts },
                { row.inflight, C.drover_inflight(s.r, i), row.state,
                  s.stats.fails, s.stats.requests })
    assert(row.inflight <= CAPACITY)
  end
end


local ORDER = { "claim", "claim", "claim", "sent", "sent", "settle", "settle",
                "drain", "tick" }

local function walk(seed)
  local s = { lot = lots(seed), now = 1000, open = {}, m = new_model(),
              stats = ffi.new("drover_node_stats") }
  s.r = router.with(NODES, { concurrent = CONCURRENT,
                             node = { capacity = CAPACITY } })
  for step = 1, STEPS do
    local name = ORDER[s.lot(#ORDER)]
    local ok, why = pcall(function()
      run[name](s)
      compare(s)
    end)
    if not ok then
      error(("seed %d, step %d, %s: %s"):format(seed, step, name, tostring(
        type(why) == "table" and why.message or why)))
    end
  end
  router.close(s.r)
end


describe("pick, settle and breaker do as the model", function()
  for seed = 1, SEEDS do
    it("with seed " .. seed, function() walk(seed * 7919) end)
  end
end)
