-- Waiting through drover.h: one process, and several that are forked.
local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local waiter = require "spec.support.waiter"

local C = c.lib
local err = router.err
local request, try, enter, ask = waiter.request, waiter.try, waiter.enter,
                                 waiter.ask
local done, leave, claim, called = waiter.done, waiter.leave, waiter.claim,
                                   waiter.called
local PATIENCE = waiter.PATIENCE
local OVERLOADED, CLOSED, RATE = -5, -18, -4
local SIGKILL = 9

c.cdef[[
int sched_yield(void);
void *mmap(void *at, size_t size, int prot, int flags, int fd, long offset);
int munmap(void *at, size_t size);
]]


local function waiting(r)
  return C.drover_waiting(r)
end


-- A forked process that runs `f` and ends with its result.
local function fork(f)
  local pid = ffi.C.fork()
  assert(pid >= 0)
  if pid == 0 then
    local ok, status = pcall(f)
    if not ok then
      io.stderr:write(tostring(status), "\n")
    end
    ffi.C._exit(ok and status or 99)
  end
  return pid
end


local function join(pid)
  local status = ffi.new("int[1]")
  assert(ffi.C.waitpid(pid, status, 0) == pid)
  return status[0]
end


-- Give way until it is so.
local function until_true(f)
  local till = C.drover_clock() + PATIENCE
  repeat
    if f() then
      return
    end
    ffi.C.sched_yield()
  until C.drover_clock() > till
  error("it never was so", 2)
end


describe("a request that waits", function()
  local r

  local function open(capacity, opts)
    opts = opts or {}
    opts.node = { capacity = capacity }
    opts.now = C.drover_clock()
    r = router.with(opts.nodes or 1, opts)
  end

  after_each(function()
    assert.equal(0, waiting(r))
    assert.equal(0, router.series(router.expose(r),
                                  "inference_requests_pending"))
    assert.equal(0, C.drover_inflight(r, 0))
    router.close(r)
  end)

  it("is called when a slot is given back", function()
    open(1)
    local a, b = ask(r), ask(r)
    assert.equal(1, waiting(r))
    assert.equal(1, router.series(router.expose(r),
                                  "inference_requests_pending"))
    assert.equal(0, called(r, b))
    done(r, a)
    assert.equal(0, claim(r, b))
    assert.equal(CLOSED, called(r, b))
    done(r, b)
  end)

  it("is not passed by one that comes later", function()
    open(1)
    local a, b = ask(r), ask(r)
    done(r, a)
    local late = request()
    assert.equal(OVERLOADED, try(r, late))          -- b is called
    leave(r, b)
    assert.equal(0, try(r, late))
    done(r, late)
  end)

  it("is passed by one of a better priority, and goes before a worse",
     function()
    open(2)
    local a, b = ask(r), ask(r)
    local batch = ask(r, { priority = C.DROVER_BATCH })
    local plain = ask(r)
    local talk = ask(r, { priority = C.DROVER_INTERACTIVE })
    done(r, a)
    assert.equal(0, claim(r, talk))
    done(r, b)
    assert.equal(0, claim(r, plain))
    done(r, talk)
    assert.equal(0, claim(r, batch))
    done(r, plain)
    done(r, batch)
  end)

  it("is called no more often than there are slots", function()
    open(3)
    local held, rest = {}, {}
    for i = 1, 3 do
      held[i] = ask(r)
    end
    for i = 1, 6 do
      rest[i] = ask(r)
    end
    local function count()
      local n = 0
      for i = 1, 6 do
        n = n + (called(r, rest[i]) == 1 and 1 or 0)
      end
      return n
    end
    done(r, held[1])
    done(r, held[2])
    assert.equal(2, count())
    C.drover_wait_pump(r, C.drover_clock())
    C.drover_tick(r, C.drover_clock())
    assert.equal(2, count())
    leave(r, rest[1])                               -- cancelled, though called
    assert.equal(2, count())                        -- the next in its place
    for i = 2, 6 do
      leave(r, rest[i])
    end
    done(r, held[3])
  end)

  it("waits for its own row when it wants no other", function()
    open(1, { nodes = 2 })
    local one, two = ask(r, { only = 1 }), ask(r, { only = 2 })
    local waits = ask(r, { only = 2 })
    done(r, one)
    assert.equal(0, called(r, waits))
    local other = request()
    assert.equal(0, try(r, other))                  -- row 1 is not its
    assert.equal(1, other.p.node)
    done(r, two)
    assert.equal(0, claim(r, waits))
    done(r, waits)
    done(r, other)
  end)

  it("is called when a node comes", function()
    r = assert(router.open())
    local q = request()
    q.w.hold = 1
    assert.equal(C.DROVER_ENONODE, try(r, q))
    assert.equal(0, enter(r, q))
    assert(router.add(r, { id = "n1" }, C.drover_clock()))
    assert.equal(0, claim(r, q))
    done(r, q)
  end)

  it("is called by a tick when a drained node is taken back", function()
    open(1)
    local q = request()
    q.w.hold = 1
    C.drover_node_drain(r, "n1", 1)
    assert.equal(C.DROVER_ENONODE, try(r, q))
    q.p.wait = 60                                   -- as if a probe were due
    assert.equal(0, enter(r, q))
    C.drover_tick(r, C.drover_clock())
    assert.equal(0, called(r, q))
    C.drover_node_drain(r, "n1", 0)
    C.drover_tick(r, C.drover_clock())
    assert.equal(0, claim(r, q))
    done(r, q)
  end)

  it("goes in front again when its claim fails", function()
    open(1)
    local a, b = ask(r), ask(r)
    local last = ask(r)
    done(r, a)
    local thief = request()
    thief.p.called = 1                              -- as no honest one would
    assert.equal(0, try(r, thief))
    assert.equal(OVERLOADED, claim(r, b))
    done(r, thief)
    assert.equal(0, claim(r, b))
    done(r, b)
    assert.equal(0, claim(r, last))
    done(r, last)
  end)

  it("is called anew when what passed it ended before it could say so",
     function()
    open(1)
    local a, b = ask(r), ask(r)
    done(r, a)
    local thief = request()
    thief.p.called = 1
    assert.equal(0, try(r, thief))
    assert.equal(OVERLOADED, try(r, b))
    done(r, thief)                                  -- b is called still
    local now = C.drover_clock()
    assert.equal(0, C.drover_wait_again(r, b.p, b.w, now))
    assert.equal(1, called(r, b))
    leave(r, b)
  end)

  it("waits behind its tenant's rate, and others do not", function()
    open(8)
    local limit = ffi.new("drover_limit", { rpm = 60 })
    local function of(tenant)
      local q = request { key = tenant }
      q.p.limits[C.DROVER_SCOPE_TENANT] = limit
      return q
    end
    local first, second, third = of(7), of(7), of(7)
    assert.equal(0, try(r, first))
    assert.equal(RATE, try(r, second))
    assert.is_true(second.p.wait > 0.5 and second.p.wait <= 1)
    assert.equal(0, enter(r, second))
    assert.equal(RATE, try(r, third))
    assert.equal(C.DROVER_SCOPE_TENANT, third.p.refused_scope)
    local other = of(8)
    assert.equal(0, try(r, other))
    local now = C.drover_clock() + 1.1
    C.drover_wait_pump(r, now)
    assert.equal(1, called(r, second))
    second.p.called = 1
    assert.equal(0, try(r, second, now))
    leave(r, second)
    done(r, first)
    done(r, second)
    done(r, other)
  end)

  it("is refused when the queue is full, and when it is too late", function()
    open(1, { queue_max = 2 })
    local a, b, d, e = ask(r), ask(r), ask(r), request()
    assert.equal(OVERLOADED, try(r, e))
    assert.equal(OVERLOADED, enter(r, e))
    assert.truthy(ffi.string(err.text):find("all 2 places", 1, true))
    assert.is_true(e.p.wait >= 1)
    assert.equal(0, e.w.place)
    leave(r, d)
    assert.equal(OVERLOADED, enter(r, e, C.drover_clock() - 1))
    assert.truthy(ffi.string(err.text):find("too late", 1, true))
    leave(r, b)
    done(r, a)
  end)

  it("is refused where a smaller queue came later", function()
    open(1, { name = "wait.small", shared = true, queue_max = 2 })
    local small = assert(router.open{ name = "wait.small", shared = true,
                                      queue_max = 1 })
    local a, b, q = ask(r), ask(r), request()
    assert.equal(OVERLOADED, try(small, q))
    assert.equal(OVERLOADED, enter(small, q))
    assert.truthy(ffi.string(err.text):find("all 1 places", 1, true))
    assert.equal(0, enter(r, q))
    leave(r, q)
    leave(r, b)
    done(r, a)
    router.close(small)
  end)

  it("is forgotten by a port that closes, and ends all the same", function()
    open(1)
    local a, q = ask(r), request()
    local out = ffi.new("drover_port *[1]")
    assert.equal(0, C.drover_port_open(out, err))
    assert.equal(OVERLOADED, try(r, q))
    q.w.deadline = math.huge
    assert.equal(0, C.drover_wait_begin(r, out[0], q.p, q.w,
                                        C.drover_clock(), err))
    C.drover_port_close(out[0])
    done(r, a)
    assert.equal(1, called(r, q))
    leave(r, q)
    leave(r, q)
  end)

  it("leaves the rest of a capacity to others when it is a batch", function()
    open(16)
    local held = {}
    for i = 1, 14 do
      held[i] = request { priority = C.DROVER_BATCH }
      assert.equal(0, try(r, held[i]))
    end
    local batch = request { priority = C.DROVER_BATCH }
    assert.equal(OVERLOADED, try(r, batch))
    assert.equal(0, enter(r, batch))
    for i = 15, 16 do
      held[i] = request()
      assert.equal(0, try(r, held[i]))
    end
    done(r, held[15])
    done(r, held[16])
    assert.equal(0, called(r, batch))
    done(r, held[1])
    assert.equal(0, claim(r, batch))
    done(r, batch)
    for i = 2, 14 do
      done(r, held[i])
    end
  end)
end)


describe("processes that wait", function()
  local r
  local zones = 0

  local function open(capacity, nodes)
    zones = zones + 1
    r = router.with(nodes or 1, { shared = true, name = "wait" .. zones,
                                  node = { capacity = capacity },
                                  now = C.drover_clock() })
  end

  after_each(function()
    C.drover_tick(r, C.drover_clock())
    assert.equal(0, waiting(r))
    assert.equal(0, C.drover_inflight(r, 0))
    router.close(r)
  end)

  it("are called by the one that frees a slot", function()
    open(1)
    local a = ask(r)
    local pid = fork(function()
      local q = ask(r)
      assert(claim(r, q) == 0)
      done(r, q)
      return 0
    end)
    until_true(function() return waiting(r) == 1 end)
    done(r, a)
    assert.equal(0, join(pid))
  end)

  it("give their turn on when they are killed as they are called", function()
    open(1)
    local a = ask(r)
    local pid = fork(function()
      ask(r, { priority = C.DROVER_INTERACTIVE })
      ffi.C.pause()
    end)
    until_true(function() return waiting(r) == 1 end)
    local b = ask(r)
    done(r, a)
    assert.equal(0, called(r, b))
    ffi.C.kill(pid, SIGKILL)
    join(pid)
    assert.equal(1, C.drover_tick(r, C.drover_clock()))
    assert.equal(1, called(r, b))
    assert.equal(0, claim(r, b))
    done(r, b)
  end)

  it("do not touch what a parent waits for", function()
    open(1)
    local a, b = ask(r), ask(r)
    local pid = fork(function()
      leave(r, b)
      assert(called(r, b) == CLOSED)
      local q = ask(r)
      leave(r, b)
      leave(r, q)
      return waiting(r) == 1 and 0 or 1
    end)
    assert.equal(0, join(pid))
    done(r, a)
    assert.equal(0, claim(r, b))
    done(r, b)
  end)

  -- No tick runs, and each round ends with nobody in flight: a wake-up that is
  -- lost stays lost.
  it("lose no wake-up in 10,000 rounds", function()
    local PROCESSES, ROUNDS = 4, 2500
    local at = ffi.cast("volatile int *", ffi.C.mmap(nil, 4096, 3, 33, -1, 0))
    local function meet(i, round)       -- each writes its own word
      at[i] = round
      for k = 1, PROCESSES do
        until_true(function() return at[k] >= round end)
      end
    end
    local function ask_one(i, round)
      local q = request { key = round % 3, priority = (round + i) % 3,
                          only = (round * i) % 5 == 0 and 1 or 0 }
      while try(r, q) ~= 0 do
        assert(enter(r, q) == 0, ffi.string(err.text))
        if (round + i) % 7 > 0 then
          while claim(r, q) ~= 0 do end
          break
        end
        leave(r, q)                     -- gives up, and comes again
      end
      for _ = 1, (round * 7 + i * 3) % 5 do
        ffi.C.sched_yield()
      end
      done(r, q)
    end
    open(1, 2)
    local children = {}
    for i = 1, PROCESSES do
      children[i] = fork(function()
        for round = 1, ROUNDS do
          meet(i, round)
          ask_one(i, round)
        end
        return 0
      end)
    end
    for i = 1, PROCESSES do
      assert.equal(0, join(children[i]))
    end
    ffi.C.munmap(ffi.cast("void *", at), 4096)
  end)
end)

