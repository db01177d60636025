-- Fuzzes the parsers that are written in Lua: inputs of a fixed seed, made of
-- what the parser knows and then broken.
--
--   luajit spec/fuzz/lua/run.lua NAME RUNS SECONDS      (make fuzz)
--
-- RUNS inputs, or with 0 as many as SECONDS allow. A target is
-- spec/fuzz/lua/NAME.lua: { make = f(chance) -> input, check = f(input) },
-- check raises when something is wrong. No error of Lua's own may come out of
-- a parser, and no input may take a second.
local ffi = require "ffi"
local steps = require "spec.model.steps"

ffi.cdef "unsigned alarm(unsigned);"

local HANG_S, EVERY = 30, 1000
local name, runs = arg[1], tonumber(arg[2] or 20000)
local seconds = tonumber(arg[3] or 60)
local seed = tonumber(arg[4] or 1)
local target = require("spec.fuzz.lua." .. name)
local chance = steps.new(name, seed)


local function written(input)
  if type(input) ~= "table" then
    return type(input) == "string" and string.format("%q", input)
           or tostring(input)
  end
  local out = {}
  for k, v in pairs(input) do
    out[#out + 1] = tostring(k) .. " = " .. written(v)
  end
  return "{ " .. table.concat(out, ", ") .. " }"
end


local function fail(input, why)
  print(string.format("%s, seed %d, input %d: %s\n  %s", name, seed,
                      chance.count, tostring(why), written(input)))
  print("0 passed, 1 failed")
  os.exit(1)
end


local until_time = os.time() + seconds
while runs > 0 and chance.count < runs or runs == 0 do
  if chance.count % EVERY == 0 then
    ffi.C.alarm(HANG_S)               -- ends a parser that hangs
    if os.time() > until_time then break end
  end
  chance:step(name)
  local input = target.make(chance)
  local ok, why = xpcall(target.check, debug.traceback, input)
  if not ok then fail(input, why) end
end
print(string.format("%s: %d inputs of seed %d", name, chance.count, seed))
print("1 passed, 0 failed")
