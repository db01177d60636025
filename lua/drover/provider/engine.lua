-- The local model's dialect: OpenAI's chat request in, the same events and
-- the same reply out. Pure translation; send.lua talks to the engine.
--
-- Greedy unless the request names a temperature. What the engine cannot do
-- (tools, response_format, logprobs, …) is refused by name.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"

local _M = {}

local STOP_MAX, STOP_BYTES = 16, 256
local ROLES = { system = "system", developer = "system", user = "user",
                assistant = "assistant" }
local DELTA = ",\"choices\":[{\"index\":0,\"delta\":"
local TEXT_TAIL = "\"},\"logprobs\":null,\"finish_reason\":null}]}"

-- What may stand in a request; what of it matters is read in encode().
local taken = {
  model = true, messages = true, max_tokens = true, temperature = true,
  max_completion_tokens = true, top_p = true, top_k = true, seed = true,
  stop = true, stream = true, stream_options = true, user = true,
  metadata = true, store = true, n = true,
}

-- Values that ask for nothing.
local harmless = {
  logprobs = function(x) return x == false end,
  frequency_penalty = function(x) return x == 0 end,
  presence_penalty = function(x) return x == 0 end,
  tools = function(x) return type(x) == "table" and next(x) == nil end,
  tool_choice = function(x) return x == "none" or x == "auto" end,
  response_format = function(x)
    return type(x) == "table" and x.type == "text"
  end,
}


local function unsupported(request)
  local names = {}
  for name in pairs(request) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local value = request[name]
    local none = harmless[name] and harmless[name](value)
    if not taken[name] and not none and value ~= json.null then
      return name .. ": a local model does not take it"
    end
  end
  if request.n and request.n ~= 1 and request.n ~= json.null then
    return "n: a local model gives one choice"
  end
end


-- The text of a message's content, or nil where a part is no text.
local function text_of(content)
  if type(content) == "string" then
    return content
  end
  if content == nil or content == json.null then
    return ""
  end
  local texts = {}
  for i, part in ipairs(content) do
    if type(part) ~= "table" or type(part.text) ~= "string" then
      return nil
    end
    texts[i] = part.text
  end
  return table.concat(texts)
end


local function read_messages(request)
  local messages = {}
  for i, m in ipairs(request.messages) do
    local where = "messages[" .. i .. "]"
    if m.role == "tool" then
      return nil, where .. ".role: a local model does not take tools"
    elseif m.tool_calls and m.tool_calls ~= json.null then
      return nil, where .. ".tool_calls: a local model does not take tools"
    elseif not ROLES[m.role] then
      return nil, where .. ".role: must be system, developer, user or"
                  .. " assistant"
    end
    local text = text_of(m.content)
    if not text then
      return nil, where .. ".content: a local model takes text only"
    end
    messages[i] = { role = ROLES[m.role], content = text }
  end
  return messages
end


local function read_stop(stop)
  if stop == nil or stop == json.null then
    return {}
  end
  local list = type(stop) == "table" and stop or { stop }
  if #list > STOP_MAX then
    return nil, "stop: at most " .. STOP_MAX
  end
  for _, text in ipairs(list) do
    if type(text) ~= "string" or text == "" or #text > STOP_BYTES then
      return nil, "stop: texts of 1 to " .. STOP_BYTES .. " bytes"
    end
  end
  return list
end


local function number(x, default)
  return type(x) == "number" and x or default
end


-- call -> what drover_generate takes, as a table; or nil and what the engine
-- does not take, which begins with the field's name.
function _M.encode(call)
  local request = call.request
  local why = unsupported(request)
  local messages, stop
  if not why then
    messages, why = read_messages(request)
  end
  if not why then
    stop, why = read_stop(request.stop)
  end
  if why then
    return nil, why
  end
  local top_k, top_p = number(request.top_k, 0), number(request.top_p, 1)
  if top_k < 0 or top_k > 2 ^ 31 or top_k % 1 ~= 0 then
    return nil, "top_k: must be a whole number, 0 or more"
  elseif top_p <= 0 then
    return nil, "top_p: must be above 0 for a local model"
  end
  return {
    messages = messages, stop = stop,
    max_tokens = call.max_tokens or 0,
    temperature = number(request.temperature, 0),
    top_p = top_p, top_k = top_k,
    seed = number(request.seed, nil),
  }
end


-- The envelope of a reply or stream: its id, time (seconds since 1970) and
-- model, as an OpenAI server would choose them.
function _M.envelope(id, created, model)
  local lead = "{\"id\":" .. json.encode("chatcmpl-" .. id)
               .. ",\"object\":\"chat.completion.chunk\",\"created\":"
               .. json.encode(created) .. ",\"model\":" .. json.encode(model)
  return { id = "chatcmpl-" .. id, created = created, model = model,
           lead = lead, text_head = lead .. DELTA .. "{\"content\":\"" }
end


local function chunk(envelope, delta, finish)
  return envelope.lead .. DELTA .. delta
         .. ",\"logprobs\":null,\"finish_reason\":" .. finish .. "}]}"
end


-- The event that opens a stream.
function _M.role(envelope)
  local delta = "{\"role\":\"assistant\",\"content\":\"\"}"
  return { index = 0, raw = chunk(envelope, delta, "null") }
end


-- That of a piece of text, its chunk in pieces (see reader.lua).
function _M.event(envelope, text)
  return { index = 0, text = text, head = envelope.text_head,
           mid = json.escaped(text), tail = TEXT_TAIL }
end


-- The event that ends the text; the one that tells the tokens used.
function _M.finish(envelope, reason)
  return { index = 0, finish_reason = reason,
           raw = chunk(envelope, "{}", json.encode(reason)) }
end


function _M.usage_event(envelope, usage)
  return { index = 0, usage = usage, only_usage = true,
           raw = envelope.lead .. ",\"choices\":[],\"usage\":"
                 .. json.encode(usage) .. "}" }
end


-- The counts of a usage table, as provider/openai.lua's usage() gives them.
function _M.usage(x)
  return x and {
    prompt_tokens = x.prompt_tokens, completion_tokens = x.completion_tokens,
    total_tokens = x.prompt_tokens + x.completion_tokens,
    cached_tokens = 0, cache_creation_tokens = 0, reasoning_tokens = 0,
  }
end


return _M
