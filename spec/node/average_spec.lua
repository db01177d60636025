local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local exp = math.exp


local function near(want, got, tolerance)
  assert.near(want, got, tolerance or math.abs(want) * 1e-4 + 1e-6)
end


describe("a node's averages", function()
  local r, row

  before_each(function()
    r = router.with(1, { now = 100 })
    row = C.drover_nodes(r)[1]
  end)

  after_each(function() router.close(r) end)

  it("are unknown before the first sample", function()
    for _, field in ipairs{ "first_token_ms", "token_ms", "error_rate",
                            "waiting", "kv_used", "memory_gb", "load" } do
      assert.is_true(row[field] ~= row[field], field)
    end
  end)

  it("let a higher first-token time in at once, a lower one with time", function()
    router.hit(r, 1, 100, { first_token_ms = 20 })
    near(20, row.first_token_ms)
    router.hit(r, 1, 100, { first_token_ms = 500 })
    near(500, row.first_token_ms)
    router.hit(r, 1, 100, { first_token_ms = 20 })
    near(500, row.first_token_ms)
    router.hit(r, 1, 110, { first_token_ms = 20 })
    near(20 + 480 * exp(-1), row.first_token_ms)
    router.hit(r, 1, 110.1, { first_token_ms = 20 })
    near(20 + 480 * exp(-1.01), row.first_token_ms)
  end)

  it("are not fed by what was not measured", function()
    router.hit(r, 1, 100, { first_token_ms = 20, token_ms = 8 })
    router.hit(r, 1, 105)
    near(20, row.first_token_ms)
    near(8, row.token_ms)
  end)

  it("weigh time per token by age", function()
    router.hit(r, 1, 100, { token_ms = 10 })
    router.hit(r, 1, 110, { token_ms = 40 })
    near((10 * exp(-1) + 40) / (exp(-1) + 1), row.token_ms)
    for _ = 1, 100 do
      router.hit(r, 1, 110, { token_ms = 20 })      -- a burst counts in full
    end
    near((10 * exp(-1) + 40 + 2000) / (exp(-1) + 101), row.token_ms)
  end)

  it("weigh failures that hurt by age, and forget them", function()
    router.hit(r, 1, 100)
    near(0, row.error_rate)
    router.hit(r, 1, 100, { code = C.DROVER_ERESET })
    near(0.5, row.error_rate)
    router.hit(r, 1, 110)
    near(exp(-1) / (2 * exp(-1) + 1), row.error_rate)
    router.hit(r, 1, 1000)
    near(0, row.error_rate)
  end)

  it("are not moved by cancellations and bad requests", function()
    router.hit(r, 1, 100, { code = C.DROVER_ECANCELLED })
    assert.is_true(row.error_rate ~= row.error_rate)
    router.hit(r, 1, 100, { code = C.DROVER_EBADREQUEST })
    near(0, row.error_rate)
  end)

  it("take what a node reports, and leave what it does not", function()
    local nan = 0 / 0
    local report = ffi.new("drover_report", 12, 35, 4, nan, nan)
    assert.equal(0, C.drover_node_report(r, "n1", report, 101))
    near(12, row.memory_gb)
    near(35, row.load)
    near(4, row.waiting)
    assert.is_true(row.kv_used ~= row.kv_used)
    report.load, report.kv_used = nan, 0.5
    C.drover_node_report(r, "n1", report, 101)
    near(35, row.load)
    near(0.5, row.kv_used)
    assert.equal(C.DROVER_ENOTFOUND,
                 C.drover_node_report(r, "n9", report, 101))
  end)

  it("start at the pool's mean for a new node", function()
    router.add(r, { id = "n2" }, 100)
    router.hit(r, 1, 100, { first_token_ms = 30 })
    router.hit(r, 2, 100, { first_token_ms = 50 })
    local third = router.add(r, { id = "n3" }, 100)
    near(40, C.drover_nodes(r)[third].first_token_ms)
  end)

  it("drift back to the mean when nobody chose the node", function()
    router.add(r, { id = "n2" }, 100)
    router.hit(r, 1, 100, { first_token_ms = 1000 })
    router.hit(r, 2, 100, { first_token_ms = 100 })
    C.drover_tick(r, 101)
    C.drover_tick(r, 105)
    near(1000, row.first_token_ms)
    for now = 106, 200 do
      router.hit(r, 2, now, { first_token_ms = 100 })
      C.drover_tick(r, now)
    end
    assert.is_true(row.first_token_ms < 250)
    assert.is_true(row.first_token_ms >= 100)
  end)

  it("give the score of the formula", function()
    local stats = ffi.new("drover_node_stats")
    local function score(now)
      assert.equal(0, C.drover_node_stat(r, 1, stats, now))
      return stats.health_score
    end
    near(0.4 + 0.3 * (1 - 50 / 200), score(100))
    local nan = 0 / 0
    C.drover_node_report(r, "n1", ffi.new("drover_report", 20, 30, nan, nan,
                                          nan), 100)
    near(0.3 * 0.5 + 0.4 * 0.7 + 0.3 * 0.75, score(100))
    router.hit(r, 1, 100, { first_token_ms = 100 })
    near(0.15 + 0.4 * 0.75 + 0.3 * (1 - (35 + 30) / 200), score(100))
    router.hit(r, 1, 100, { code = C.DROVER_ETIMEOUT })
    near(0.15 + 0.4 * 0.65, score(100))             -- 65 * 0.7 + 300 > 200
    C.drover_node_report(r, "n1", ffi.new("drover_report", 400, 100, nan, nan,
                                          nan), 100)
    near(0.3, score(100))
  end)
end)
