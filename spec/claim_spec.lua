local ffi = require "ffi"
local c = require "spec.support.c"
local claims = require "spec.support.claims"
local router = require "spec.support.router"
local C = c.lib

local pick = claims.pick
local claim = claims.claim
local done = claims.done
local turn = claims.turn
local count_turns = claims.count_turns
local with_node = claims.with_node
local under = claims.under
local merged = claims.merged
local inflight = claims.inflight
local SCOPES = claims.SCOPES
local SCOPE = claims.SCOPE
local BOOKED = claims.BOOKED
local HOUR = 3600
local err = router.err


describe("a limit", function()
  local r
  after_each(function() r = router.close(r) end)

  -- What refuses, by scope and kind: the code of drover_pick_node.
  local RATE, FULL, QUOTA = C.DROVER_ERATELIMITED, C.DROVER_EOVERLOADED,
                            C.DROVER_EQUOTA

  for i = 0, 4 do
    local scope = SCOPES[i]

    it("of requests holds for one " .. scope, function()
      local opts
      r, opts = under(scope, { rpm = 60, burst_requests = 3 })
      local n, rc, p = count_turns(r, opts, 100)
      assert.equal(3, n)
      assert.equal(RATE, rc)
      assert.equal(i, p.refused_scope)
      assert.equal(C.DROVER_LIMIT_REQUESTS, p.refused_kind)
      assert.near(1, p.wait, 1e-6)
      assert.equal(0, p.node)
      assert.equal(1, count_turns(r, opts, 101))
      assert.equal(0, inflight(r))
    end)

    it("of tokens holds for one " .. scope, function()
      local opts
      r, opts = under(scope, { tpm = 6000, burst_tokens = 1000 })
      opts = merged(opts, { prompt = 300, tokens = 100 })
      local n, rc, p = count_turns(r, opts, 100)
      assert.equal(2, n)
      assert.equal(RATE, rc)
      assert.equal(i, p.refused_scope)
      assert.equal(C.DROVER_LIMIT_TOKENS, p.refused_kind)
      assert.near(2, p.wait, 1e-6)                  -- 200 at 100 a second
    end)

    it("of what is in flight holds for one " .. scope, function()
      local opts
      r, opts = under(scope, { concurrent = 2 })
      local a, b = pick(opts), pick(opts)
      assert.equal(0, claim(r, a))
      assert.equal(0, claim(r, b))
      local p = pick(opts)
      assert.equal(scope == "tenant" and RATE or FULL, claim(r, p))
      assert.equal(i, p.refused_scope)
      assert.equal(C.DROVER_LIMIT_CONCURRENT, p.refused_kind)
      assert.equal(0, p.wait)
      assert.equal(2, inflight(r))
      done(r, a)
      assert.equal(0, claim(r, p))
      done(r, b)
      done(r, p)
      assert.equal(0, inflight(r))
    end)

    it("of dollars holds for one " .. scope, function()
      local opts
      -- 1000 * 2 + 100 * 10 = 3000 millionths a request.
      for kind, field in pairs{ [4] = "dollars_per_day",
                                [5] = "dollars_per_month" } do
        if r then
          router.close(r)
        end
        r, opts = under(scope, { [field] = 0.01 })
        opts = merged(opts, { prompt = 1000, tokens = 100 })
        local n, rc, p = count_turns(r, opts, 1800)
        assert.equal(3, n)
        assert.equal(QUOTA, rc)
        assert.equal(i, p.refused_scope)
        assert.equal(kind, p.refused_kind)
        assert.near(kind == 4 and 25 * HOUR - 1800 or 31 * 24 * HOUR - 1800,
                    p.wait, 1e-6)
      end
    end)

    it("is counted by its name when it refuses: " .. scope, function()
      local opts
      r, opts = under(scope, { rpm = 1 })
      count_turns(r, opts, 100)
      assert.equal(1, router.series(router.expose(r),
        'drover_limit_refusals_total{limit="' .. scope .. '_rpm"}'))
    end)
  end

  it("of one name is not that of another", function()
    local opts = { limits = { tenant = { rpm = 1 } } }
    r = with_node()
    for key = 1, 50 do
      assert.equal(0, (turn(r, merged(opts, { key = key }), 100)))
    end
    for key = 1, 50 do
      assert.equal(RATE, (turn(r, merged(opts, { key = key }), 100)))
    end
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(r, totals, 100)
    assert.equal(50, totals.names)
  end)

  it("of a group is that of all its rows, of a key that of one", function()
    r = router.open()
    for i = 1, 4 do
      local n, alive = router.node{ id = "n" .. i, capacity = 50 }
      n.group = i <= 2 and 11 or 12
      n.limit_node = ffi.new("drover_limit", { rpm = 3, burst_requests = 3 })
      n.limit_key = ffi.new("drover_limit", { rpm = 2, burst_requests = 2 })
      assert(C.drover_node_add(r, n, 1, err) == i and alive)
    end
    local n = count_turns(r, { only = 1 }, 100)
    assert.equal(2, n)
    assert.equal(1, (count_turns(r, { only = 2 }, 100)))
    assert.equal(2, (count_turns(r, { only = 3 }, 100)))
  end)

  it("of a node sends the request to another one", function()
    r = router.open()
    for i = 1, 3 do
      local n, alive = router.node{ id = "n" .. i, capacity = 50 }
      n.limit_key = ffi.new("drover_limit", { rpm = i, burst_requests = i })
      assert(C.drover_node_add(r, n, 1, err) == i and alive)
    end
    local by_node = { 0, 0, 0 }
    for _ = 1, 6 do
      local rc, p = turn(r, {}, 100)
      assert.equal(0, rc)
      by_node[p.node] = by_node[p.node] + 1
    end
    assert.same({ 1, 2, 3 }, by_node)
    local rc, p = turn(r, {}, 100)
    assert.equal(RATE, rc)
    assert.near(20, p.wait, 1e-6)                   -- the soonest of 60, 30, 20
    assert.equal(SCOPE.key, p.refused_scope)
  end)

  it("that passes last is told, of several that refuse", function()
    r = with_node()
    local opts = { tokens = 100, limits = {
      router = { rpm = 60 }, tenant = { tpm = 600, burst_tokens = 100 },
      model = { rpm = 30 },
    } }
    assert.equal(0, (turn(r, opts, 100)))
    local rc, p = turn(r, opts, 100)
    assert.equal(RATE, rc)
    assert.equal(SCOPE.tenant, p.refused_scope)
    assert.equal(C.DROVER_LIMIT_TOKENS, p.refused_kind)
    assert.near(10, p.wait, 1e-6)
    assert.matches("the tenant has its 600 tokens a minute", ffi.string(err.text))
  end)

  it("says no to a name that the table has no room for", function()
    r = with_node(nil, nil, { keys_max = 1 })       -- one set of eight
    local opts = { limits = { tenant = { rpm = 1 } } }
    local passed = 0
    for key = 1, 20 do
      local rc, p = turn(r, merged(opts, { key = key }), 100)
      passed = passed + (rc == 0 and 1 or 0)
      if rc ~= 0 then
        assert.equal(FULL, rc)
        assert.equal(C.DROVER_LIMIT_TABLE, p.refused_kind)
        assert.equal(SCOPE.tenant, p.refused_scope)
      end
    end
    assert.equal(8, passed)
    -- A minute and the margin later all of them are idle.
    for key = 21, 28 do
      assert.equal(0, (turn(r, merged(opts, { key = key }), 161)))
    end
    assert.equal(0, inflight(r))
  end)
end)


describe("a claim", function()
  local r
  after_each(function() r = router.close(r) end)

  -- All five scopes, wide; then one of them has room for `n` more.
  local WIDE = { rpm = 6000, burst_requests = 50, tpm = 60000,
                 burst_tokens = 5000, concurrent = 50,
                 dollars_per_day = 5, dollars_per_month = 5 }
  local TIGHT = {
    rpm = { rpm = 6000, burst_requests = 2 },
    tpm = { tpm = 60000, burst_tokens = 200 },
    concurrent = { concurrent = 2 },
    day = { dollars_per_day = 0.0024 }, month = { dollars_per_month = 0.0024 },
  }
  local ASK = { prompt = 50, tokens = 50 }          -- 600 millionths

  for i = 0, 4 do
    for kind, tight in pairs(TIGHT) do
      it("takes nothing when " .. SCOPES[i] .. " refuses for its " .. kind,
      function()
        local of = {}
        for j = 0, 4 do
          of[j] = j == i and merged(WIDE, tight) or WIDE
        end
        r = with_node(of[3], of[4])
        local opts = merged(ASK, { limits = { router = of[0], tenant = of[1],
                                              model = of[2] } })
        local open = {}
        for _ = 1, 99 do
          local p = pick(opts)
          if claim(r, p) ~= 0 then
            assert.equal(i, p.refused_scope)
            break
          end
          open[#open + 1] = p
        end
        assert.is_true(#open == 2 or #open == 4)    -- 4: dollars
        for _ = 1, 20 do
          assert.are_not.equal(0, claim(r, pick(opts)))
        end
        -- Had a refusal booked anything, fewer than the rest would pass.
        assert.equal(#open, inflight(r))
        for _, p in ipairs(open) do
          done(r, p)                                -- unsent: all comes back
        end
        if i >= 3 then
          router.close(r)
          r = with_node(of[3], of[4])
        end
        opts.limits[SCOPES[i]] = i < 3 and WIDE or nil
        local n, _, p = count_turns(r, opts, 100)
        assert.equal((i < 3 or kind == "concurrent") and 50 or #open, n)
        assert.is_true(p.refused_kind ~= 0)
      end)
    end
  end

  it("that was never sent is as if it had not been", function()
    local l = { rpm = 1, tpm = 600, burst_tokens = 100, dollars_per_day = 0.001,
                concurrent = 1 }
    r = with_node(l, l)
    local opts = { prompt = 50, tokens = 50,
                   limits = { router = l, tenant = l, model = l } }
    for _ = 1, 20 do
      local p = pick(opts)
      assert.equal(0, claim(r, p))
      assert.equal(0, done(r, p, { tokens = 77, dollars = 5 }))
      assert.equal(0, p.paid)
    end
  end)

  it("is one request of router, tenant and model, however often it is sent",
  function()
    local l = { rpm = 60, burst_requests = 2 }
    r = with_node({ rpm = 60, burst_requests = 4 })
    local opts = { limits = { router = l, tenant = l, model = l } }
    local p = pick(opts)
    p.again = 1
    for _ = 1, 3 do
      assert.equal(0, claim(r, p))
      C.drover_ticket_sent(r, p)
      assert.equal(1, p.paid)
      done(r, p, { tokens = BOOKED, code = C.DROVER_ERESET })
    end
    assert.equal(0, (turn(r, opts, 100)))           -- the second of each
    assert.equal(C.DROVER_ERATELIMITED, (turn(r, opts, 100)))
    local rc, q = turn(r, merged(opts, { paid = 1 }), 100)
    assert.equal(C.DROVER_ERATELIMITED, rc)         -- the node's are four
    assert.equal(SCOPE.node, q.refused_scope)
    C.drover_pick_reset(p)
    assert.equal(0, p.paid)
  end)

  it("for more tokens than the burst books the burst", function()
    r = with_node()
    local opts = { prompt = 100, tokens = 100000,
                   limits = { tenant = { tpm = 6000, burst_tokens = 500 } } }
    assert.equal(0, (turn(r, opts, 100)))
    assert.near(5, select(2, turn(r, opts, 100)).wait, 1e-6)
    assert.equal(0, (turn(r, opts, 105)))
  end)

  it("of nothing passes where nothing is left", function()
    r = with_node()
    local opts = { limits = { tenant = { tpm = 60 } } }
    assert.equal(0, (turn(r, merged(opts, { tokens = 1 }), 100)))
    assert.equal(0, (turn(r, opts, 100)))
  end)

  it("on a row without a price passes under no limit of dollars", function()
    r = router.with(1)
    local rc, p = turn(r, { limits = { tenant = { dollars_per_day = 1e9 } } }, 9)
    assert.equal(C.DROVER_EQUOTA, rc)
    assert.equal(C.DROVER_LIMIT_DAY, p.refused_kind)
  end)
end)
