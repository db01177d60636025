local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local err = router.err
local NAN = 0 / 0
local BOOKED = 4294967295           -- as it was booked
local HOUR = 3600

local SCOPES = { [0] = "router", "tenant", "model", "node", "key" }
local SCOPE = { router = 0, tenant = 1, model = 2, node = 3, key = 4 }


-- Structs that picks point to, for as long as the specs run.
local keep = {}

local function limit(fields)
  local l = ffi.new("drover_limit", fields)
  keep[#keep + 1] = l
  return l
end


-- opts: limits = { tenant = {…}, … }, key, model, prompt, tokens (to come),
-- now, paid, only.
local function pick(opts)
  local p = router.pick()
  for scope, fields in pairs(opts.limits or {}) do
    p.limits[SCOPE[scope]] = limit(fields)
  end
  p.key, p.model = opts.key or 7, opts.model or 0
  p.prompt_tokens, p.max_tokens = opts.prompt or 0, opts.tokens or 0
  p.paid, p.only = opts.paid or 0, opts.only or 0
  return p
end


local function claim(r, p, now)
  return C.drover_pick_node(r, p, now or 100, 0.5, err)
end


local function done(r, p, fields, now)
  local o = router.outcome(fields)
  return C.drover_ticket_done(r, p, o, now or 100)
end


-- One attempt, sent and settled; 0, or the code and the pick that was refused.
local function turn(r, opts, now, fields)
  local p = pick(opts)
  local rc = claim(r, p, now)
  if rc ~= 0 then
    return rc, p
  end
  C.drover_ticket_sent(r, p)
  assert.equal(0, done(r, p, fields or { tokens = BOOKED }, now))
  return 0, p
end


local function count_turns(r, opts, now, fields)
  for i = 0, 999 do
    local rc, p = turn(r, opts, now, fields)
    if rc ~= 0 then
      return i, rc, p
    end
  end
  return 1000
end


-- A router whose one node has limits: node, key (fields of drover_limit).
local function with_node(node, key, opts)
  local r = assert(router.open(opts))
  local n, alive = router.node{ id = "n1", capacity = 50 }
  n.limit_node, n.limit_key = ffi.new("drover_limit", node or {}),
                              ffi.new("drover_limit", key or {})
  n.price_input, n.price_output = 2, 10             -- dollars a million
  assert.equal(1, C.drover_node_add(r, n, 1, err))
  assert(alive)
  return r
end


-- A router where `fields` limit one scope, and how to ask under it.
local function under(scope, fields)
  if scope == "node" then
    return with_node(fields), {}
  elseif scope == "key" then
    return with_node(nil, fields), {}
  end
  return with_node(), { limits = { [scope] = fields } }
end


local function merged(a, b)
  local out = {}
  for _, from in ipairs{ a, b or {} } do
    for k, v in pairs(from) do
      out[k] = v
    end
  end
  return out
end


local function inflight(r)
  return C.drover_inflight(r, 0)
end


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


describe("settling", function()
  local r
  before_each(function() r = with_node() end)
  after_each(function() r = router.close(r) end)

  local TPM = { tpm = 6000, burst_tokens = 1000 }   -- 100 a second
  local opts = { prompt = 300, tokens = 500, limits = { tenant = TPM } }

  -- How many tokens would pass now.
  local function left(now, key)
    local p = pick{ prompt = 1000, limits = { tenant = TPM }, key = key }
    if claim(r, p, now) == 0 then
      done(r, p, nil, now)
      return 1000
    end
    return 1000 - p.wait * 100
  end

  local function settled(fields, now, more)
    local p = pick(merged(opts, more))
    assert.equal(0, claim(r, p, 100))
    assert.near(200, left(100), 1e-4)
    C.drover_ticket_sent(r, p)
    assert.equal(0, done(r, p, fields, now or 100))
    return p
  end

  it("gives back what was booked and not used", function()
    settled{ tokens = 350 }
    assert.near(650, left(100), 1e-4)
  end)

  it("gives all back when nothing was billed", function()
    settled{ tokens = 0 }
    assert.equal(1000, left(100))
  end)

  it("leaves the booking when nobody knows", function()
    settled{ tokens = BOOKED }
    assert.near(200, left(100), 1e-4)
  end)

  it("makes a debt of what was used above it, which later ones pay", function()
    settled{ tokens = 2800 }
    assert.near(-1800, left(100), 1e-4)
    assert.near(0, left(118), 1e-4)
    assert.near(700, left(125), 1e-4)
  end)

  it("counts a debt from when it is known", function()
    settled({ tokens = 1800 }, 160)                 -- long after the refill
    assert.near(0, left(160), 1e-4)
  end)

  it("happens once", function()
    local p = pick(opts)
    claim(r, p, 100)
    C.drover_ticket_sent(r, p)
    local copy = ffi.new("drover_pick", p)
    assert.equal(0, done(r, p, { tokens = 700 }))
    local before = left(100)
    for _ = 1, 5 do
      assert.equal(C.DROVER_ECLOSED, done(r, copy, { tokens = 0 }))
      copy = ffi.new("drover_pick", copy)
      copy.ticket = 1
      assert.equal(C.DROVER_ECLOSED, done(r, copy, { tokens = 9000 }))
    end
    assert.equal(before, left(100))
  end)

  it("is of the limit as it was booked", function()
    local p = pick(opts)
    claim(r, p, 100)
    C.drover_ticket_sent(r, p)
    keep[#keep].tpm = 60                            -- a reload, meanwhile
    done(r, p, { tokens = 0 })
    assert.equal(1000, left(100))
  end)

  it("does not touch a name that came to the place meanwhile", function()
    router.close(r)
    r = with_node(nil, nil, { keys_max = 1 })
    local p = pick(merged(opts, { key = 1 }))
    claim(r, p, 100)
    C.drover_ticket_sent(r, p)
    for key = 2, 40 do                              -- p's name is idle by now
      turn(r, merged(opts, { key = key }), 200)
    end
    local before = {}
    for key = 2, 40 do
      before[key] = left(200, key)
    end
    done(r, p, { tokens = 5 }, 200)                 -- gives back
    for key = 2, 40 do
      assert.equal(before[key], left(200, key))
    end
  end)

  it("finds a name again that owes", function()
    router.close(r)
    r = with_node(nil, nil, { keys_max = 1 })
    local p = pick(merged(opts, { key = 1 }))
    claim(r, p, 100)
    C.drover_ticket_sent(r, p)
    for key = 2, 40 do
      turn(r, merged(opts, { key = key, prompt = 1, tokens = 1 }), 200)
    end
    done(r, p, { tokens = 5000 }, 300)
    assert.near(1000 - 4200, left(300, 1), 1e-4)
  end)

  it("replaces dollars by what it cost, in the hour it is known", function()
    local money = { dollars_per_day = 0.01 }
    local ask = { prompt = 1000, tokens = 300, limits = { tenant = money } }
    local p = pick(ask)                             -- 5000 millionths
    assert.equal(0, claim(r, p, 100))
    assert.equal(0, (turn(r, ask, 100, { dollars = NAN })))
    assert.equal(C.DROVER_EQUOTA, (turn(r, ask, 100)))
    C.drover_ticket_sent(r, p)
    done(r, p, { dollars = 0.001 }, 3700)
    assert.equal(C.DROVER_EQUOTA, (turn(r, ask, 3700)))     -- 1000 short
    ask.tokens = 200
    assert.equal(0, (turn(r, ask, 3700, { dollars = 0.5 })))
    assert.equal(C.DROVER_EQUOTA, (turn(r, ask, 25 * HOUR)))
    local _, q = turn(r, ask, 25 * HOUR)
    assert.near(HOUR, q.wait, 1e-6)
    assert.equal(0, (turn(r, ask, 26 * HOUR)))
  end)
end)


describe("a dead process", function()
  local r
  local L = { rpm = 60, burst_requests = 3, tpm = 6000, burst_tokens = 1000,
              concurrent = 3, dollars_per_day = 0.012 }
  local opts = { prompt = 200, tokens = 160, limits = { tenant = L } }

  before_each(function() r = with_node(L, L) end)
  after_each(function() r = router.close(r) end)

  it("gives all back that was not sent, by the second tick", function()
    router.child(function()
      for _ = 1, 2 do
        assert(claim(r, pick(opts), 100) == 0)
      end
    end)
    assert.equal(2, inflight(r))
    C.drover_tick(r, 100)
    C.drover_tick(r, 100)
    assert.equal(0, inflight(r))
    local open = {}
    for i = 1, 2 do
      open[i] = pick(opts)
      assert.equal(0, claim(r, open[i], 100))
    end
    local p = pick(merged(opts, { tokens = 80 }))
    assert.equal(0, claim(r, p, 100))               -- 3 requests, 1000 tokens
    done(r, p)
    done(r, open[1])
    done(r, open[2])
  end)

  it("leaves what it sent at the prompt's tokens and dollars", function()
    router.child(function()
      local p = pick(opts)
      assert(claim(r, p, 100) == 0)
      C.drover_ticket_sent(r, p)
    end)
    C.drover_tick(r, 100)
    -- Of 1000 tokens 200 stay, of 12000 millionths 400, of 3 requests one.
    local p = pick{ prompt = 0, tokens = 1000, limits = { tenant = L } }
    assert.equal(C.DROVER_ERATELIMITED, claim(r, p, 100))
    assert.near(2, p.wait, 1e-6)
    p = pick{ prompt = 0, tokens = 800, limits = { tenant = L } }
    assert.equal(0, claim(r, p, 100))
    done(r, p)
    local money = { dollars_per_day = 0.012 }
    p = pick{ prompt = 801, tokens = 1000, limits = { tenant = money } }
    assert.equal(C.DROVER_EQUOTA, claim(r, p, 100))
    assert.equal(C.DROVER_LIMIT_DAY, p.refused_kind)
    assert.equal(2, (count_turns(r, { limits = { tenant = L } }, 100)))
  end)

  it("has no slot of a name left, however it ended", function()
    local asks = merged(opts, { tokens = 100 })
    for i = 1, 12 do
      router.child(function()
        local open = {}
        for _ = 1, 3 do
          local p = pick(asks)
          assert(claim(r, p, 100 * i) == 0)
          open[#open + 1] = p
        end
        if i % 3 > 0 then
          C.drover_ticket_sent(r, open[1])
        end
        if i % 4 == 0 then
          done(r, open[2], { tokens = BOOKED }, 100 * i)
        end
        claim(r, pick(asks), 100 * i)               -- refused
      end)
      C.drover_tick(r, 100 * i)
      C.drover_tick(r, 100 * i)
    end
    local now = 200000
    local open = {}
    for i = 1, 3 do
      open[i] = pick(asks)
      assert.equal(0, claim(r, open[i], now))
    end
    for i = 1, 3 do
      done(r, open[i], nil, now)
    end
    assert.equal(0, inflight(r))
  end)
end)


describe("a closed handle", function()
  it("leaves what it sent at the prompt's tokens", function()
    local L = { tpm = 6000, burst_tokens = 1000, concurrent = 1 }
    local kept = with_node(nil, nil, { name = "claim.close", shared = true })
    local one = assert(router.open{ name = "claim.close", shared = true })
    local p = pick{ prompt = 200, tokens = 600, limits = { tenant = L } }
    assert.equal(0, claim(one, p, 100))
    C.drover_ticket_sent(one, p)
    router.close(one)
    p = pick{ tokens = 1000, limits = { tenant = L } }
    assert.equal(C.DROVER_ERATELIMITED, claim(kept, p, 100))
    assert.near(2, p.wait, 1e-6)
    router.close(kept)
  end)
end)


describe("a rate that hosts share", function()
  local r
  local share = ffi.new("drover_share")
  local L = { rpm = 6000, flags = 1 }               -- a burst of 100
  local opts = { limits = { tenant = L } }

  before_each(function() r = with_node() end)
  after_each(function() r = router.close(r) end)

  it("is this host's alone before any share is set", function()
    assert.equal(100, (count_turns(r, opts, 10)))
    assert.equal(1, C.drover_share_base(r, ffi.new("double[1]")))
  end)

  it("is parted, rate and burst", function()
    local until_ = ffi.new("double[1]")
    C.drover_share_set(r, 0, 0.25, 77)
    assert.equal(0.25, C.drover_share_base(r, until_))
    assert.equal(77, until_[0])
    assert.equal(25, (count_turns(r, opts, 10)))
    assert.equal(25, (count_turns(r, opts, 11)))    -- a second's worth
    assert.equal(100, (count_turns(r, merged(opts, { limits = {
      tenant = { rpm = 6000 } }, key = 8 }), 10)))  -- not shared
  end)

  it("has its own part on top, for a time", function()
    C.drover_share_set(r, 0, 0.25, 0)
    turn(r, opts, 9)
    assert.are_not.equal(0, C.drover_share_next(r, 0, share))
    C.drover_share_set(r, share.id, 0.5, 20)
    assert.equal(75, (count_turns(r, opts, 15)))
    assert.equal(0.75, (C.drover_share_next(r, 0, share) and share.share))
    assert.equal(25, (count_turns(r, opts, 30)))
  end)

  it("is told with its name's number, scope and askers", function()
    assert.equal(0, C.drover_share_next(r, 0, share))
    turn(r, merged(opts, { limits = { tenant = L, model = L } }), 10)
    turn(r, opts, 10)
    local p = pick(opts)
    p.called = 1                                    -- asked once already
    claim(r, p, 10)
    done(r, p)
    local seen, place = {}, C.drover_share_next(r, 0, share)
    while place ~= 0 do
      seen[tonumber(share.scope)] = share.asked
      place = C.drover_share_next(r, place, share)
    end
    assert.same({ [SCOPE.tenant] = 2, [SCOPE.model] = 1 }, seen)
  end)

  it("has the same number on each host", function()
    local other = with_node(nil, nil, { keys_max = 100 })
    turn(r, opts, 10)
    turn(other, opts, 10)
    C.drover_share_next(r, 0, share)
    local id = share.id
    C.drover_share_next(other, 0, share)
    assert.equal(id, share.id)
    router.close(other)
  end)

  it("ignores names that it does not know", function()
    C.drover_share_set(r, 12345, 0.5, 20)
    assert.equal(100, (count_turns(r, opts, 10)))
  end)
end)
