local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

c.cdef[[
void node_upstream_set(struct node_row *own, const drover_upstream *u,
                       double now);
int node_upstream_take(struct node_row *own, uint32_t tokens, double now,
                       double *wait);
void node_upstream_give(struct node_row *own, uint32_t requests,
                        uint32_t tokens, double now);
double node_upstream_wait(const struct node_row *own, double now);
void node_upstream_clear(struct node_row *own);
]]

local NAN = 0 / 0


local function said(fields)
  local u = ffi.new("drover_upstream", NAN, NAN, NAN, NAN, NAN, NAN)
  for k, v in pairs(fields) do
    u[k] = v
  end
  return u
end


local function new_row()
  local own = ffi.new("struct node_row")
  local n, wait = { own = own }, ffi.new("double[1]")
  function n.set(fields, now)
    C.node_upstream_set(own, said(fields), now)
  end
  -- nil when it may pass, else the seconds to wait.
  function n.take(now, tokens)
    if C.node_upstream_take(own, tokens or 0, now, wait) == 1 then
      return nil
    end
    return wait[0]
  end
  -- How many pass at `now`, `most` at most.
  function n.pass(now, tokens, most)
    for i = 0, (most or 1000) - 1 do
      if n.take(now, tokens) then
        return i
      end
    end
    return most or 1000
  end
  return n
end


describe("a node's own limits", function()
  it("let all pass while nothing is known", function()
    local n = new_row()
    assert.equal(1000, n.pass(1, 1e9))
    assert.equal(0, C.node_upstream_wait(n.own, 1))
  end)

  it("let what is left pass, then wait until the reset", function()
    local n = new_row()
    n.set({ requests_left = 3, requests_reset = 10 }, 100)
    assert.equal(3, n.pass(101))
    assert.near(9, n.take(101), 0.01)
    assert.near(9, C.node_upstream_wait(n.own, 101), 0.01)
    assert.equal(0, n.pass(109.9))
    assert.equal(1000, n.pass(110.01))              -- and all again
  end)

  it("are paced when the limit is known", function()
    local n = new_row()
    n.set({ requests_limit = 10, requests_left = 2, requests_reset = 8 }, 100)
    assert.equal(2, n.pass(100))
    assert.near(1, n.take(100), 1e-6)
    assert.equal(0, n.pass(100.99))
    assert.equal(1, n.pass(101))
    assert.equal(3, n.pass(104))
    local passed = 0                                -- never more than the rate
    for step = 1, 60 do
      passed = passed + n.pass(104 + step / 10)
    end
    assert.equal(6, passed)
  end)

  it("are no limit once the bucket is full again", function()
    local n = new_row()
    n.set({ requests_limit = 10, requests_left = 0, requests_reset = 10 }, 100)
    assert.equal(0, n.pass(100))
    assert.equal(1000, n.pass(110.001))
  end)

  it("count tokens, and a request with more than all of them as all",
     function()
    local n = new_row()
    n.set({ tokens_limit = 1000, tokens_left = 400, tokens_reset = 6 }, 100)
    assert.equal(4, n.pass(100, 100))
    assert.near(1, n.take(100, 100), 1e-6)
    assert.near(10, n.take(100, 1e9), 1e-6)
    n = new_row()
    n.set({ tokens_left = 400, tokens_reset = 6 }, 100)
    assert.equal(4, n.pass(100, 100))
    assert.near(6, n.take(100, 1), 0.01)
  end)

  it("are taken both or none", function()
    local n = new_row()
    n.set({ requests_limit = 9, requests_left = 2, requests_reset = 7,
            tokens_left = 50, tokens_reset = 60 }, 100)
    assert.near(60, n.take(100, 51), 0.01)
    assert.equal(2, n.pass(100, 20))
  end)

  it("get back what was not used", function()
    local n = new_row()
    n.set({ requests_left = 1, requests_reset = 10,
            tokens_limit = 1000, tokens_left = 100, tokens_reset = 90 }, 100)
    assert.equal(1, n.pass(100, 100))
    C.node_upstream_give(n.own, 1, 100, 100)
    assert.equal(1, n.pass(100, 100))
    C.node_upstream_give(n.own, 1, 60, 100)
    assert.is_truthy(n.take(100, 61))
    assert.is_nil(n.take(100, 60))
    C.node_upstream_give(n.own, 1, 4e9, 1e6)        -- long after
    assert.equal(1000, n.pass(1e6, 1e6))
  end)

  for _, kind in ipairs{ "known", "not known" } do
    it("keep the lower of two words on one window, limit " .. kind, function()
      local limit = kind == "known" and 10 or nil
      local n = new_row()
      n.set({ requests_limit = limit, requests_left = 5,
              requests_reset = 5 }, 100)
      assert.equal(3, n.pass(100, 0, 3))
      n.set({ requests_limit = limit, requests_left = 4,    -- of before
              requests_reset = 6 }, 100)
      assert.equal(2, n.pass(100))
      n.set({ requests_limit = limit, requests_left = 0,
              requests_reset = 10 }, 100)
      assert.equal(0, n.pass(100))
    end)
  end

  it("begin anew with the next window", function()
    local n = new_row()
    n.set({ requests_left = 0, requests_reset = 2 }, 100)
    n.set({ requests_left = 7, requests_reset = 60 }, 101)
    assert.equal(7, n.pass(101))
  end)

  it("follow a limit that is raised, and one that is said at last", function()
    local n = new_row()
    n.set({ requests_limit = 10, requests_left = 0, requests_reset = 600 }, 100)
    n.set({ requests_limit = 100, requests_left = 90, requests_reset = 6 }, 100)
    assert.is_true(n.take(100.7) == nil)
    n.set({ requests_left = 1, requests_reset = 5 }, 101)
    n.set({ requests_limit = 10, requests_left = 5, requests_reset = 5 }, 102)
    assert.equal(5, n.pass(102))
  end)

  for _, row in ipairs{
    { "is full", { requests_limit = 5, requests_left = 5, requests_reset = 9 } },
    { "has been reset", { requests_left = 0, requests_reset = 0 } },
    { "no reset", { requests_left = 0 } },
    { "nothing left said", { requests_reset = 5 } },
    { "negative figures", { requests_left = -1, requests_reset = 5 } },
    { "a negative reset", { requests_left = 0, requests_reset = -5 } },
  } do
    it("do not limit: " .. row[1], function()
      local n = new_row()
      n.set(row[2], 100)
      assert.equal(1000, n.pass(100, 1e6))
    end)
  end

  it("take absurd figures without harm", function()
    for _, x in ipairs{ 1 / 0, 1e300, 2 ^ 63, 2 ^ 31, 1e-300, 0.5 } do
      for _, y in ipairs{ 1 / 0, 1e300, 1, 0, 1e-9 } do
        local n = new_row()
        n.set({ requests_limit = x, requests_left = y, requests_reset = x,
                tokens_limit = y, tokens_left = x, tokens_reset = y }, 100)
        local wait = n.take(100, 4294967295) or 0
        assert.is_true(wait >= 0 and wait <= 604801, tostring(wait))
      end
    end
  end)

  it("never keep a window for more than 300 s", function()
    local n = new_row()
    n.set({ requests_left = 0, requests_reset = 86400 }, 100)
    assert.near(300, n.take(100), 0.01)
  end)
end)


describe("a decision", function()
  local r

  local function pick(now, tokens)
    local p = router.pick()
    p.prompt_tokens = tokens or 0
    return C.drover_pick_node(r, p, now, 0.5, router.err), p
  end

  local function say(row, fields, now)
    C.drover_node_upstream(r, row, C.drover_nodes(r)[row].version,
                           said(fields), now)
  end

  after_each(function() router.close(r) end)

  it("goes to a node that has some left, and says when the first has", function()
    r = router.with(2)
    say(1, { requests_left = 1, requests_reset = 20 }, 10)
    say(2, { requests_left = 1, requests_reset = 50 }, 10)
    local chosen = {}
    for i = 1, 2 do
      local rc, p = pick(10)
      assert.equal(0, rc)
      chosen[i] = p.node
    end
    table.sort(chosen)
    assert.same({ 1, 2 }, chosen)
    local rc, p = pick(10)
    assert.equal(C.DROVER_ERATELIMITED, rc)
    assert.same({ C.DROVER_SCOPE_NODE, C.DROVER_LIMIT_UPSTREAM },
                { p.refused_scope, p.refused_kind })
    assert.near(20, p.wait, 0.01)
    assert.equal(0, (pick(30.01)))
    local stats = ffi.new("drover_node_stats")
    C.drover_node_stat(r, 2, stats, 40)
    assert.equal(C.DROVER_WHY_RATE, stats.why)
    assert.near(20, stats.out_for, 0.01)
  end)

  it("that finds no room gives the units back", function()
    r = router.with(1, { node = { capacity = 1 } })
    say(1, { requests_left = 2, requests_reset = 20 }, 10)
    local _, first = pick(10)
    assert.equal(C.DROVER_EOVERLOADED, (pick(10)))
    C.drover_ticket_done(r, first, router.outcome(), 10)
    assert.equal(0, (pick(10)))
  end)

  it("gives back what an attempt did not use, or did not begin", function()
    r = router.with(1)
    say(1, { requests_left = 2, requests_reset = 20, tokens_left = 100,
             tokens_reset = 20 }, 10)
    local _, p = pick(10, 90)
    C.drover_ticket_sent(r, p)
    C.drover_ticket_done(r, p, router.outcome{ tokens = 40 }, 10)
    assert.equal(C.DROVER_ERATELIMITED, (pick(10, 61)))
    _, p = pick(10, 60)
    C.drover_ticket_done(r, p, router.outcome(), 10)
    _, p = pick(10, 60)
    C.drover_ticket_sent(r, p)
    C.drover_ticket_done(r, p, router.outcome{ tokens = 4294967295 }, 10)
    local rc, refused = pick(10)
    assert.equal(C.DROVER_ERATELIMITED, rc)
    assert.is_true(refused.wait > 0)
  end)

  it("is shared by all processes", function()
    r = router.with(1)
    say(1, { requests_left = 2, requests_reset = 20 }, 10)
    assert.equal(7, router.child(function()
      return pick(10) == 0 and 7 or 8
    end))
    assert.equal(0, (pick(10)))
    assert.equal(C.DROVER_ERATELIMITED, (pick(10)))
  end)

  it("ignores what was said of a row's former node, and of no row", function()
    r = router.with(1)
    C.drover_node_upstream(r, 1, C.drover_nodes(r)[1].version - 1,
                           said{ requests_left = 0, requests_reset = 9 }, 10)
    C.drover_node_upstream(r, 9, 1, said{ requests_left = 0 }, 10)
    assert.equal(0, (pick(10)))
  end)

  it("forgets them when the operator says so", function()
    r = router.with(1)
    say(1, { requests_left = 0, requests_reset = 20 }, 10)
    assert.equal(C.DROVER_ERATELIMITED, (pick(10)))
    assert.equal(0, C.drover_node_clear(r, "n1", 10))
    assert.equal(0, (pick(10)))
    assert.equal(C.DROVER_ENOTFOUND, C.drover_node_clear(r, "n9", 10))
  end)
end)
