-- `drover chat`: one prompt, or a conversation on a terminal; answers stream.
--
-- SPDX-License-Identifier: MIT
local args = require "drover.cli.args"
local place = require "drover.cli.place"

local _M = {}

local HELP = [[
drover chat [--url URL | --model FILE.gguf] [--name NAME] [PROMPT]

  --url URL      an OpenAI-compatible server (its key: DROVER_API_KEY)
  --model FILE   a GGUF file (by default the one that comes along)
  --name NAME    which of the server's models (by default its first)

Without PROMPT it reads one from standard input; on a terminal it goes on
until the end of input.
]]

local FLAGS = { url = "a URL", model = "a GGUF file", name = "a model's name",
                help = true }
local PROMPT_MAX = 1024 * 1024


local function local_router(path)
  local why
  if path then
    why = not place.readable(path) and path .. ": cannot be read" or nil
  else
    path, why = place.model()
  end
  if why then return nil, why end
  local router, err = require("drover").new{
    nodes = { { url = "local:" .. path } },
  }
  return router, err and err.message:gsub("^nodes%[1%]%.url: ", "")
end


local function url_router(url, name)
  local key = os.getenv("DROVER_API_KEY")
  if key == "" then key = nil end
  local trimmed = url:gsub("/+$", "")
  local base = trimmed:match("^https?://[^/]+$") and trimmed .. "/v1" or trimmed
  if not name and base:match("^https?://") then
    local names, why = require("drover.cli.models").list(base, key)
    if not names then return nil, base .. "/models: " .. tostring(why) end
    name = names[1]
  end
  local router, err = require("drover").new{
    nodes = { { url = base, key = key or false } },
  }
  return router, router and name or err
end


-- A router and the model's name, or nil, why. drover.new raises what is wrong
-- with a URL or key: that is the user's mistake here, not ours.
local function open(opts)
  local ok, router, name
  if opts.url then
    ok, router, name = pcall(url_router, opts.url, opts.name)
  else
    ok, router, name = pcall(local_router, opts.model)
  end
  if not ok then
    local why = tostring(router):gsub("^.-nodes%[1%]%.url", "--url")
    return nil, (why:gsub("^.-nodes%[1%]%.key", "DROVER_API_KEY"))
  end
  if not router then return nil, tostring(name) end
  if not opts.url then
    name = require("drover.node").model_of_path(opts.model or place.model())
  end
  return router, name
end


-- Ask, print the answer as it comes, and keep both in `messages`.
local function turn(router, model, messages)
  local stream, err = router:stream{ model = model, messages = messages }
  if not stream then return nil, tostring(err) end
  for event in stream:events() do
    io.stdout:write(event.text or "")
    io.stdout:flush()
  end
  io.stdout:write("\n")
  local reply
  reply, err = stream:join()
  if not reply then return nil, tostring(err) end
  messages[#messages + 1] = reply.choices[1].message
  return true
end


local function converse(router, model)
  local messages = {}
  while true do
    io.stderr:write("> ")
    local line = io.read("*l")
    if not line then break end
    if line:find("%S") then
      messages[#messages + 1] = { role = "user", content = line }
      local ok, why = turn(router, model, messages)
      if not ok then
        io.stderr:write("drover: ", why, "\n")
        messages[#messages] = nil
      end
    end
  end
  io.stderr:write("\n")
  return 0
end


local function on_terminal()
  local rc = os.execute("test -t 0")
  return rc == true or rc == 0
end


function _M.run(argv)
  local opts, why = args.parse(argv, FLAGS, 1)
  if not opts then return 2, why end
  if opts.help then
    io.stdout:write(HELP)
    return 0
  end
  if opts.url and opts.model then
    return 2, "--url and --model exclude each other"
  end
  if opts.name and not opts.url then return 2, "--name goes with --url" end
  local prompt = opts.words[1]
  local terminal = not prompt and on_terminal()
  if not prompt and not terminal then
    prompt = io.read(PROMPT_MAX) or ""
  end
  if prompt and not prompt:find("%S") then return 2, "the prompt is empty" end
  local router, model = open(opts)
  if not router then return 1, model end
  if terminal then return converse(router, model) end
  local ok
  ok, why = turn(router, model, { { role = "user", content = prompt } })
  return ok and 0 or 1, why
end


return _M
