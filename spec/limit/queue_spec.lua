local ffi = require "ffi"
local queue = require "spec.support.queue"

local C = queue.C
local NONE, CONCURRENT, REQUESTS = 0, 1, 2
local ROUTER, TENANT, MODEL = 0, 1, 2
local ECLOSED, ERESOURCE, ETIMEOUT = -18, -19, -9


-- Pops all that may go at `now`; their names in order, as one string.
local function popped(q, now)
  local names = {}
  q:sweep(now)
  repeat
    local name = q:pop(now)
    names[#names + 1] = name
  until not name
  return table.concat(names, " ")
end


describe("the queue's order", function()
  it("is the best priority first, whatever the others are", function()
    local q = queue.new(8)
    q:enter("batch", { priority = 2, deadline = 1 })
    q:enter("plain", { priority = 1, deadline = 2 })
    q:enter("talk", { priority = 0, deadline = 90 })
    assert.equal("talk plain batch", popped(q, 0))
  end)

  it("is the earliest deadline first within a tenant", function()
    local q = queue.new(8)
    q:enter("c", { deadline = 30 })
    q:enter("a", { deadline = 10 })
    q:enter("b", { deadline = 20 })
    assert.equal("a b c", popped(q, 0))
  end)

  it("is first in, first out where deadlines are equal", function()
    local q = queue.new(8)
    for _, name in ipairs { "a", "b", "c", "d" } do
      q:enter(name, { deadline = 10 })
    end
    q:leave("b")
    q:enter("e", { deadline = 10 })             -- in b's place
    assert.equal("a c d e", popped(q, 0))
  end)

  it("gives each tenant its turn by tokens, not by requests", function()
    local q = queue.new(16)
    for i = 1, 6 do
      q:enter("s" .. i, { tenant = 1, tokens = 100, deadline = 10 })
    end
    for i = 1, 2 do
      q:enter("L" .. i, { tenant = 2, tokens = 300, deadline = 10 })
    end
    -- Three of 100 for one of 300; at round 300 both are due, who came first
    -- goes first.
    assert.equal("s1 s2 s3 L1 s4 s5 s6 L2", popped(q, 0))
  end)

  it("does not save up what a tenant earned while none of it could run",
     function()
    local q = queue.new(16)
    q.shut[7] = true
    for i = 1, 4 do
      q:enter("a" .. i, { tenant = 1, tokens = 10, deadline = 10 })
      q:enter("b" .. i, { tenant = 2, tokens = 10, model = 7, deadline = 10 })
    end
    assert.equal("a1 a2 a3 a4", popped(q, 0))
    for i = 5, 8 do
      q:enter("a" .. i, { tenant = 1, tokens = 10, deadline = 10 })
    end
    q.shut[7] = nil
    assert.equal("b1 b2 a5 b3 a6 b4 a7 a8", popped(q, 0))
  end)

  it("lets a tenant that comes later begin in the present round", function()
    local q = queue.new(32)
    for i = 1, 8 do
      q:enter("a" .. i, { tenant = 1, tokens = 10, deadline = 10 })
    end
    q:sweep(0)
    for _ = 1, 4 do
      q:pop(0)
    end
    for i = 1, 4 do
      q:enter("b" .. i, { tenant = 2, tokens = 10, deadline = 10 })
    end
    assert.equal("a5 b1 a6 b2 a7 b3 a8 b4", popped(q, 0))
  end)

  it("keeps two busy tenants no further apart than the largest of each",
     function()
    local q, served, largest = queue.new(64), { 0, 0 }, { 70, 900 }
    local seed = 1
    local function random(n)
      seed = (seed * 16807) % 2147483647
      return seed % n + 1
    end
    local number, names = 0, {}
    local function enter(tenant)
      number = number + 1
      local tokens = random(largest[tenant])
      names["r" .. number] = { tenant, tokens }
      q:enter("r" .. number, { tenant = tenant, tokens = tokens,
                               deadline = 10 + random(100) })
    end
    for _ = 1, 5 do
      enter(1)
      enter(2)
    end
    for _ = 1, 4000 do
      q:sweep(0)
      local name = q:pop(0)
      q:leave(name)
      local tenant, tokens = unpack(names[name])
      served[tenant] = served[tenant] + tokens
      assert.is_true(math.abs(served[1] - served[2])
                     <= largest[1] + largest[2])
      enter(tenant)
    end
  end)
end)


describe("an entry of the queue", function()
  it("is refused when the array is full", function()
    local q = queue.new(2)
    assert.equal(0, q:enter("a", {}))
    assert.equal(0, q:enter("b", {}))
    assert.equal(ERESOURCE, q:enter("c", {}))
    assert.is_true(q.retry >= 1)
    q:leave("a")
    assert.equal(0, q:enter("c", {}))
    assert.equal(2, C.limit_queue_count(q.view))
  end)

  it("is refused when its limit passes behind its deadline", function()
    local q = queue.new(2)
    assert.equal(ETIMEOUT, q:enter("a", { now = 5, deadline = 6, wait = 2 }))
    assert.equal(2, q.retry)
    assert.equal(ETIMEOUT, q:enter("a", { now = 5, deadline = 5 }))
    assert.equal(0, C.limit_queue_count(q.view))
  end)

  it("is refused when its turn would come too late at the rate of late",
     function()
    local q = queue.new(256)
    for i = 1, 200 do
      q:enter("r" .. i, { deadline = 1000 })
    end
    for i = 1, 40 do                -- ten a second, for four seconds
      local now = i / 10
      q:sweep(now)
      q:leave(q:pop(now))
      C.limit_queue_moved(q.view, 0, 0)
    end
    q.full = true
    q:sweep(4.3)
    assert.is_nil(q:pop(4.3))
    -- 160 wait: sixteen seconds, and half of that is still believed.
    assert.equal(ETIMEOUT, q:enter("late", { now = 4.3, deadline = 4.3 + 7 }))
    assert.is_true(q.retry > 14 and q.retry < 19)
    assert.equal(0, q:enter("soon", { now = 4.3, deadline = 4.3 + 9 }))
    -- Another tenant's first has its turn after one of the other's.
    assert.equal(0, q:enter("other", { now = 4.3, deadline = 4.3 + 1,
                                       tenant = 9 }))
    -- Who waits for a node waits for what has no rate.
    assert.equal(0, q:enter("hold", { now = 4.3, deadline = 4.3 + 1, hold = 1,
                                      tenant = 8 }))
  end)

  it("is not refused for the rate of a crowd that is gone", function()
    local q = queue.new(64)
    local function crowd(from)
      for i = 1, 40 do
        assert.equal(0, q:enter("r" .. i, { now = from, deadline = 1000 }))
      end
      for i = 1, 40 do                      -- one a second
        q:sweep(from + i / 2)
        if i % 2 == 0 then
          q:leave(q:pop(from + i / 2))
          C.limit_queue_moved(q.view, 0, 0)
        end
      end
    end
    local function late(now)
      return q:enter("late", { now = now, deadline = now + 5 })
    end
    crowd(0)
    q.full = true
    q:sweep(20.5)
    q:pop(20.5)
    assert.equal(ETIMEOUT, late(20.5))
    for i = 1, 40 do
      C.limit_queue_leave(q.view, q.places["r" .. i])
    end
    q:sweep(20.6)
    for i = 1, 40 do
      assert.equal(0, q:enter("s" .. i, { now = 20.7, deadline = 1000 }))
    end
    q:sweep(20.7)
    q:pop(20.7)
    assert.equal(0, late(20.7))
  end)

  it("goes when its deadline has come, and a call does not", function()
    local q = queue.new(4)
    q:enter("a", { deadline = 1 })
    q:enter("b", { deadline = 0.5 })
    q:sweep(0)
    assert.equal("b", q:pop(0))
    q:sweep(0.9)
    assert.equal(0, q:called("a"))
    q.full = true
    q:sweep(1)
    assert.is_nil(q:pop(1))
    assert.equal(ECLOSED, q:called("a"))
    assert.equal(0, C.limit_queue_leave(q.view, q.places.a))
    assert.equal(ECLOSED, q:again("a", {}))
    assert.equal(ECLOSED, q:called("b"))        -- 1 s without an answer
  end)

  it("returns to its place when the claim failed, and waits for a slot",
     function()
    local q = queue.new(4)
    q:enter("a", { deadline = 5 })
    q:enter("b", { deadline = 9 })
    q:sweep(0)
    assert.equal("a", q:pop(0))
    assert.equal(0, q:again("a", {}))
    assert.equal("", popped(q, 0))              -- b would fail as well
    C.limit_queue_moved(q.view, 77, 0)
    assert.equal("a b", popped(q, 0))
  end)

  it("tries again at once when a slot came back while it was called",
     function()
    local q = queue.new(4)
    q:enter("a", {})
    q:sweep(0)
    assert.equal("a", q:pop(0))
    C.limit_queue_moved(q.view, 77, 0)
    q:again("a", {})
    assert.equal("a", popped(q, 0))
  end)

  it("waits as long as a rate says, and those behind it too", function()
    local q = queue.new(8)
    q:enter("a", { tenant = 1, now = 0, wait = 2, scope = TENANT,
                   kind = REQUESTS, deadline = 9 })
    q:enter("b", { tenant = 1, now = 0, wait = 1, scope = TENANT,
                   kind = REQUESTS, deadline = 8 })
    q:enter("c", { tenant = 2, deadline = 9 })
    q:enter("d", { tenant = 1, priority = 0, deadline = 9 })
    assert.equal("d c", popped(q, 1))
    assert.equal("b", popped(q, 2))             -- it tries alone
    q:leave("b")
    assert.equal("a", popped(q, 2))
  end)

  it("lets one of a tenant at its limit try, when one of the tenant ended",
     function()
    local q = queue.new(8)
    local limit = { tenant = 1, scope = TENANT, kind = CONCURRENT,
                    deadline = 9 }
    for i = 1, 4 do
      q:enter("a" .. i, limit)
    end
    assert.equal("a1", popped(q, 0))
    q:again("a1", limit)
    C.limit_queue_moved(q.view, 2, 0)           -- of another tenant
    assert.equal("", popped(q, 0))
    C.limit_queue_moved(q.view, 1, 0)
    assert.equal("a1", popped(q, 0))
    q:leave("a1")                               -- it claimed
    assert.equal("a2", popped(q, 0))
  end)

  it("lets all try at once where rooms are counted", function()
    local q = queue.new(8)
    for i = 1, 3 do
      q:enter("a" .. i, { scope = ROUTER, kind = CONCURRENT, deadline = 9 })
    end
    assert.equal("a1 a2 a3", popped(q, 0))
  end)

  it("tries at each beat, whatever was not told", function()
    local q = queue.new(8)
    q:enter("a", { scope = MODEL, kind = CONCURRENT, model = 3,
                   deadline = 9 })
    assert.equal("a", popped(q, 0))
    q:again("a", { scope = MODEL, kind = CONCURRENT, model = 3 })
    assert.equal("", popped(q, 0.2))
    assert.equal("a", popped(q, 0.3))
  end)

  it("is called once for a slot, rung again, and taken back", function()
    local q = queue.new(4)
    q.rooms = 1
    q:enter("a", { deadline = 50 })
    q:enter("b", { deadline = 60 })
    assert.equal("a", popped(q, 0))
    assert.equal("", popped(q, 0.2))
    assert.equal(1, q.rings.a)
    assert.equal("", popped(q, 0.3))
    assert.equal(2, q.rings.a)
    assert.equal("b", popped(q, 1))             -- a's owner does not answer
    assert.equal(0, q:called("a"))
    q:leave("b")
    assert.equal("", popped(q, 1.5))
    assert.equal("a", popped(q, 2))
  end)

  it("is freed with its dead member, called or not", function()
    local q = queue.new(8)
    q:enter("a", { member = 3, deadline = 1 })
    q:enter("b", { member = 3, deadline = 2 })
    q:enter("c", { member = 4, deadline = 3 })
    q.rooms = 1
    assert.equal("a", popped(q, 0))
    C.limit_queue_reclaim(q.view, 3)
    assert.equal(1, C.limit_queue_count(q.view))
    assert.equal("c", popped(q, 0))
    assert.equal(ECLOSED, q:called("b"))
  end)

  it("is not another's that has its place by now", function()
    local q = queue.new(1)
    q:enter("a", {})
    q:leave("a")
    q:enter("b", {})
    assert.equal(ECLOSED, q:called("a"))
    assert.equal(0, C.limit_queue_leave(q.view, q.places.a))
    assert.equal(0, q:called("b"))
  end)
end)


describe("the queue's holder", function()
  it("is one, and looks again when another asked", function()
    local q = queue.new(4)
    assert.equal(1, C.limit_queue_hold(q.view, 11))
    assert.equal(0, C.limit_queue_let(q.view, 11))
    assert.equal(1, C.limit_queue_hold(q.view, 11))
    assert.equal(0, C.limit_queue_hold(q.view, 12))
    assert.equal(1, C.limit_queue_let(q.view, 11))
    assert.equal(0, C.limit_queue_let(q.view, 11))
  end)

  it("loses its word when it is dead", function()
    local q = queue.new(4)
    local dead = ffi.new("uint64_t", 4194303 * 4 + 1)   -- no such pid
    assert.equal(1, C.limit_queue_hold(q.view, dead))
    local self = C.member_self()
    assert.equal(0, C.limit_queue_hold(q.view, self))
    C.limit_queue_heal(q.view, self)
    assert.equal(1, C.limit_queue_hold(q.view, self))
    C.limit_queue_heal(q.view, self)                    -- it lives
    assert.equal(0, C.limit_queue_hold(q.view, self))
  end)

  it("leaves nobody in the array behind", function()
    local q = queue.new(16)
    for round = 1, 50 do
      for i = 1, 16 do
        assert.equal(0, q:enter("e" .. i, { deadline = 1 + i % 3 }))
      end
      q.rooms = round % 16
      popped(q, 0)
      q:sweep(2)
      for i = 1, 16 do
        C.limit_queue_leave(q.view, q.places["e" .. i])
      end
      q:sweep(2)
      assert.equal(0, C.limit_queue_count(q.view))
      assert.equal(0, q:top())
    end
  end)
end)


describe("a newcomer", function()
  local function ahead(q, fields, row)
    return q:ahead(fields, row or 1, fields.now or 0)
  end

  it("may not pass one that only wants room", function()
    local q = queue.new(8)
    q.full = true
    q:enter("a", { priority = 1, model = 5, deadline = 9 })
    popped(q, 0)
    assert.equal(1, ahead(q, { priority = 1 }).kept)
    assert.equal(1, ahead(q, { priority = 2 }).kept)
    assert.equal(0, ahead(q, { priority = 0 }).kept)
    q.takes = function(model) return model ~= 5 end
    assert.equal(0, ahead(q, { priority = 1 }).kept)
  end)

  it("passes one that waits for another row or for a limit of its own",
     function()
    local q = queue.new(8)
    q.full = true
    q:enter("a", { only = 2, deadline = 9 })
    q:enter("b", { tenant = 4, wait = 3, scope = TENANT, kind = REQUESTS,
                   deadline = 9 })
    popped(q, 0)
    assert.equal(0, ahead(q, { tenant = 5 }, 1).kept)
    assert.equal(1, ahead(q, { tenant = 5 }, 2).kept)
    local own = ahead(q, { tenant = 4, now = 1 }, 1)
    assert.equal(TENANT, own.scope)
    assert.equal(REQUESTS, own.kind)
    assert.equal(2, own.wait)
    assert.equal(NONE, ahead(q, { tenant = 4, priority = 0 }, 1).kind)
  end)

  it("sees how many are called, and to which row", function()
    local q = queue.new(8)
    q:enter("a", { only = 2, deadline = 9 })
    q:enter("b", { only = 3, deadline = 9 })
    popped(q, 0)
    local a = ahead(q, {}, 2)
    assert.equal(2, a.called)
    assert.equal(1, a.called_row)
    assert.equal(0, a.kept)
  end)
end)
