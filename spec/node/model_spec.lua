-- Random sequences of operations against a slow model in Lua: what is in
-- flight, the limits, tickets and the breaker say the same at every step. The
-- seeds are fixed; a failure prints its seed and step.
local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
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


-- ---- the model: one table a node, no packing, no clock units ----

local function new_model()
  local m = { nodes = {}, open = {} }
  for i = 1, NODES do
    m.nodes[i] = { state = "closed", fails = 0, k = 0, epoch = 0, inflight = 0,
                   admin = "active", closed_at = 0, attempts = 0 }
  end
  return m
end


local function shown(n)
  if n.admin == "draining" then
    return C.DROVER_DRAINING
  end
  return n.state == "closed" and C.DROVER_UP
      or n.state == "open" and C.DROVER_OUT or C.DROVER_PROBING
end


local function may(n, now)
  return n.admin == "active" and n.inflight < CAPACITY and
         (n.state == "closed" or now >= n.deadline)
end


local function claim(m, i, now)
  local n = m.nodes[i]
  local t = { node = i, epoch = n.epoch, probe = n.state ~= "closed" }
  if t.probe then
    n.state, n.deadline = "probe", now + 30
  end
  n.inflight = n.inflight + 1
  return t
end


local function fail(n, now, read_deadline)
  n.fails = n.fails + 1
  if n.state == "probe" or n.fails >= 5 then
    if n.state == "closed" then
      n.k = math.max(0, n.k - math.floor(math.max(0, now - n.closed_at) / 60))
    end
    local d = math.min(300, 5 * 2 ^ n.k)
    n.state, n.epoch, n.k = "open", n.epoch + 1, math.min(n.k + 1, 6)
    -- The draw itself is the library's: it must lie in equal jitter's range.
    n.deadline = now + read_deadline()
    assert(n.deadline >= now + d / 2 - 1e-6 and n.deadline <= now + d + 0.011,
           "jitter")
  end
end


local function settle(m, t, verdict, now, read_deadline)
  local n = m.nodes[t.node]
  n.inflight = n.inflight - 1
  if t.sent then
    n.attempts = n.attempts + 1
  end
  if t.epoch ~= n.epoch or n.state ~= (t.probe and "probe" or "closed") then
    return
  end
  if verdict == "failure" then
    fail(n, now, read_deadline)
  elseif verdict == "success" then
    n.fails = 0
    if n.state == "probe" then
      n.closed_at = now
    end
    n.state = "closed"
  elseif n.state == "probe" then
    n.state, n.deadline = "open", now
  end
end


-- ---- one run of both ----

local RESULTS = {
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_OK, verdict = "success" },
  { code = C.DROVER_ERESET, verdict = "failure" },
  { code = C.DROVER_ETIMEOUT, verdict = "failure" },
  { code = C.DROVER_EBADREQUEST, verdict = "success" },
  { code = C.DROVER_ECANCELLED, verdict = "neutral" },
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
    if s.m.nodes[i].state ~= "closed" then          -- the permit is given back
      s.m.nodes[i].state, s.m.nodes[i].deadline = "open", s.now
    end
  else
    assert.equal(0, rc)
    s.open[#s.open + 1] = { p = p, t = claim(s.m, i, s.now) }
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
  local result = RESULTS[s.lot(s.sick and 4 or #RESULTS)]
  local verdict = result.verdict
  if verdict == "success" and not one.t.sent then
    verdict = "neutral"
  end
  local copy = ffi.new("drover_pick", one.p)
  assert.equal(0, C.drover_ticket_done(s.r, one.p,
                                       router.outcome{ code = result.code },
                                       s.now))
  assert.equal(C.DROVER_ECLOSED,
               C.drover_ticket_done(s.r, copy, router.outcome(), s.now))
  settle(s.m, one.t, verdict, s.now, function()
    C.drover_node_stat(s.r, one.t.node, s.stats, s.now)
    return s.stats.out_for
  end)
end


function run.drain(s)
  local i = s.lot(NODES)
  local n = s.m.nodes[i]
  local drain = n.admin == "active" and s.lot() < 0.2
  n.admin = drain and "draining" or "active"
  assert.equal(0, C.drover_node_drain(s.r, "n" .. i, drain and 1 or 0))
end


function run.tick(s)
  s.now = s.now + math.floor(s.lot() ^ 4 * 5000) / 128
  s.sick = s.lot() < 0.4
  assert.equal(0, C.drover_tick(s.r, s.now))
end


local function compare(s)
  assert.equal(#s.open, C.drover_inflight(s.r, 0))
  for i, n in ipairs(s.m.nodes) do
    local row = C.drover_nodes(s.r)[i]
    C.drover_node_stat(s.r, i, s.stats, s.now)
    assert.same({ n.inflight, n.inflight, shown(n), math.min(n.fails, 15),
                  n.attempts },
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
