-- Tasks, waits and timers of the plain loop.
local drover = require "drover"


describe("drover.go()", function()
  it("runs at once, up to the first wait", function()
    local steps = {}
    local task = drover.go(function(x)
      steps[#steps + 1] = x
      drover.sleep(0)
      steps[#steps + 1] = "after"
      return 1, nil, 3
    end, "before")
    assert.same({ "before" }, steps)
    local a, b, c = drover.wait(task)
    assert.same({ 1, 3 }, { a, c })
    assert.is_nil(b)
    assert.same({ "before", "after" }, steps)
  end)

  it("raises in who waits for it, each time", function()
    local task = drover.go(function() error({ mine = true }) end)
    for _ = 1, 2 do
      local ok, e = pcall(drover.wait, task)
      assert.is_false(ok)
      assert.is_true(e.mine)
    end
  end)

  it("lets tasks wait for tasks", function()
    local inner = drover.go(function()
      drover.sleep(0.001)
      return "x"
    end)
    local one = drover.go(function() return drover.wait(inner) .. "1" end)
    local two = drover.go(function() return drover.wait(inner) .. "2" end)
    assert.same({ "x1", "x2", "x" }, { drover.wait(one, two, inner) })
  end)

  it("lets a task give way by a plain yield", function()
    local order = {}
    local function walk(name)
      for i = 1, 2 do
        order[#order + 1] = name .. i
        coroutine.yield()
      end
    end
    drover.wait(drover.go(walk, "a"), drover.go(walk, "b"))
    assert.same({ "a1", "b1", "a2", "b2" }, order)
  end)

  it("keeps nothing of tasks that ended", function()
    local weak = setmetatable({}, { __mode = "v" })
    for i = 1, 8 do
      weak[i] = drover.go(drover.sleep, 0)
    end
    drover.wait(unpack(weak))
    for _ = 1, 2 do
      collectgarbage()
    end
    assert.is_nil(next(weak))
  end)

  it("refuses what is no function", function()
    assert.has_error(function() drover.go("x") end)
  end)
end)


describe("drover.sleep()", function()
  it("ends in the order of its times", function()
    local order, tasks = {}, {}
    for i, s in ipairs { 0.006, 0.002, 0.004, 0, 0.002 } do
      tasks[i] = drover.go(function()
        drover.sleep(s)
        order[#order + 1] = i
      end)
    end
    drover.wait(unpack(tasks))
    assert.same({ 4, 2, 5, 3, 1 }, order)
  end)

  it("in a coroutine of somebody else's drives the loop", function()
    local ticks = 0
    local task = drover.go(function()
      for _ = 1, 3 do
        drover.sleep(0.001)
        ticks = ticks + 1
      end
    end)
    coroutine.wrap(function() drover.sleep(0.02) end)()
    assert.equal(3, ticks)
    drover.wait(task)
  end)

  it("of no seconds is refused", function()
    assert.has_error(function() drover.sleep(-1) end)
    assert.has_error(function() drover.sleep("x") end)
  end)
end)


describe("drover.loop()", function()
  it("says what is not built yet", function()
    assert.has_error(function() drover.loop("luv") end)
  end)
end)
