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
local merged = claims.merged
local inflight = claims.inflight
local SCOPE = claims.SCOPE
local BOOKED = claims.BOOKED
local NAN = 0 / 0
local HOUR = 3600


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
    claims.kept[#claims.kept].tpm = 60                            -- a reload, meanwhile
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
