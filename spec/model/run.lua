-- One driver, from the command line: the long runs, on the optimised library
-- that DROVER_LIB names, and a failure's one-line repeat.
--
--   luajit spec/model/run.lua NAME STEPS [SEED]
local name, count, seed = arg[1], tonumber(arg[2]), tonumber(arg[3] or 1)
local ok, run = pcall(require("spec.model." .. name .. "_steps").run, count,
                      seed)
print(ok and string.format("%s, seed %d: %d steps equal", name, seed,
                           run.count) or run)
os.exit(ok and 0 or 1)
