-- One ask of a pipeline: makes a chat out of x, sends it, hands its text on
-- and writes the ledger. Knows templates; knows no other step.
-- SPDX-License-Identifier: MIT
local err_new = require("drover.err").new
local template = require "drover.template"

local OPTIONS = {
  model = "string", system = "text", prompt = "text", messages = "messages",
  max_tokens = "number", temperature = "number", top_p = "number",
  seed = "number", stop = "any", keep = "keep",
}
local LATER = { json = true }
local TIMEOUT_MIN, TIMEOUT_MAX = 0.001, 86400    -- what a request may be given
local PLAIN = { "model", "max_tokens", "temperature", "top_p", "seed", "stop" }


-- A text option as function(x, run, kept) -> text | nil, err. `level` is where
-- a malformed template is reported.
local function text_maker(name, option, level)
  if type(option) == "function" then
    return function(x, run)
      local text, why = option(x, run)
      if type(text) == "string" then
        return text
      elseif text == nil and why ~= nil then
        return nil, why
      end
      error("ask." .. name .. ": the function returned a " .. type(text)
            .. ", not a text", 0)
    end
  end
  local ok, render = pcall(template.compile, option)
  if not ok then
    error("ask." .. name .. ": " .. tostring(render):match("template.*$"),
          level)
  end
  return function(x, _, kept)
    local text, why = render(x, kept)
    if not text then
      return nil, err_new("bad_request", "ask." .. name .. ": " .. why)
    end
    return text
  end
end


-- The messages option as function(x, run, kept) -> list | nil, err.
local function messages_maker(option)
  if type(option) == "function" then
    return function(x, run)
      local list, why = option(x, run)
      if type(list) == "table" or why ~= nil then
        return list, why
      end
      error("ask.messages: the function returned a " .. type(list)
            .. ", not a list", 0)
    end
  end
  local makers = {}
  for i, message in ipairs(option) do
    local name = "messages[" .. i .. "].content"
    if type(message) ~= "table" or type(message.role) ~= "string" then
      error("ask.messages[" .. i .. "].role: a text expected", 4)
    elseif type(message.content) ~= "string" then
      error("ask." .. name .. ": a text expected", 4)
    end
    makers[i] = { role = message.role,
                  text = text_maker(name, message.content, 5) }
  end
  return function(x, run, kept)
    local list = {}
    for i, maker in ipairs(makers) do
      local text, why = maker.text(x, run, kept)
      if not text then
        return nil, why
      end
      list[i] = { role = maker.role, content = text }
    end
    return list
  end
end


local function check_one(name, value)
  local wanted = OPTIONS[name]
  if LATER[name] then
    error("ask." .. name .. ": not built yet", 4)
  elseif not wanted then
    error("ask: unknown option " .. tostring(name), 4)
  end
  local kind = type(value)
  if wanted == "text" and kind ~= "string" and kind ~= "function" then
    error("ask." .. name .. ": a text or a function expected, got " .. kind, 4)
  elseif wanted == "messages" and kind ~= "table" and kind ~= "function" then
    error("ask.messages: a list or a function expected, got " .. kind, 4)
  elseif wanted == "keep" and kind ~= "string" and kind ~= "table" then
    error("ask.keep: a name or a list of names expected, got " .. kind, 4)
  elseif (wanted == "string" or wanted == "number") and kind ~= wanted then
    error("ask." .. name .. ": a " .. wanted .. " expected, got " .. kind, 4)
  end
end


-- The fields of the chain's input that the ask keeps for its templates.
local function kept_of(names, input)
  if not names or type(input) ~= "table" then
    return nil
  end
  local kept = {}
  for _, name in ipairs(names) do
    kept[name] = input[name]
  end
  return kept
end


-- The request for x, or nil, err.
local function build(ask, x, run)
  local kept = kept_of(ask.keep, run.input)
  local request, list = {}, {}
  for _, name in ipairs(PLAIN) do
    request[name] = ask.options[name]
  end
  if ask.system then
    local text, why = ask.system(x, run, kept)
    if not text then
      return nil, why
    end
    list[1] = { role = "system", content = text }
  end
  if ask.messages then
    local more, why = ask.messages(x, run, kept)
    if not more then
      return nil, why
    end
    for _, message in ipairs(more) do
      list[#list + 1] = message
    end
  end
  if ask.prompt then
    local text, why = ask.prompt(x, run, kept)
    if not text then
      return nil, why
    end
    list[#list + 1] = { role = "user", content = text }
  end
  request.messages = list
  return request
end


-- One record in the ledger, for a reply or an error.
local function record(run, request, reply, why)
  local from = reply and reply.drover or {}
  local usage = reply and reply.usage or {}
  local ledger = run.ledger
  local entry = {
    model = reply and reply.model or request.model,
    node = from.node or why and why.node,
    kind = why and why.kind or "ok",
    input_tokens = usage.prompt_tokens or 0,
    output_tokens = usage.completion_tokens or 0,
    seconds = from.seconds,
    cost = from.cost,
    attempts = from.attempts or why and why.attempts,
  }
  ledger[#ledger + 1] = entry
  ledger.input_tokens = ledger.input_tokens + entry.input_tokens
  ledger.output_tokens = ledger.output_tokens + entry.output_tokens
  if entry.cost then
    ledger.cost = (ledger.cost or 0) + entry.cost
  end
end


-- A streamed call: its text goes to run:emit() as it comes.
local function stream(run, request, options)
  local from, why = run.router:stream(request, options)
  if not from then
    return nil, why
  end
  for event in from:events() do
    if event.text and event.text ~= "" then
      local ok, raised = pcall(run.emit, run, event.text)
      if not ok then
        from:cancel()
        error(raised, 0)
      end
    end
  end
  return from:join()
end


-- A call of a group (parallel, map): when another one of the group fails, or
-- of a group around it, this one is cancelled.
local function grouped(run, request, options)
  local flight, why = run.router:begin(request, options, false)
  if not flight then
    return nil, why
  end
  local function cancel()
    flight:cancel()
  end
  local group = run.group
  while group do
    group.running[cancel] = true
    group = group.outer
  end
  local reply, failed = flight:reply()
  group = run.group
  while group do
    group.running[cancel] = nil
    group = group.outer
  end
  return reply, failed
end


local function send(run, request)
  local options = {}
  for name, value in pairs(run.options) do
    options[name] = value
  end
  local left = run:left()
  options.timeout = left and math.max(TIMEOUT_MIN,
                                      math.min(left, TIMEOUT_MAX))
  if run.streams then
    return stream(run, request, options)
  elseif run.group then
    return grouped(run, request, options)
  end
  return run.router:chat(request, options)
end


local function text_of(reply)
  local choice = reply.choices and reply.choices[1]
  local text = choice and choice.message and choice.message.content
  if type(text) == "string" then
    return text
  end
  return nil, err_new("malformed", "ask: the reply holds no text")
end


-- options -> step. Raises on a bad or unknown option, naming it.
return function(options)
  for name, value in pairs(options) do
    check_one(name, value)
  end
  if not options.prompt and not options.messages then
    error("ask: prompt or messages expected", 3)
  end
  local keep = options.keep
  local ask = {
    options = options,
    system = options.system and text_maker("system", options.system, 4),
    prompt = options.prompt and text_maker("prompt", options.prompt, 4),
    messages = options.messages and messages_maker(options.messages),
    keep = type(keep) == "string" and { keep } or keep,
  }

  return function(x, run)
    local why = run:ended()
    if why then
      return nil, why
    end
    local request, bad = build(ask, x, run)
    if not request then
      return nil, bad
    end
    local reply, failed = send(run, request)
    record(run, request, reply, failed)
    if not reply then
      return nil, failed
    end
    return text_of(reply)
  end
end
