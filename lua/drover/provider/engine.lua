-- The local model's dialect: OpenAI's chat request in, the same events and
-- the same reply out. Pure translation; send.lua talks to the engine.
--
-- Greedy unless the request names a temperature. What the engine cannot do
-- (tools, …) is refused by name.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"

local _M = {}

local STOP_MAX, STOP_BYTES = 16, 256
local ROLES = { system = "system", developer = "system", user = "user",
                assistant = "assistant" }
local BIASES_MAX, STOP_IDS_MAX = 1024, 64
local FORMATS = { json_object = true, json_schema = true }
local SCHEMA = "kresponse_format\0kjson_schema\0kschema\0"
local TEXT_TAIL = "\"},\"logprobs\":null,\"finish_reason\":null}]}"

-- What may stand in a request; what of it matters is read in encode().
local taken = {
  model = true, messages = true, max_tokens = true, temperature = true,
  max_completion_tokens = true, top_p = true, top_k = true, seed = true,
  stop = true, stream = true, stream_options = true, user = true,
  metadata = true, store = true, n = true, min_p = true,
  repetition_penalty = true, presence_penalty = true, logit_bias = true,
  frequency_penalty = true, logprobs = true, top_logprobs = true,
  stop_token_ids = true, response_format = true,
}

-- Values that ask for nothing.
local harmless = {
  tools = function(x) return type(x) == "table" and next(x) == nil end,
  tool_choice = function(x) return x == "none" or x == "auto" end,
}

-- Numbers that may be absent: what they are called, their least and most, and
-- drover_generate's name for them.
local numbers = {
  { "min_p", 0, 1, "min_p" },
  { "repetition_penalty", 0.01, 100, "repetition" },
  { "presence_penalty", -2, 2, "presence" },
  { "frequency_penalty", -2, 2, "frequency" },
  { "top_logprobs", 0, 20, "top_logprobs", whole = true },
  { "n", 1, 128, "n", whole = true },
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


local function absent(x)
  return x == nil or x == json.null
end


local function is_whole(x, least, most)
  return type(x) == "number" and x % 1 == 0 and x >= least and x <= most
end


-- Into `g` what `numbers` lists; returns what is wrong with one.
local function read_numbers(request, g)
  for _, row in ipairs(numbers) do
    local name, least, most = row[1], row[2], row[3]
    local x = request[name]
    if not absent(x) then
      if type(x) ~= "number" or not (x >= least and x <= most)
         or row.whole and x % 1 ~= 0 then
        return ("%s: must be a %snumber, %g to %g"):format(
          name, row.whole and "whole " or "", least, most)
      end
      g[row[4]] = x
    end
  end
  if not absent(request.logprobs) then
    if type(request.logprobs) ~= "boolean" then
      return "logprobs: must be true or false"
    end
    g.logprobs = request.logprobs and 1 or nil
  end
  if g.top_logprobs and not g.logprobs then
    if g.top_logprobs > 0 then
      return "top_logprobs: wants logprobs = true"
    end
    g.top_logprobs = nil
  end
end


-- Of { ["50256"] = -100 } a list of tokens and their biases, by token.
local function read_bias(bias, g)
  local list = {}
  if absent(bias) then
    return nil
  elseif type(bias) ~= "table" then
    return "logit_bias: must be an object"
  end
  for key, value in pairs(bias) do
    local id = tonumber(key)
    if not is_whole(id, 0, 2 ^ 31 - 1) then
      return "logit_bias: a key is no token's number"
    elseif type(value) ~= "number" or not (value >= -100 and value <= 100) then
      return "logit_bias: values must be numbers, -100 to 100"
    end
    list[#list + 1] = { id, value }
  end
  if #list > BIASES_MAX then
    return "logit_bias: at most " .. BIASES_MAX
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  g.bias = list[1] and list or nil
end


local function read_stop_ids(ids, g)
  if absent(ids) then
    return nil
  elseif type(ids) ~= "table" or #ids > STOP_IDS_MAX then
    return "stop_token_ids: must be a list of at most " .. STOP_IDS_MAX
  end
  for _, id in ipairs(ids) do
    if not is_whole(id, 0, 2 ^ 31 - 1) then
      return "stop_token_ids: must be tokens' numbers"
    end
  end
  g.stop_ids = ids[1] and ids or nil
end


-- The schema's text. Of a request that came as text it is cut out of it, as
-- its author wrote it: the order of properties is the order in the reply. Of
-- a table, properties are in the order of their names.
local function schema_text(schema, body)
  local text = body and body:member(SCHEMA)
  if text then
    return text
  end
  local kind = type(schema)
  if kind ~= "table" and kind ~= "boolean" or schema == json.null then
    return nil, "must be an object"
  end
  return json.encode(schema)
end


local function read_format(format, body, g)
  if absent(format) or type(format) == "table" and format.type == "text" then
    return nil
  elseif type(format) ~= "table" or not FORMATS[format.type] then
    return "response_format: must be of type text, json_object or json_schema"
  end
  g.format = format.type
  if format.type == "json_schema" then
    local outer = type(format.json_schema) == "table" and format.json_schema
    local text, why = schema_text(outer and outer.schema or nil, body)
    g.schema = text
    if not g.schema then
      return "response_format.json_schema.schema: " .. why
    end
  end
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
  local g = {
    messages = messages, stop = stop,
    max_tokens = call.max_tokens or 0,
    temperature = number(request.temperature, 0),
    top_p = top_p, top_k = top_k,
    seed = number(request.seed, nil),
  }
  why = read_numbers(request, g) or read_bias(request.logit_bias, g)
        or read_stop_ids(request.stop_token_ids, g)
        or read_format(request.response_format, call.body, g)
  if why then
    return nil, why
  end
  return g
end


-- The envelope of a reply or stream: its id, time (seconds since 1970) and
-- model, as an OpenAI server would choose them.
function _M.envelope(id, created, model)
  local lead = "{\"id\":" .. json.encode("chatcmpl-" .. id)
               .. ",\"object\":\"chat.completion.chunk\",\"created\":"
               .. json.encode(created) .. ",\"model\":" .. json.encode(model)
  return { id = "chatcmpl-" .. id, created = created, model = model,
           lead = lead, heads = {} }
end


-- What a chunk of a choice says before its delta.
local function opened(envelope, index)
  return envelope.lead .. ",\"choices\":[{\"index\":" .. index
         .. ",\"delta\":"
end


local function chunk(envelope, index, delta, finish)
  return opened(envelope, index) .. delta
         .. ",\"logprobs\":null,\"finish_reason\":" .. finish .. "}]}"
end


-- The event that opens a choice's stream.
function _M.role(envelope, index)
  local delta = "{\"role\":\"assistant\",\"content\":\"\"}"
  return { index = index, raw = chunk(envelope, index, delta, "null") }
end


-- The engine's list of log-probabilities as a table; its empty lists stay
-- lists.
local function logprobs_of(text)
  local list = json.decode("[" .. text .. "]")
  for _, entry in ipairs(list) do
    json.array(entry.bytes)
    for _, other in ipairs(json.array(entry.top_logprobs)) do
      json.array(other.bytes)
    end
  end
  return list
end


-- That of a piece of text, its chunk in pieces (see reader.lua). `logprobs`:
-- the engine's text of them, or nil.
function _M.event(envelope, text, index, logprobs)
  local head = envelope.heads[index]
  if not head then
    head = opened(envelope, index) .. "{\"content\":\""
    envelope.heads[index] = head
  end
  local event = { index = index, text = text, head = head,
                  mid = json.escaped(text), tail = TEXT_TAIL }
  if logprobs then
    event.logprobs = logprobs_of(logprobs)
    event.tail = "\"},\"logprobs\":{\"content\":[" .. logprobs
                 .. "],\"refusal\":null},\"finish_reason\":null}]}"
  end
  return event
end


-- The event that ends a choice's text; the one that tells the tokens used.
function _M.finish(envelope, reason, index)
  return { index = index, finish_reason = reason,
           raw = chunk(envelope, index, "{}", json.encode(reason)) }
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
