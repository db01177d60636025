-- Rows 52 to 57, 76, 77 and 79 of the fault matrix: what becomes of a pool
-- whose nodes fail, and of requests when there are too many.
local ffi = require "ffi"
local c = require "spec.support.c"
local drover = require "drover"
local libc = require "drover.testing.libc"
local matrix = require "spec.support.matrix"
local random = require "drover.random"
local zone = require "spec.support.router"

c.cdef[[ long mem_live(void); long mem_live_bytes(void); ]]

local C = c.lib
local STEP = 0.02                     -- seconds between two made requests


-- One request on a made clock, with up to `sends` attempts, each elsewhere.
-- fails(row) says with which code; returns the rows asked, and whether the
-- last answered.
local function serve(r, now, rnd, fails, sends)
  local p, asked = zone.pick(), {}
  for _ = 1, sends or 3 do
    if C.drover_pick_node(r, p, now, rnd(), zone.err) ~= 0 then
      return asked, false
    end
    local row = p.node
    local code = fails(row, now) or 0
    asked[#asked + 1] = row
    assert(C.drover_ticket_sent(r, p) == 0)
    assert(C.drover_ticket_done(r, p, zone.outcome{
      code = code, first_token_ms = code == 0 and 50 or nil }, now) == 0)
    if code == 0 then
      return asked, true
    end
  end
  return asked, false
end


-- Requests from `from` to `to`; how many each row was asked, how many were
-- made, and how many answered.
local function traffic(r, from, to, rnd, fails)
  local count, made, well, tick = {}, 0, 0, from
  for now = from, to, STEP do
    if now >= tick then
      C.drover_tick(r, now)
      tick = tick + 0.25
    end
    local asked, ok = serve(r, now, rnd, fails)
    made, well = made + 1, well + (ok and 1 or 0)
    for _, row in ipairs(asked) do
      count[row] = (count[row] or 0) + 1
    end
  end
  return count, made, well
end


local function figures(r, row, now)
  local out = ffi.new("drover_node_stats")
  assert(C.drover_node_stat(r, row, out, now) == 0)
  return out
end


local function open_rows(r, rows, now, code)
  for _, row in ipairs(rows) do
    for _ = 1, 5 do
      assert(zone.hit(r, row, now, { code = code or C.DROVER_EOVERLOADED }))
    end
  end
end


describe("a pool", function()
  local r, rnd

  before_each(function() rnd = random.new(7) end)
  after_each(function()
    if r then
      zone.close(r)
      r = nil
    end
  end)

  it("row 52: leaves a flapping node more and more alone", function()
    r = zone.with(3)
    local function flaps(row, now)
      return row == 1 and math.floor(now) % 2 == 1 and C.DROVER_ERESET or nil
    end
    traffic(r, 1, 61, rnd, flaps)
    local count, made, well = traffic(r, 61, 181, rnd, flaps)
    assert.equal(made, well)
    assert.is_true((count[1] or 0) < 0.05 * made, count[1])
  end)

  it("row 53: asks a node that is ten times slower less and less", function()
    r = zone.with(4, { policy = "peak_ewma" })
    local slow = 0
    for i = 1, 400 do
      local p = zone.pick()
      assert(C.drover_pick_node(r, p, i * STEP, rnd(), zone.err) == 0)
      local row = p.node
      C.drover_ticket_sent(r, p)
      C.drover_ticket_done(r, p, zone.outcome{
        first_token_ms = row == 1 and 500 or 50 }, i * STEP + 0.01)
      slow = slow + (i > 20 and row == 1 and 1 or 0)
    end
    assert.is_true(slow < 380 / (5 * 4), slow)
  end)

  it("row 54: takes a node out that fails more often than not", function()
    r = zone.with(1)
    local i, seen = 0
    repeat                            -- never five in a row
      i = i + 1
      zone.hit(r, 1, 1 + i * 0.1, { code = i % 5 < 3 and C.DROVER_ERESET or 0 })
      seen = figures(r, 1, 1 + i * 0.1)
    until seen.out_for > 0 or i == 40
    assert.is_true(i >= 10 and i < 40, i)
    assert.equal(C.DROVER_WHY_SHARE, seen.why)
  end)

  it("row 54: takes the one of five out that fails at 30 %", function()
    r = zone.with(5)
    for i = 1, 40 do
      for row = 1, 5 do
        local bad = row == 1 and i % 10 < 3
        zone.hit(r, row, 1 + i * 0.2, { code = bad and C.DROVER_ERESET or 0 })
      end
    end
    C.drover_tick(r, 9.3)
    C.drover_tick(r, 12.5)
    local seen = figures(r, 1, 12.5)
    assert.is_true(seen.out_for > 0)
    assert.equal(C.DROVER_WHY_OUTLIER, seen.why)
    for row = 2, 5 do
      assert.equal(0, figures(r, row, 12.5).out_for)
    end
  end)

  it("row 56: uses what is out when the rest is full", function()
    r = zone.with(4, { node = { capacity = 2 } })
    open_rows(r, { 1, 2 }, 1)
    for _ = 1, 5 do
      zone.hit(r, 3, 1, { code = C.DROVER_EUNAUTHORIZED })
    end
    local held, rows = {}, {}
    for i = 1, 6 do
      held[i] = zone.pick()
      assert.equal(0, C.drover_pick_node(r, held[i], 1.1, rnd(), zone.err))
      rows[held[i].node] = (rows[held[i].node] or 0) + 1
    end
    assert.equal(2, rows[4])
    assert.is_nil(rows[3])            -- its key was refused: never
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(r, totals, 1.1)
    assert.equal(4, totals.panics)
    for i = 1, 6 do
      C.drover_ticket_done(r, held[i], zone.outcome{ code = 0 }, 1.2)
    end
    assert.equal(0, C.drover_inflight(r, 0))
  end)

  it("row 57: lets one request a time into a node that comes back", function()
    r = zone.with(1)
    open_rows(r, { 1 }, 1)
    local due = 1 + figures(r, 1, 1).out_for
    local now = due + 0.001
    for _ = 1, 2 do                   -- two successes, one permit at a time
      local probe, other = zone.pick(), zone.pick()
      assert.equal(0, C.drover_pick_node(r, probe, now, 0.5, zone.err))
      assert.is_true(C.drover_pick_node(r, other, now, 0.5, zone.err) < 0)
      C.drover_ticket_sent(r, probe)
      C.drover_ticket_done(r, probe, zone.outcome{ code = 0 }, now)
      now = now + 0.02
    end
    C.drover_tick(r, now + 0.3)
    assert.equal(C.DROVER_WHY_SLOW_START, figures(r, 1, now + 0.3).why)
    local weight = C.drover_nodes(r)[1].weight
    assert.is_true(weight >= 0.1 and weight < 0.15, weight)
    C.drover_tick(r, now + 15)
    weight = C.drover_nodes(r)[1].weight
    assert.is_true(weight > 0.4 and weight < 0.6, weight)
    C.drover_tick(r, now + 31)
    assert.equal(1, C.drover_nodes(r)[1].weight)
    assert.equal(C.DROVER_WHY_NONE, figures(r, 1, now + 31).why)
  end)

  for word, code in pairs{ failure = "DROVER_ERESET",
                           ["429"] = "DROVER_ERATELIMITED" } do
    it("row 57: a " .. word .. " in the probe keeps it out longer", function()
      r = zone.with(1)
      open_rows(r, { 1 }, 1)
      local now = 1.001 + figures(r, 1, 1).out_for
      assert.is_true(zone.hit(r, 1, now, { code = C[code] }))
      assert.is_true(figures(r, 1, now).out_for >= 5)
      assert.is_true(C.drover_pick_node(r, zone.pick(), now + 4, 0.5,
                                        zone.err) < 0)
    end)
  end

  it("row 77: sends at most 1.2 a request when all fail", function()
    r = zone.with(1)
    local requests, sends = 0, 0
    for now = 1, 61, STEP do          -- the breaker would end it: it is kept
      C.drover_node_clear(r, "n1", now)     -- in, so that the budget decides
      local p = zone.pick()
      requests = requests + 1
      p.again = 1
      for attempt = 1, 3 do
        if attempt > 1 and C.drover_retry_take(r, now) == 0 then
          break
        end
        if C.drover_pick_node(r, p, now, rnd(), zone.err) ~= 0 then
          break
        end
        C.drover_ticket_sent(r, p)
        C.drover_ticket_done(r, p, zone.outcome{
          code = C.DROVER_EOVERLOADED }, now)
        sends = sends + 1
      end
    end
    assert.is_true(requests > 2900)
    assert.is_true(sends > requests)
    assert.is_true(sends <= 1.2 * requests + 60 + 10, sends / requests)
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(r, totals, 61)
    assert.is_true(totals.retries_denied > 0)
    assert.equal(0, totals.inflight)
  end)
end)


local function closed()
  local fd, port = libc.listen()
  libc.close(fd)
  return "http://127.0.0.1:" .. port .. "/v1"
end


describe("when there is no room,", function()
  teardown(matrix.stop)

  for _, way in ipairs{ "chat", "stream" } do
    it("row 55: all nodes down is an answer at once, " .. way, function()
      local row = { url = closed, retry = { attempts = 1 } }
      matrix.with(row, 3, function(router)
        for _ = 1, 15 do
          assert.truthy(matrix.ask(router, row, way).err)
        end
        local sends = router:stats().total_requests
        for _ = 1, 20 do
          local last = matrix.ask(router, row, way)
          assert.equal("no_node", last.err.kind)
          assert.equal("pick", last.err.phase)
          assert.is_false(last.err.maybe_billed)
          assert.equal(0, #last.ledger)
          assert.is_true(last.err.retry_after > 0
                         and last.err.retry_after <= 300)
        end
        assert.equal(sends + 20, router:stats().total_requests)
      end)
    end)
  end

  -- Arrivals while everything is taken: `run` go on, `wait` wait, the rest is
  -- refused before it costs anything.
  local function flood(row, arrivals, way)
    return matrix.with(row, 1, function(router)
      local kinds, tasks = {}, {}
      for i = 1, arrivals do
        tasks[i] = drover.go(function()
          local result = matrix.ask(router, row, way)
          local kind = result.err and result.err.kind or "ok"
          kinds[kind] = (kinds[kind] or 0) + 1
          if kind == "overloaded" then
            assert.equal(0, #result.ledger)
            assert.is_true(result.err.retryable)
            assert.equal(row.queue and "number" or "nil",
                         type(result.err.retry_after))
          end
        end)
      end
      for i = 1, arrivals, 50 do
        drover.wait(unpack(tasks, i, math.min(arrivals, i + 49)))
      end
      kinds.bodies = matrix.server():totals().bodies
      return kinds
    end)
  end

  for _, way in ipairs{ "chat", "stream" } do
    it("row 76: what is too much is refused unsent, " .. way, function()
      local row = { fault = "ok;delay=100", limits = { concurrent = 4 },
                    retry = { attempts = 1 } }
      local kinds = flood(row, 1000, way)
      assert.same({ ok = 4, overloaded = 996, bodies = 4 }, kinds)
    end)

    it("row 76: a full queue refuses the next, " .. way, function()
      local row = { fault = "ok;delay=20", queue = { size = 8 },
                    retry = { attempts = 1 },
                    limits = { concurrent = 4, wait = 10 } }
      local kinds = flood(row, 300, way)
      assert.same({ ok = 12, overloaded = 288, bodies = 12 }, kinds)
    end)
  end

  it("row 76: who cannot be served in time is not sent", function()
    local row = { fault = "ok;delay=300", retry = { attempts = 1 },
                  queue = { size = 8 },
                  limits = { concurrent = 1, wait = 10 } }
    local late = { deadline = 0.1 }
    local first = matrix.with(row, 1, function(router)
      local one = drover.go(matrix.ask, router, row, "chat")
      local tasks = {}
      for i = 1, 4 do
        tasks[i] = drover.go(matrix.ask, router, late, "chat")
      end
      for i = 1, 4 do
        local result = drover.wait(tasks[i])
        assert.truthy(("timeout overloaded"):find(result.err.kind, 1, true))
        assert.equal(0, #result.ledger)
        assert.is_false(result.err.maybe_billed)
      end
      local result = drover.wait(one)
      assert.equal(1, matrix.server():totals().bodies)
      return result
    end)
    assert.is_nil(first.err)
  end)

  -- Fifty streams that are cancelled, each where it is; how many were sent.
  local function cancel_fifty(router, row, later)
    local tasks, flights, sent = {}, {}, 0
    for i = 1, 50 do
      flights[i] = assert(router:begin(matrix.request(row), nil, true))
      tasks[i] = drover.go(function()
        local stream, e = flights[i]:stream()
        if stream then
          stream:join()
        end
        sent = sent + #(stream and flights[i].ledger or e.attempts)
      end)
    end
    if later then
      drover.sleep(0.001)
    end
    for i = 1, 50 do
      flights[i]:cancel()
    end
    drover.wait(unpack(tasks))
    return sent
  end

  -- 200 rounds of 50 cancels, at whatever point each is.
  it("row 79: ten thousand cancels leave nothing", function()
    local row = { fault = "ok;gap=1;n=50", limits = { concurrent = 100 } }
    local live
    for _, rounds in ipairs{ 5, 195 } do
      matrix.with(row, 1, function(router)
        local sent = 0
        for round = 1, rounds do
          sent = sent + cancel_fifty(router, row, round % 4 == 0)
        end
        assert.equal(rounds * 50, router:stats().total_requests)
        local bodies = matrix.server():totals().bodies
        assert.is_true(bodies <= sent, bodies - sent)
      end)
      collectgarbage()
      local now = tonumber(C.mem_live())
      live = live or now
      assert.is_true(now <= live, now - live)
    end
  end)
end)
