-- OpenAI's chat dialect, as spoken by OpenAI, vLLM, Ollama and most others.
-- Pure translation: no I/O, no clock, no state between calls.
--
-- A call: { model, stream, key, body } where body:put(out, model) writes the
-- request's JSON with that model's name in it.
--
-- SPDX-License-Identifier: MIT
local buffer = require "string.buffer"
local classify = require "drover.provider.classify"
local json = require "drover.json"

local _M = {}

_M.PATH = "/chat/completions"

local INDEX_MAX = 1024

local finishes = {
  stop = "stop", length = "length", tool_calls = "tool_calls",
  content_filter = "content_filter", error = "error",
  function_call = "tool_calls", eos = "stop", eos_token = "stop",
  stop_sequence = "stop", model_length = "length",
}


-- The headers of a call: they depend on its key and on `stream` alone.
function _M.headers(call)
  return {
    ["content-type"] = "application/json",
    accept = call.stream and "text/event-stream" or "application/json",
    authorization = call.key and "Bearer " .. call.key or nil,
  }
end


-- call -> { path, headers, body }; the body is a string.buffer.
function _M.encode(call)
  local out = buffer.new()
  call.body:put(out, call.model)
  return { path = _M.PATH, headers = _M.headers(call), body = out }
end


local function count(x)
  return type(x) == "number" and x >= 0 and x < 2 ^ 31 and x or nil
end


-- The number of a choice or a tool call: a small one, or its place in the
-- list, so that whoever counts up to it comes to an end.
local function index_of(x, place)
  return type(x) == "number" and x >= 0 and x < INDEX_MAX and x % 1 == 0
         and x or place - 1
end


local function nonempty(x)
  return type(x) == "string" and x ~= "" and x or nil
end


-- The counts of a usage table: { prompt_tokens, completion_tokens,
-- total_tokens, cached_tokens, cache_creation_tokens, reasoning_tokens }, or
-- nil when it does not say.
function _M.usage(x)
  if type(x) ~= "table" then
    return nil
  end
  local prompt, completion = count(x.prompt_tokens), count(x.completion_tokens)
  if not prompt and not completion then
    return nil
  end
  local into = type(x.prompt_tokens_details) == "table"
               and x.prompt_tokens_details or {}
  local out = type(x.completion_tokens_details) == "table"
              and x.completion_tokens_details or {}
  prompt, completion = prompt or 0, completion or 0
  return {
    prompt_tokens = prompt, completion_tokens = completion,
    total_tokens = prompt + completion,
    cached_tokens = count(into.cached_tokens)
                    or count(x.prompt_cache_hit_tokens)
                    or count(x.cached_tokens) or 0,
    cache_creation_tokens = count(into.cache_write_tokens) or 0,
    reasoning_tokens = count(out.reasoning_tokens) or 0,
  }
end


-- Our word for a finish reason of the wire; nil for none.
function _M.finish(raw)
  return type(raw) == "string" and raw ~= "" and (finishes[raw] or raw) or nil
end


local EMPTY = "empty_response"

-- What a message without text may hold instead, or why it has none.
local INSTEAD = { "tool_calls", "function_call", "refusal", "audio",
                  "reasoning_content", "reasoning" }
local without = { length = true, content_filter = true }


local function says_nothing(choice)
  local message = choice.message
  if message.content ~= nil or without[choice.finish_reason] then
    return false
  end
  for i = 1, #INSTEAD do
    if message[INSTEAD[i]] ~= nil then
      return false
    end
  end
  return true
end


-- body -> the reply, an OpenAI chat completion; or nil, why not, nil and a
-- code where there is one; or nil, nil, true when it has an error member,
-- which classify reads.
function _M.decode(body)
  if not body:find("%S") then
    return nil, "the body is empty", nil, EMPTY
  end
  local reply, why = json.decode(body)
  if type(reply) ~= "table" then
    return nil, "the body is not a JSON object: " .. (why or type(reply))
  end
  if reply.error then
    return nil, nil, true
  end
  local choices = reply.choices
  if choices == nil or type(choices) == "table" and next(choices) == nil then
    return nil, "the body has no choices", nil, EMPTY
  end
  local first = type(choices) == "table" and choices[1]
  if type(first) ~= "table" or type(first.message) ~= "table" then
    return nil, "the body has no choices[0].message"
  end
  local content = first.message.content
  if content ~= nil and type(content) ~= "string"
     and not (type(content) == "table" and content[1] ~= nil) then
    return nil, "a content that is neither text nor parts"
  elseif says_nothing(first) then
    return nil, "the answer holds nothing", nil, EMPTY
  end
  return reply
end


local function tool_event(tool, place, index, raw)
  local f = type(tool) == "table" and type(tool["function"]) == "table"
            and tool["function"] or {}
  return {
    index = index, raw = raw,
    tool_call = {
      index = index_of(type(tool) == "table" and tool.index, place),
      id = type(tool) == "table" and nonempty(tool.id) or nil,
      name = nonempty(f.name),
      arguments = type(f.arguments) == "string" and f.arguments or "",
    },
  }
end


-- Append the events of one choice: first text and the like, then tool calls,
-- the finish reason on the last.
local function choice_events(choice, place, raw, out)
  local delta = type(choice.delta) == "table" and choice.delta or {}
  local index = index_of(choice.index, place)
  local from = #out
  local event = {
    index = index, raw = raw,
    text = nonempty(delta.content),
    reasoning = nonempty(delta.reasoning_content) or nonempty(delta.reasoning),
    refusal = nonempty(delta.refusal),
  }
  local tools = type(delta.tool_calls) == "table" and delta.tool_calls or {}
  if event.text or event.reasoning or event.refusal or #tools == 0 then
    out[#out + 1] = event
  end
  for i = 1, #tools do
    out[#out + 1] = tool_event(tools[i], i, index,
                               #out == from and raw or nil)
  end
  out[#out].finish_reason = _M.finish(choice.finish_reason)
end


-- { data, name } -> a list of events, { done = true } for the API's end
-- mark; or nil and why not; or nil, nil, true when it is an error event,
-- which classify reads. The text of the chunk is `raw` of the first event.
function _M.event(sse)
  local data = sse.data
  if data:sub(1, 6) == "[DONE]" then
    return { { done = true } }
  end
  local chunk, why = json.decode(data)
  if type(chunk) ~= "table" then
    return nil, "an event is not a JSON object: " .. (why or type(chunk))
  end
  if chunk.error or sse.name == "error" then
    return nil, nil, true
  end
  local out = {}
  local choices = type(chunk.choices) == "table" and chunk.choices or {}
  for i = 1, #choices do
    if type(choices[i]) == "table" then
      choice_events(choices[i], i, #out == 0 and data or nil, out)
    end
  end
  if #out == 0 then
    out[1] = { index = 0, raw = data }
  end
  if type(chunk.usage) == "table" then
    out[#out].usage = chunk.usage
    out[#out].only_usage = #choices == 0
  end
  return out
end


-- A whole reply as the events of a stream.
function _M.as_events(reply)
  local out = {}
  for i, choice in ipairs(reply.choices) do
    local delta = type(choice) == "table" and choice.message
    if type(delta) == "table" then
      local raw = json.encode {
        id = reply.id, object = "chat.completion.chunk",
        created = reply.created, model = reply.model,
        choices = { { index = choice.index or i - 1, delta = delta,
                      finish_reason = choice.finish_reason } },
      }
      choice_events({ index = choice.index, delta = delta,
                      finish_reason = choice.finish_reason }, i, raw, out)
    end
  end
  if type(reply.usage) == "table" then
    out[#out + 1] = { index = 0, usage = reply.usage, only_usage = true,
                      raw = json.encode {
      id = reply.id, object = "chat.completion.chunk",
      created = reply.created, model = reply.model,
      choices = json.array {}, usage = reply.usage,
    } }
  end
  return out
end


-- A chunk with a finish reason, for a stream that ended without one;
-- `opening` is its first chunk.
function _M.finish_chunk(opening, reason)
  local first = opening and json.decode(opening)
  first = type(first) == "table" and first or {}
  return json.encode {
    id = first.id, object = "chat.completion.chunk",
    created = first.created, model = first.model,
    choices = { { index = 0, delta = {}, finish_reason = reason } },
  }
end


-- (status, headers, body, now) -> { kind, message, code, retryable, … }
_M.classify = classify.read


return _M
