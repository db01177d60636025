local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

local NAN = 0 / 0


local function value(r, name)
  return router.series(router.expose(r), name)
end


-- The sum over all series of a metric.
local function total(r, metric)
  local sum = 0
  for line in router.expose(r):gmatch("[^\n]+") do
    if line:sub(1, #metric + 1) == metric .. "{" then
      sum = sum + tonumber(line:match("} (.*)$"))
    end
  end
  return sum
end


describe("the exposition", function()
  local r

  before_each(function() r = router.with(2) end)
  after_each(function() router.close(r) end)

  it("is well formed: HELP and TYPE once, every series once", function()
    router.hit(r, 1, 1, { completion_tokens = 5, dollars = 0.5 })
    C.drover_request_done(r, 1, 0, 0.001, 0.2)
    local seen, known, metric = {}, {}, nil
    for line in router.expose(r):gmatch("[^\n]+") do
      local name = line:match("^# HELP (%S+) %S")
      if name then
        assert.is_nil(known[name])
        metric, known[name] = name, true
      elseif line:sub(1, 1) == "#" then
        assert.equal(metric, (line:match("^# TYPE (%S+) %l+$")))
      else
        local series, number = line:match("^(%S+) (%S+)$")
        assert.is_truthy(series and tonumber(number), line)
        assert.equal(metric, series:sub(1, #metric))
        assert.is_nil(seen[series])
        seen[series] = true
      end
    end
    for _, name in ipairs{ "drover_requests_total", "drover_attempts_total",
        "drover_inflight", "drover_node_state", "drover_tokens_total",
        "drover_cost_dollars_total", "drover_limit_refusals_total",
        "drover_overhead_seconds", "gen_ai_server_time_to_first_token_seconds",
        "inference_requests_pending" } do
      assert.is_true(known[name], name)
    end
  end)

  it("tells the bytes it needs and writes no more than it may", function()
    local need = tonumber(C.drover_expose(r, nil, 0))
    local buf = ffi.new("char[?]", 101)
    buf[100] = 42
    assert.equal(need, tonumber(C.drover_expose(r, buf, 100)))
    assert.equal(42, buf[100])
    assert.equal(router.expose(r):sub(1, 99), ffi.string(buf))
  end)

  it("counts requests by node and outcome", function()
    C.drover_request_done(r, 1, 0, NAN, NAN)
    C.drover_request_done(r, 1, C.DROVER_ETIMEOUT, NAN, NAN)
    C.drover_request_done(r, 0, C.DROVER_ENONODE, NAN, NAN)
    C.drover_request_done(r, 2, C.DROVER_ECANCELLED, NAN, NAN)
    for name, want in pairs{
      ['node="n1",outcome="ok"'] = 1, ['node="n1",outcome="timeout"'] = 1,
      ['node="",outcome="no_node"'] = 1, ['node="n2",outcome="cancelled"'] = 1,
      ['node="n2",outcome="ok"'] = 0,
    } do
      assert.equal(want, value(r, "drover_requests_total{" .. name .. "}"), name)
    end
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(r, totals, 1)
    assert.same({ 4, 2, 2, 2, 1, 0 }, { totals.requests, totals.failures,
      totals.nodes, totals.healthy, totals.members, totals.inflight })
  end)

  it("counts attempts, tokens and dollars", function()
    router.hit(r, 2, 1, { prompt_tokens = 9, completion_tokens = 40,
                          cached_tokens = 3, dollars = 0.125 })
    router.hit(r, 2, 1, { code = C.DROVER_ERATELIMITED })
    for name, want in pairs{
      ['drover_attempts_total{node="n2",kind="ok"}'] = 1,
      ['drover_attempts_total{node="n2",kind="rate_limited"}'] = 1,
      ['drover_tokens_total{node="n2",type="input"}'] = 9,
      ['drover_tokens_total{node="n2",type="output"}'] = 40,
      ['drover_tokens_total{node="n2",type="cached"}'] = 3,
      ['drover_cost_dollars_total{node="n2"}'] = 0.125,
    } do
      assert.equal(want, value(r, name), name)
    end
  end)

  it("shows what is in flight and the nodes' states", function()
    local p = router.pick()
    C.drover_pick_node(r, p, 1, 0, router.err)
    C.drover_node_drain(r, "n2", 1)
    assert.equal(1, value(r, 'drover_inflight{node="n1"}'))
    assert.equal(0, value(r, 'drover_node_state{node="n1"}'))
    assert.equal(3, value(r, 'drover_node_state{node="n2"}'))
    C.drover_ticket_done(r, p, router.outcome(), 1)
    C.drover_node_remove(r, "n2")
    assert.is_nil(value(r, 'drover_node_state{node="n2"}'))
  end)

  it("sorts times into buckets", function()
    C.drover_request_done(r, 1, 0, 2e-5, 0.03)
    C.drover_request_done(r, 1, 0, 0.2, 99)
    C.drover_request_done(r, 1, 0, -1, NAN)
    local text = router.expose(r)
    for name, want in pairs{
      ['drover_overhead_seconds_bucket{le="1e-05"}'] = 0,
      ['drover_overhead_seconds_bucket{le="2.5e-05"}'] = 1,
      ['drover_overhead_seconds_bucket{le="0.1"}'] = 1,
      ['drover_overhead_seconds_bucket{le="+Inf"}'] = 2,
      ["drover_overhead_seconds_count"] = 2,
      ["drover_overhead_seconds_sum"] = 0.20002,
      ['gen_ai_server_time_to_first_token_seconds_bucket{le="0.02"}'] = 0,
      ['gen_ai_server_time_to_first_token_seconds_bucket{le="0.04"}'] = 1,
      ['gen_ai_server_time_to_first_token_seconds_bucket{le="10"}'] = 1,
      ["gen_ai_server_time_to_first_token_seconds_count"] = 2,
    } do
      assert.equal(want, router.series(text, name), name)
    end
  end)

  it("counts what callers count, from the start", function()
    local names = {
      [C.DROVER_PANIC] = "drover_panic_total",
      [C.DROVER_RETRY_DENIED] = "drover_retry_denied_total",
      [C.DROVER_STREAM_QUIRK] = "drover_stream_quirks_total",
      [C.DROVER_USAGE_ESTIMATED] = "drover_usage_estimated_total",
      [C.DROVER_STORE_ERROR] = "drover_limit_store_errors_total",
    }
    for counter, name in pairs(names) do
      assert.equal(0, value(r, name))
      for _ = 1, counter do
        C.drover_count(r, counter)
      end
      assert.equal(counter, value(r, name))
    end
    local totals = ffi.new("drover_totals")
    C.drover_router_totals(r, totals, 1)
    assert.equal(C.DROVER_PANIC, totals.panics)
    assert.equal(C.DROVER_RETRY_DENIED, totals.retries_denied)
  end)

  it("counts retries that the budget denies, over all handles", function()
    local one = router.with(1, { name = "expose.retry", shared = true })
    local two = assert(router.open{ name = "expose.retry", shared = true })
    for _ = 1, 5 do
      router.hit(one, 1, 100)                       -- earn one
    end
    for i = 1, 11 do
      assert.equal(1, C.drover_retry_take(i % 2 == 0 and one or two, 101))
    end
    assert.equal(0, C.drover_retry_take(one, 102))
    assert.equal(0, C.drover_retry_take(two, 102))
    assert.equal(2, value(one, "drover_retry_denied_total"))
    assert.equal(1, C.drover_retry_take(one, 111))
    local conf = router.settings(100)
    conf.retry_ratio, conf.retry_reserve = 0.2, 1
    C.drover_router_apply_end(one, 1, conf, 111)
    assert.equal(0, C.drover_retry_take(two, 111))
    router.close(one)
    router.close(two)
  end)

  it("earns a retry with a request's first send alone", function()
    local p = router.pick()
    for _ = 1, 20 do
      p.again = 1
      C.drover_pick_node(r, p, 50, 0, router.err)
      C.drover_ticket_sent(r, p)
      C.drover_ticket_done(r, p, router.outcome(), 50)
    end
    local retries = 0
    while C.drover_retry_take(r, 50) == 1 do
      retries = retries + 1
    end
    assert.equal(10, retries)
  end)

  it("shows tokens that are booked", function()
    local p, totals = router.pick(), ffi.new("drover_totals")
    p.prompt_tokens, p.max_tokens = 70, 30
    C.drover_pick_node(r, p, 1, 0, router.err)
    C.drover_router_totals(r, totals, 1)
    assert.equal(100, totals.reserved_tokens)
    C.drover_ticket_done(r, p, router.outcome(), 1)
    C.drover_router_totals(r, totals, 1)
    assert.equal(0, totals.reserved_tokens)
  end)

  it("counts refusals by limit", function()
    local small = router.with(1, { concurrent = 2, node = { capacity = 1 } })
    local p, q = router.pick(), router.pick()
    C.drover_pick_node(small, p, 1, 0, router.err)
    C.drover_pick_node(small, q, 1, 0, router.err)
    assert.equal(1, value(small, 'drover_limit_refusals_total{limit="node"}'))
    router.close(small)
  end)

  it("escapes what a label may hold", function()
    router.add(r, { id = 'a"b\\c', url = "http://q" })
    assert.equal(0, value(r, [[drover_inflight{node="a\"b\\c"}]]))
  end)

  it("sums over all processes, dead ones too", function()
    for _ = 1, 3 do
      router.child(function()
        router.hit(r, 1, 1)
        C.drover_request_done(r, 1, 0, 0.001, NAN)
      end)
      C.drover_tick(r, 2)
    end
    assert.equal(3, value(r, 'drover_attempts_total{node="n1",kind="ok"}'))
    assert.equal(3, value(r, "drover_overhead_seconds_count"))
  end)

  it("never counts less when a row gets another node", function()
    for _ = 1, 3 do
      router.hit(r, 1, 1, { completion_tokens = 10 })
    end
    C.drover_node_remove(r, "n1")
    assert.equal(3, value(r, 'drover_attempts_total{node="n1",kind="ok"}'))
    assert.equal(1, router.add(r, { id = "new" }))
    router.hit(r, 1, 1, { completion_tokens = 10 })
    assert.equal(1, value(r, 'drover_attempts_total{node="new",kind="ok"}'))
    assert.equal(3, value(r, 'drover_attempts_total{node="",kind="ok"}'))
    assert.equal(4, total(r, "drover_attempts_total"))
    assert.equal(40, total(r, "drover_tokens_total"))
  end)

  it("is one series for a label that two rows carry", function()
    for generation = 1, 2 do
      C.drover_router_apply_begin(r, generation)
      router.add(r, { id = "same", key = "k" .. generation,
                      generation = generation })
      router.hit(r, C.drover_node_find(r, "same"), 1)
      C.drover_router_apply_end(r, generation, router.settings(0), 1)
      router.hit(r, C.drover_node_find(r, "same"), 1)
    end
    local text = router.expose(r)
    assert.is_true(router.series(text,
      'drover_attempts_total{node="same",kind="ok"}') >= 3)
    local _, count = text:gsub('drover_node_state{node="same"}', "")
    assert.equal(1, count)
  end)
end)
