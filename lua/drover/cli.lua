-- The `drover` command: finds the subcommand, says what is wrong with the
-- words it got, and gives the exit status. The work is in cli/*.
--
-- SPDX-License-Identifier: MIT
local _M = {}

local HELP = [[
drover: drives inference requests to the node that will answer best

  drover serve [--config FILE | --model FILE.gguf] [--port 8000]
                            an OpenAI-compatible server
  drover chat [--url URL | --model FILE.gguf] [PROMPT]
                            talk to a model; the answer streams
  drover inspect FILE.gguf  what a model's file holds
  drover tokenize [--model FILE.gguf] < TEXT
                            its token ids, as JSON
  drover render [--model FILE.gguf] < MESSAGES.json
                            the prompt that its template makes
  drover --version          which one this is

`drover COMMAND --help` says more. With nothing named, both use the small
model that comes with Drover: no key, no network.
]]

-- name -> module, and the part of it that runs
local COMMANDS = {
  serve = { "drover.cli.serve" }, chat = { "drover.cli.chat" },
  inspect = { "drover.cli.inspect", "inspect" },
  tokenize = { "drover.cli.inspect", "tokenize" },
  render = { "drover.cli.inspect", "render" },
}


local function usage_error(message)
  io.stderr:write("drover: ", message, "; see drover --help\n")
  return 2
end


-- argv -> exit status; `drover serve` does not come back when all is well.
function _M.main(argv)
  local name = argv[1]
  if name == "--help" or name == "-h" or name == "help" then
    io.stdout:write(HELP)
    return 0
  end
  if name == "--version" then
    io.stdout:write("drover ", require("drover").VERSION, "\n")
    return 0
  end
  if not name then
    io.stderr:write(HELP)
    return 2
  end
  if name:sub(1, 1) == "-" then return usage_error("unknown flag " .. name) end
  if not COMMANDS[name] then
    return usage_error("unknown command " .. name)
  end
  local rest = {}
  for i = 2, #argv do rest[i - 1] = argv[i] end
  local module = require(COMMANDS[name][1])
  local status, why = (module[COMMANDS[name][2]] or module).run(rest)
  if status == 2 and why then return usage_error(name .. ": " .. why) end
  if why then io.stderr:write("drover: ", why, "\n") end
  return status
end


if arg and arg[0] and arg[0]:find("drover/cli%.lua$") then
  os.exit(_M.main(arg))               -- run as a program
end

return _M
