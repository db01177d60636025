-- The short form of `make proof`: four workers, nothing is lost.
local siege = require "bench.siege"


describe("a gateway of four workers", function()
  local server, upstream

  setup(function() server, upstream = siege.start() end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  it("answers all, sends each body once, keeps no slot", function()
    local calm = siege.calm(server, upstream, 5000)
    assert.equal(5000, calm.answered, calm.line)
    assert.equal(0, calm.errors)
    assert.equal(calm.attempts, calm.bodies)
    assert.is_true(calm.drained)
  end)

  it("row 61: loses only what was on a killed worker, through reloads", function()
    local storm = siege.storm(server, upstream, 3, 2)
    assert.same({}, storm.unexplained)
    assert.is_true(storm.answered > 100, storm.line)
    assert.is_true(#storm.kills >= 2)
    assert.is_true(storm.attempts - storm.lost <= storm.bodies)
    assert.is_true(storm.bodies <= storm.attempts)
    assert.is_true(storm.drained)
  end)

  it("has no slot left by the second tick after 30 kills", function()
    local kills = siege.kills(server, upstream, 30)
    assert.equal(30, kills.kills)
    assert.is_true(kills.held > 10)
    assert.is_true(kills.attempts - kills.lost <= kills.bodies)
    assert.is_true(kills.bodies <= kills.attempts)
    assert.is_true(kills.drained)
  end)

  it("carries open streams through reloads, byte for byte", function()
    local reloads = siege.reload_all(3, 10, 100, 50)
    assert.equal(10, reloads.whole, reloads.wrong)
    assert.is_true(reloads.open >= 10)
    assert.is_true(reloads.drained)
  end)
end)
