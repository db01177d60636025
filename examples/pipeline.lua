-- Steps made out of steps: luajit examples/pipeline.lua
-- Three countries are looked up at once, each in two ways; then one function
-- of ours makes a line of each. Nodes as in hello.lua.
local drover = require "drover"
local p = require "drover.pipeline"

local url, key = os.getenv "DROVER_URL", os.getenv "DROVER_KEY"
local model = os.getenv "DROVER_MODEL" or "lambkin"
local router = assert(drover.new{
  nodes = url and { { url = url,
                      key = key and { env = "DROVER_KEY" } or false } } or nil,
})

local capital = p.ask{ model = model, max_tokens = 40,
                       prompt = "What is the capital of {{country}}?" }
local spanish = p.ask{ model = model, max_tokens = 20,
                       prompt = "How do you say {{colour}} in Spanish?" }

local one = p.chain(
  p.parallel{ capital = capital, spanish = spanish },
  function(found) return found.capital .. " Dress code: " .. found.spanish end)
local all = p.chain(
  p.map(one, { max_concurrent = 2 }),
  function(lines) return table.concat(lines, "\n") end)

local text, ledger = p.run(router, all, {
  { country = "Norway", colour = "blue" },
  { country = "Peru", colour = "red" },
  { country = "Kenya", colour = "green" },
}, { timeout = 60 })
if not text then
  error(tostring(ledger), 0)        -- where a run fails, that is the error
end
print(text)
print(("%d calls, %d tokens written, %.2f s"):format(#ledger,
      ledger.output_tokens, ledger.seconds))
