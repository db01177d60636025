-- `drover inspect`, `tokenize`, `render`: what a model's file holds, the ids of
-- a text, the prompt of messages. For finding out what goes wrong.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local args = require "drover.cli.args"
local jinja = require "drover.jinja"
local place = require "drover.cli.place"
local prompts = require "drover.prompt"

local _M = {}

local HELP = {
  inspect = [[
drover inspect FILE.gguf

Prints the file's keys, then its tensors: name, type, shape.
]],
  tokenize = [[
drover tokenize [--model FILE.gguf] [--special] [--bos] < TEXT

Prints the text's token ids as a JSON list. --special: spellings of special
tokens are those tokens; --bos: with one in front, if the model wants it.
]],
  render = [[
drover render [--model FILE.gguf] [--template NAME] < MESSAGES.json

Prints the prompt that the model's chat template makes of a JSON list of
messages, or of an object with "messages" and "tools".
]],
}

local FLAGS = {
  inspect = { help = true },
  tokenize = { model = "a GGUF file", special = true, bos = true, help = true },
  render = { model = "a GGUF file", template = "a built-in template's name",
             help = true },
}


-- A model's texts, or nil and why.
local function open(path)
  local why
  if not path then
    path, why = place.model()
    if why then return nil, why end
  end
  local out, err = ffi.new("drover_model *[1]"), ffi.new("drover_err")
  if C.drover_model_open(out, path, err) ~= 0 then
    local text = ffi.string(err.text)
    return nil, text:find(path, 1, true) and text or path .. ": " .. text
  end
  return ffi.gc(out[0], C.drover_model_close)
end


local function inspect(opts)
  if not opts.words[1] then return 2, "FILE.gguf is wanted" end
  local model, why = open(opts.words[1])
  if not model then return 1, why end
  local size = tonumber(C.drover_model_describe(model, nil, 0))
  local buf = ffi.new("char[?]", size)
  C.drover_model_describe(model, buf, size)
  io.stdout:write(ffi.string(buf, size))
  return 0
end


local function tokenize(opts)
  local model, why = open(opts.model)
  if not model then return 1, why end
  local text, err = io.stdin:read("*a"), ffi.new("drover_err")
  local room = #text + 16
  local ids = ffi.new("int32_t[?]", room)
  local span = ffi.new("drover_text", text, #text)
  local flags = (opts.special and 1 or 0) + (opts.bos and 2 or 0)
  local n = tonumber(C.drover_model_encode(model, span, flags, ids, room, err))
  if n < 0 then return 1, ffi.string(err.text) end
  local out = {}
  for i = 1, n do out[i] = ids[i - 1] end
  io.stdout:write("[", table.concat(out, ","), "]\n")
  return 0
end


-- A checked JSON text as the template language's value, keys in their order.
local function read_messages(text)
  local err = ffi.new("drover_err")
  if C.drover_json_check(text, #text, err) ~= 0 then
    return nil, "standard input: " .. ffi.string(err.text)
  end
  local given = jinja.value.from_json(text)
  local kind = jinja.value.kind(given)
  if kind == "list" then return given end
  local messages = kind == "dict" and given.map.messages
  if not messages then
    return nil, "standard input: a list of messages is wanted"
  end
  return messages, nil, given.map.tools
end


local function render(opts)
  local model, why = open(opts.model)
  local prompt, messages, tools
  if model then prompt, why = prompts.new(model, opts.template) end
  if prompt then messages, why, tools = read_messages(io.stdin:read("*a")) end
  if not messages then return 1, why end
  local text
  text, why = prompt:render(messages, { tools = tools, now = os.time() })
  if not text then return 1, "the template says: " .. why end
  io.stdout:write(prompts.plain(text))
  return 0
end


local RUN = { inspect = inspect, tokenize = tokenize, render = render }


-- The command of that name: argv -> exit status and what went wrong.
local function command(name)
  return { run = function(argv)
    local opts, why = args.parse(argv, FLAGS[name], name == "inspect" and 1 or 0)
    if not opts then return 2, why end
    if opts.help then
      io.stdout:write(HELP[name])
      return 0
    end
    return RUN[name](opts)
  end }
end


for name in pairs(RUN) do
  _M[name] = command(name)
end

return _M
