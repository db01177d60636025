-- When a part of the nodes fails, or all of them for a while: what is
-- answered, how much more is sent, and how soon all is well again.
local retries = require "drover.retry"
local storm = require "spec.model.storm"

local RESERVE, RATIO = 10, 0.2        -- of any 10 s; of first sends

local FAULTS = {
  { kind = "overloaded", status = 503, took = 0.005 },
  { kind = "reset", billed = true, took = 0.02 },
  { kind = "unreachable", took = 0.001 },
}


local function between(list, from, till)
  local n, ok, retry = 0, 0, 0
  for _, one in ipairs(list) do
    if one.at >= from and one.at < till then
      n = n + 1
      ok = ok + (one.ok and 1 or 0)
      retry = retry + (one.retry and 1 or 0)
    end
  end
  return n, ok, retry
end


-- The fullest of ten equal parts of a list's range, over the mean.
local function wave(times)
  local first, last = math.huge, 0
  for _, at in ipairs(times) do
    first, last = math.min(first, at), math.max(last, at)
  end
  local parts, most = {}, 0
  for _, at in ipairs(times) do
    local i = math.min(9, math.floor((at - first) / (last - first) * 10))
    parts[i] = (parts[i] or 0) + 1
    most = math.max(most, parts[i])
  end
  return most / (#times / 10)
end


describe("one of three nodes dead:", function()
  for _, how in ipairs { "refused", "close", "status-503" } do
    it(how .. ", 99.99 % of 20,000 requests are answered", function()
      local pipe = io.popen("unset LD_PRELOAD; luajit spec/model/partial.lua "
                            .. how .. " 20000 2>&1")
      local said = pipe:read("*a")
      pipe:close()
      local answered, dead = said:match("answered (%d+) of 20000, (%d+) on")
      assert.is_true(tonumber(answered or 0) >= 19998, said)
      assert.is_true(tonumber(dead) >= 5, said)       -- it was asked
    end)
  end
end)


describe("all nodes failing for a minute:", function()
  for _, fault in ipairs(FAULTS) do
    describe(fault.kind, function()
      local run

      setup(function()
        run = storm.run { seed = 7, nodes = 3, rate = 100, kind = fault.kind,
                          status = fault.status, billed = fault.billed,
                          took = fault.took, from = 20, till = 80,
                          seconds = 110 }
      end)

      it("at most 1.2 attempts a request, and the reserve", function()
        local requests = between(run.requests, 20, 80)
        local attempts = between(run.attempts, 20, 80)
        assert.is_true(requests > 5000)
        assert.is_true(attempts <= (1 + RATIO) * requests + RESERVE, attempts)
      end)

      it("95 % are answered within 5 s of its end, and after", function()
        for second = 85, 108 do
          local n, ok = between(run.requests, second, second + 1)
          assert.is_true(ok >= 0.95 * n, second .. ": " .. ok .. " of " .. n)
        end
      end)

      it("all was well before", function()
        local n, ok = between(run.requests, 0, 19)
        assert.equal(n, ok)
      end)
    end)
  end

  it("retries of a crowd that failed at once come one by one", function()
    local run = storm.run { seed = 3, nodes = 3, rate = 0, crowd = 4000,
                            kind = "overloaded", status = 503, took = 0.005,
                            from = 0, till = 60, seconds = 20 }
    assert.is_true(#run.pauses > 300)
    assert.is_true(wave(run.pauses) < 2, wave(run.pauses))
  end)
end)


describe("a quarter of attempts failing:", function()
  it("retries keep to their budget in any ten seconds, and use it", function()
    local run = storm.run { seed = 5, nodes = 3, rate = 100, part = 0.25,
                            kind = "overloaded", status = 503, took = 0.005,
                            from = 0, till = 100, seconds = 60 }
    local most = 0
    for second = 0, 50 do
      local sends, _, retried = between(run.attempts, second, second + 10)
      most = math.max(most, sends - retried)
    end
    for second = 0, 50 do
      local taken = between(run.taken, second, second + 10)
      assert.is_true(taken <= RATIO * most + RESERVE, second)
    end
    local requests = between(run.requests, 10, 60)
    local attempts = between(run.attempts, 10, 60)
    assert.is_true(attempts > 1.15 * requests, attempts / requests)
  end)
end)


describe("pauses after the same failure", function()
  local retry = { min = 0.25, max = 8 }

  for _, asked in ipairs { 0, 0.04, 0.5, 1, 10 } do
    for count = 1, 3 do
      it("are no wave: " .. asked .. " s asked, attempt " .. count, function()
        local times = {}
        local e = { retry_after = asked > 0 and asked or nil }
        for i = 1, 2000 do
          times[i] = retries.pause(retry, e, count, (i - 0.5) / 2000, 0)
        end
        assert.is_true(wave(times) < 2, wave(times))
      end)
    end
  end
end)
