-- What outcomes do to nodes, through picks and tickets on a made clock: the
-- rows of the fault matrix that speak of a node's health (52 to 58, 77).
local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local stats = ffi.new("drover_node_stats")


local function lots(seed)
  local x = seed
  return function()
    x = (x * 16807) % 2147483647
    return x / 2147483647
  end
end


local function stat(r, row, now)
  assert(C.drover_node_stat(r, row, stats, now) == 0)
  return stats
end


-- Every 250 ms as the workers do; `step` is called 20 times a second.
local function run(r, from, seconds, step)
  for i = 0, seconds * 20 - 1 do
    local now = from + i / 20
    if i % 5 == 0 then
      C.drover_tick(r, now)
    end
    step(now)
  end
end


describe("an outcome", function()
  local hurting = {
    "EOVERLOADED", "EUNREACHABLE", "ETLS", "ETIMEOUT", "ERESET", "ETRUNCATED",
    "EMALFORMED", "EFORMAT",
  }
  local harmless = {
    "OK", "EBADREQUEST", "ECONTEXT", "EPOLICY", "ENOTFOUND", "ETOOLARGE",
    "ECANCELLED", "ECLOSED", "ERESOURCE", "EINTERNAL", "EINVAL", "ENOMEM",
    "ENONODE", "EAGAIN", "ELOST",
  }
  local other = { ERATELIMITED = "WHY_RATE", EUNAUTHORIZED = "WHY_KEY",
                  EQUOTA = "WHY_QUOTA" }

  local function after(code, times)
    local r = router.with(1)
    for _ = 1, times do
      assert(router.hit(r, 1, 10, { code = code }))
    end
    local state = C.drover_nodes(r)[1].state
    local why = stat(r, 1, 10).why
    router.close(r)
    return state, why
  end

  it("is of one of three kinds, whatever its code", function()
    local known = 0
    for _ in pairs(other) do
      known = known + 1
    end
    assert.equal(-tonumber(C.DROVER_ELOST) + 1, #hurting + #harmless + known)
  end)

  for _, name in ipairs(hurting) do
    it(name .. " five times in a row puts the node out", function()
      assert.same({ C.DROVER_OUT, C.DROVER_WHY_FAILURES },
                  { after(C["DROVER_" .. name], 5) })
    end)
  end

  for _, name in ipairs(harmless) do
    it(name .. " does not hurt the node, as often as it comes", function()
      assert.same({ C.DROVER_UP, C.DROVER_WHY_NONE },
                  { after(C["DROVER_" .. name], 50) })
    end)
  end

  for name, why in pairs(other) do
    it(name .. " takes the row back at once, and says why", function()
      assert.same({ C.DROVER_OUT, C["DROVER_" .. why] },
                  { after(C["DROVER_" .. name], 1) })
    end)
  end

  it("carries its Retry-After to the row", function()
    local r = router.with(1)
    router.hit(r, 1, 10, { code = C.DROVER_ERATELIMITED, retry_after = 33 })
    assert.near(33, stat(r, 1, 10).out_for, 0.02)
    assert.is_nil((router.hit(r, 1, 42)))
    assert(router.hit(r, 1, 43.02))
    assert.equal(C.DROVER_WHY_NONE, stat(r, 1, 43.02).why)
    router.close(r)
  end)

  it("shows the share of successes", function()
    local r = router.with(1)
    assert.is_true(stat(r, 1, 10).success_share ~= stat(r, 1, 10).success_share)
    for i = 1, 8 do
      router.hit(r, 1, 10, { code = i % 4 == 0 and C.DROVER_ERESET or 0 })
    end
    assert.near(0.75, stat(r, 1, 38.9).success_share, 1e-6)
    router.close(r)
  end)
end)


describe("a node that is out", function()
  it("is out for four processes at once, and back for all", function()
    local r = router.with(2)
    local function in_each(f)
      for _ = 1, 4 do
        assert.equal(0, router.child(f))
      end
    end
    for _ = 1, 5 do
      router.child(function()
        router.hit(r, 1, 10, { code = C.DROVER_ERESET })
      end)
    end
    in_each(function()
      for _ = 1, 10 do
        assert(router.turn(r, 10.1, 0.5) == 2)
      end
    end)
    assert.equal(0, router.child(function()
      for _ = 1, 2 do
        assert(router.turn(r, 16, 0.5) == 1)        -- the probes
      end
    end))
    in_each(function()
      assert(stat(r, 1, 16.1).why == C.DROVER_WHY_SLOW_START)
    end)
    router.close(r)
  end)

  it("is limited for four processes by one 429", function()
    local r = router.with(1)
    router.child(function()
      router.hit(r, 1, 10, { code = C.DROVER_ERATELIMITED, retry_after = 20 })
    end)
    for _ = 1, 4 do
      assert.equal(0, router.child(function()
        local _, code = router.turn(r, 11, 0.5)
        assert(code == C.DROVER_ERATELIMITED)
      end))
    end
    router.close(r)
  end)
end)


describe("all nodes down", function()
  it("get a probe in a second or two each, over a minute", function()
    local r, draw = router.with(3), lots(7)
    local sent, asked, soonest = 0, 0, 0
    run(r, 10, 60, function(now)
      local p = router.pick()
      asked = asked + 1
      local rc = C.drover_pick_node(r, p, now, draw(), router.err)
      if rc ~= 0 then
        assert.equal(C.DROVER_ENONODE, rc)
        assert.is_true(p.wait > 0 and p.wait <= 5, tostring(p.wait))
        soonest = math.max(soonest, p.wait)
        return
      end
      sent = sent + 1
      C.drover_ticket_sent(r, p)
      C.drover_ticket_done(r, p, router.outcome{ code = C.DROVER_ERESET }, now)
    end)
    -- 5 to go out, then a probe after 1 to 2 s each, and a tick.
    assert.is_true(sent >= 3 * (5 + 20) and sent <= 3 * (5 + 60),
                   tostring(sent))
    assert.is_true(soonest > 0.5)
    assert.equal(1200, asked)
    router.close(r)
  end)
end)


-- A minute in which everything fails, then none of it: sends for each request
-- of the minute, and which requests of the seconds behind it were answered.
local function outage(nodes, code)
  local r, draw = router.with(nodes), lots(5)
  local asked, sent, answered, healed = 0, 0, {}, 70
  run(r, 10, 70, function(now)
    local p, ok = router.pick(), false
    asked = asked + (now < healed and 1 or 0)
    for attempt = 1, 3 do
      if attempt > 1 and C.drover_retry_take(r, now) == 0
         or C.drover_pick_node(r, p, now, draw(), router.err) ~= 0 then
        break
      end
      sent = sent + (now < healed and 1 or 0)
      ok = now >= healed
      C.drover_ticket_sent(r, p)
      C.drover_ticket_done(r, p, router.outcome{ code = ok and 0 or code },
                           now)
      if ok then
        break
      end
    end
    if now >= healed + 5 then
      answered[#answered + 1] = ok and 1 or nil
    end
  end)
  router.close(r)
  return asked, sent, #answered
end


describe("a minute without any node", function()
  for _, nodes in ipairs{ 1, 2, 3, 8 } do
    for _, code in ipairs{ "EOVERLOADED", "ERESET" } do
      it(("of %d that say %s is over 5 s after it is over"):format(nodes, code),
         function()
        local asked, sent, answered = outage(nodes, C["DROVER_" .. code])
        assert.equal(1200, asked)
        assert.is_true(sent > 0 and sent <= 1.2 * asked + 10, tostring(sent))
        assert.is_true(answered >= 0.95 * 100, tostring(answered))
      end)
    end
  end
end)


describe("one bad node of three", function()
  -- Answers of the bad node by `sick(now, draw)`; the share of all requests
  -- that it gets from `after` on, and how many requests failed in the end when
  -- each is tried on another node once.
  local function share(policy, sick, seconds, after)
    local r, draw = router.with(3, { policy = policy }), lots(11)
    local at_bad, all, lost = 0, 0, 0
    run(r, 10, seconds, function(now)
      local p, failed = router.pick(), true
      for _ = 1, 3 do
        local rc = C.drover_pick_node(r, p, now, draw(), router.err)
        if rc ~= 0 then
          break
        end
        if now >= 10 + after then
          all = all + 1
          at_bad = at_bad + (p.node == 2 and 1 or 0)
        end
        failed = p.node == 2 and sick(now, draw)
        C.drover_ticket_sent(r, p)
        C.drover_ticket_done(r, p, router.outcome{
          code = failed and C.DROVER_ERESET or 0 }, now)
        if not failed then
          break
        end
      end
      lost = lost + (failed and 1 or 0)
    end)
    local why = stat(r, 2, 10 + seconds).why
    router.close(r)
    return at_bad / all, lost, tonumber(why)
  end

  for _, policy in ipairs{ "round_robin", "two_choices", "least_inflight" } do
    it("that is dead gets next to nothing by " .. policy, function()
      local part, lost = share(policy, function() return true end, 120, 5)
      assert.is_true(part < 0.01, tostring(part))
      assert.equal(0, lost)
    end)

    it("that flaps each second gets under 5 % after a minute by " .. policy,
       function()
      local part, lost = share(policy, function(now)
        return math.floor(now) % 2 == 0
      end, 240, 60)
      assert.is_true(part < 0.05, tostring(part))
      assert.equal(0, lost)
    end)
  end

  for _, percent in ipairs{ 30, 45, 60 } do
    it("that fails " .. percent .. " % at random goes out", function()
      local part, lost = share("round_robin", function(_, draw)
        return draw() < percent / 100
      end, 300, 120)
      assert.is_true(part < 0.2, tostring(part))
      assert.equal(0, lost)
    end)
  end
end)


describe("a node that is healed", function()
  it("gets a tenth of its share at first, all of it after 30 s", function()
    local r, draw = router.with(2, { policy = "round_robin" }), lots(13)
    for _ = 1, 5 do
      router.hit(r, 1, 10, { code = C.DROVER_ERESET })
    end
    router.turn(r, 16, 0.5)
    router.turn(r, 16, 0.5)
    local at_once = 0                               -- without a tick
    for _ = 1, 400 do
      at_once = at_once + (router.turn(r, 16, draw()) == 1 and 1 or 0)
    end
    assert.near(0.1 / 1.1, at_once / 400, 0.04)
    local function part_at(from)
      local mine = 0
      for i = 1, 400 do
        local now = from + i / 400
        if i % 100 == 1 then
          C.drover_tick(r, now)
        end
        mine = mine + (router.turn(r, now, draw()) == 1 and 1 or 0)
      end
      return mine / 400
    end
    -- Of its turns it takes a part x; then the other gets the rest: x/(1+x).
    assert.near(0.1 / 1.1, part_at(16), 0.04)
    assert.near(0.5 / 1.5, part_at(31), 0.06)
    assert.near(0.5, part_at(46.1), 0.01)
    router.close(r)
  end)
end)


describe("a node added at run time", function()
  it("starts slowly beside nodes that have served", function()
    local r = router.with(2, { now = 10, node = { weight = 2 } })
    assert.equal(2, C.drover_nodes(r)[2].weight)
    router.hit(r, 1, 20)
    local row = assert(router.add(r, { id = "n3", weight = 4 }, 30))
    assert.near(0.4, C.drover_nodes(r)[row].weight, 1e-6)
    assert.equal(C.DROVER_WHY_SLOW_START, stat(r, row, 30).why)
    C.drover_tick(r, 45)
    assert.near(2, C.drover_nodes(r)[row].weight, 1e-3)
    router.add(r, { id = "n3", weight = 8 }, 45)    -- configured anew
    assert.near(4, C.drover_nodes(r)[row].weight, 1e-3)
    C.drover_tick(r, 60.1)
    assert.equal(8, C.drover_nodes(r)[row].weight)
    assert.equal(C.DROVER_WHY_NONE, stat(r, row, 60.1).why)
    assert.equal(2, C.drover_nodes(r)[1].weight)
    router.close(r)
  end)

  for _, policy in ipairs{ "round_robin", "least_inflight", "health_score",
                           "weighted_random" } do
    it("is spared by " .. policy .. " at once, and used when alone", function()
      local r = router.with(1, { policy = policy, now = 10 })
      local draw, mine = lots(17), 0
      router.hit(r, 1, 20)
      router.add(r, { id = "n2" }, 30)
      for _ = 1, 600 do
        mine = mine + (router.turn(r, 30, draw()) == 2 and 1 or 0)
      end
      assert.is_true(mine > 20 and mine < 110, tostring(mine))
      C.drover_node_drain(r, "n1", 1)
      for _ = 1, 50 do
        assert.equal(2, (router.turn(r, 30, draw())))
      end
      router.close(r)
    end)
  end
end)
