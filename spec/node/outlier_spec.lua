local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib


-- A pool whose rows have had such shares of successes in `n` requests each;
-- successes lie between failures, so that no five fail in a row.
local function pool(shares, n, now)
  local r = router.with(#shares)
  for row, share in ipairs(shares) do
    local due = 0
    for _ = 1, n do
      due = due + share
      local ok = due >= 1 - 1e-9
      due = ok and due - 1 or due
      assert(router.hit(r, row, now, { code = ok and 0 or C.DROVER_ERESET }))
    end
  end
  return r
end


local function out(r)
  local list, stats = {}, ffi.new("drover_node_stats")
  for i = 1, C.drover_node_count(r) do
    if C.drover_nodes(r)[i].state == C.DROVER_OUT then
      C.drover_node_stat(r, i, stats, 10)
      assert.equal(C.DROVER_WHY_OUTLIER, stats.why)
      list[#list + 1] = i
    end
  end
  return list
end


describe("an outlier", function()
  for _, row in ipairs{
    { "one of five that fails 3 in 10", { 1, 1, 1, .7, 1 }, { 4 } },
    { "one of eight a little below", { 1, 1, 1, 1, .9, 1, 1, 1 }, { 5 } },
    { "one of five within 5 points", { 1, 1, .96, 1, 1 }, {} },
    { "none where all fail alike", { .7, .7, .7, .7, .7, .7 }, {} },
    { "two of five: no outlier by sigma", { .7, .7, 1, 1, 1 }, {} },
    { "two of ten, at most three in ten out",
      { 1, 1, .6, 1, 1, 1, 1, 1, .65, 1 }, { 3, 9 } },
    { "one of two, 30 points worse", { 1, .7 }, { 2 } },
    { "one of three, 30 points worse", { .7, 1, 1 }, { 1 } },
    { "one of three, 15 points worse", { .85, 1, 1 }, {} },
    { "two of three bad: one at most", { .55, .7, 1 }, { 1 } },
    { "two of four bad: half of it", { .55, 1, .7, 1 }, { 1, 3 } },
    { "two of two bad", { .7, .7 }, {} },
  } do
    it("is judged: " .. row[1], function()
      local r = pool(row[2], 40, 10)
      C.drover_tick(r, 10)
      assert.same(row[3], out(r))
      C.drover_tick(r, 10.25)
      assert.same(row[3], out(r))
      router.close(r)
    end)
  end

  it("is judged by 20 outcomes or more", function()
    local r = pool({ 1, 1, 1, 1, .7 }, 19, 10)
    C.drover_tick(r, 10)
    assert.same({}, out(r))
    router.close(r)
  end)

  it("is judged by the last 30 s", function()
    local r = pool({ 1, .7 }, 40, 10)
    C.drover_tick(r, 41)
    assert.same({}, out(r))
    router.close(r)
  end)

  it("does not go when as many are out as may be", function()
    local r = pool({ 1, 1, 1, .7 }, 40, 10)
    for row = 1, 2 do
      for _ = 1, 5 do
        router.hit(r, row, 10, { code = C.DROVER_ERESET })
      end
    end
    C.drover_tick(r, 10)
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[4].state)
    router.close(r)
  end)

  it("is no row that drains", function()
    local r = pool({ 1, .7, 1 }, 40, 10)
    C.drover_node_drain(r, "n2", 1)
    C.drover_tick(r, 10)
    assert.equal(C.DROVER_DRAINING, C.drover_nodes(r)[2].state)
    router.close(r)
  end)

  it("goes out once, however many processes tick", function()
    local r = pool({ 1, 1, .6, 1, 1, 1 }, 40, 10)
    local stats = ffi.new("drover_node_stats")
    for _ = 1, 3 do
      router.child(function() C.drover_tick(r, 10) end)
    end
    assert.same({ 3 }, out(r))
    C.drover_node_stat(r, 3, stats, 10)
    assert.is_true(stats.out_for <= 5 + 1 / 64)     -- opened once
    router.close(r)
  end)

  it("comes back by two probes, with a clean record", function()
    local r = pool({ 1, .7, 1 }, 40, 10)
    C.drover_tick(r, 10)
    assert.same({ 2 }, out(r))
    for _ = 1, 2 do
      assert(router.hit(r, 2, 16))
    end
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[2].state)
    C.drover_tick(r, 16.25)
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[2].state)
    router.close(r)
  end)
end)
