-- A million random steps of the code beside slow, obvious models of it, on a
-- made clock: equal at each step. Short runs under the sanitizers, the long
-- ones on the optimised library; both of a fixed seed, which is printed.
local SEED = 20261124

-- Steps of the long run; those under the sanitizers are fewer.
local RUNS = {
  { "limit", 300000, 5000 },
  { "breaker", 400000, 20000 },
  { "retry", 100000, 20000 },
  { "queue", 200000, 3000 },
}


for _, row in ipairs(RUNS) do
  local name, long, short = row[1], row[2], row[3]

  describe("the model of the " .. name, function()
    it("and the code are equal under the sanitizers", function()
      local run = require("spec.model." .. name .. "_steps").run(short, SEED)
      assert.equal(short, run.count)
    end)

    it("and the code are equal over " .. long .. " steps", function()
      local pipe = io.popen(string.format(
        "unset LD_PRELOAD; DROVER_LIB=build/libdrover_dev.so luajit "
        .. "spec/model/run.lua %s %d %d 2>&1", name, long, SEED))
      local said = pipe:read("*a"):gsub("%s+$", "")
      pipe:close()
      print(said)
      assert.equal(string.format("%s, seed %d: %d steps equal", name, SEED,
                                 long), said)
    end)
  end)
end
