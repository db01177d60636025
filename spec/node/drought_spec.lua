-- With nobody up, what is out is tried sooner.
local ffi = require "ffi"
local router = require "spec.support.router"
local C = require("spec.support.c").lib

local OVERLOADED = -5


-- Put row `i` out at `now`.
local function put_out(r, i, now, after)
  for _ = 1, 5 do
    router.hit(r, i, now, { code = OVERLOADED, retry_after = after or 0 })
  end
end


local function out_for(r, i, now)
  local stats = ffi.new("drover_node_stats")
  assert(C.drover_node_stat(r, i, stats, now) == 0)
  return stats.out_for
end


describe("a row that is out", function()
  it("is tried in 1 to 2 s while no row is up", function()
    local r = router.with(3, { now = 1 })
    for i = 1, 3 do
      put_out(r, i, 100)
      assert.is_true(out_for(r, i, 100) >= 2.5)
    end
    C.drover_tick(r, 100.25)
    for i = 1, 3 do
      local left = out_for(r, i, 100.25)
      assert.is_true(left >= 1 and left <= 2 + 1 / 64, left)
    end
    router.close(r)
  end)

  it("waits as long as ever while another is up", function()
    local r = router.with(3, { now = 1 })
    put_out(r, 1, 100)
    put_out(r, 2, 100)
    local before = out_for(r, 1, 100.25)
    C.drover_tick(r, 100.25)
    assert.equal(before, out_for(r, 1, 100.25))
    router.close(r)
  end)

  it("waits as long as it asked", function()
    local r = router.with(1, { now = 1 })
    for _ = 1, 4 do
      router.hit(r, 1, 100, { code = OVERLOADED })
    end
    router.hit(r, 1, 100, { code = OVERLOADED, retry_after = 200 })
    C.drover_tick(r, 100.25)
    assert.is_true(out_for(r, 1, 100.25) > 199)
    router.close(r)
  end)

  it("is alone when others take none of its models", function()
    local r = assert(router.open())
    assert(router.add(r, { id = "a", models = { "one" } }))
    assert(router.add(r, { id = "b", models = { "two" } }))
    put_out(r, 1, 100)
    C.drover_tick(r, 100.25)
    assert.is_true(out_for(r, 1, 100.25) <= 2 + 1 / 64)
    router.close(r)
  end)
end)
