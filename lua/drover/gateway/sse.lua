-- Writes a stream of chat chunks as server-sent events. An upstream's chunk
-- that needs no change passes as its raw bytes; what has no raw form (a
-- local model) is written here. Pure: events in, text out.
--
-- When the caller asked for usage, every chunk says `"usage":null` and the
-- last one carries it with no choices; when not, no chunk has a usage.
local json = require "drover.json"

local find, match, gsub = string.find, string.match, string.gsub
local format = string.format

local _M = {}
local mt = { __index = _M }


-- `usage`: the caller asked for it. `id`, `model` and `created` name chunks
-- that are written here.
function _M.new(p)
  local self = setmetatable({
    usage = p.usage,
    last = nil,                       -- the usage chunk, for the end
    begun = false,                    -- a written chunk has named the role
    passing = false,                  -- chunks come with their raw text
  }, mt)
  self.head = format('data: {"id":%s,"object":"chat.completion.chunk",'
                     .. '"created":%d,"model":%s,"choices":',
                     json.encode(p.id), p.created, json.encode(p.model))
  self.tail = p.usage and ',"usage":null}\n\n' or "}\n\n"
  return self
end


-- JSON text as the data of one event; its line ends become lines.
local function data(raw)
  if find(raw, "[\r\n]") then
    raw = gsub(gsub(raw, "\r\n?", "\n"), "\n", "\ndata: ")
  end
  return "data: " .. raw .. "\n\n"
end


-- A raw chunk that carries usage. Alone it is the last chunk, as it should
-- be; beside choices the usage is kept for a chunk of its own.
local function usage_chunk(self, raw)
  local chunk = json.decode(raw)
  if type(chunk) ~= "table" or type(chunk.usage) ~= "table" then
    return data(raw)
  end
  local choices, usage = chunk.choices, chunk.usage
  if type(choices) ~= "table" or #choices == 0 then
    return self.usage and data(raw) or ""
  end
  for _, choice in ipairs(choices) do
    choice.delta = choice.delta or {}
    choice.finish_reason = choice.finish_reason or json.null
  end
  chunk.usage = self.usage and json.null or nil
  local text = data(json.encode(chunk))
  chunk.choices, chunk.usage = json.array{}, usage
  self.last = self.usage and data(json.encode(chunk)) or nil
  return text
end


local function raw_event(self, raw)
  local at = find(raw, '"usage"', 1, true)
  if not at then
    local body = self.usage and match(raw, "^(.*)}%s*$")
    return data(body and body .. ',"usage":null}' or raw)
  elseif find(raw, '^"usage"%s*:%s*null', at) then
    return data(raw)
  end
  return usage_chunk(self, raw)
end


local function delta_of(self, event)
  local delta = {}
  if not self.begun then
    self.begun = true
    delta.role = "assistant"
    delta.content = event.text or ""
  end
  if event.text then delta.content = event.text end
  if event.reasoning then delta.reasoning_content = event.reasoning end
  local call = event.tool_call
  if call then
    delta.tool_calls = { {
      index = call.index, id = call.id, type = call.id and "function" or nil,
      ["function"] = { name = call.name, arguments = call.arguments or "" },
    } }
  end
  return delta
end


local function written_event(self, event)
  if event.usage and self.usage then
    self.last = self.head .. '[],"usage":' .. json.encode(event.usage)
                .. "}\n\n"
  end
  if not (event.text or event.reasoning or event.tool_call
          or event.finish_reason) then
    return ""
  end
  local choice = {
    index = event.index or 0, delta = delta_of(self, event),
    finish_reason = event.finish_reason or json.null, logprobs = json.null,
  }
  return self.head .. "[" .. json.encode(choice) .. "]" .. self.tail
end


-- One event of stream:events() as text; "" when it adds nothing. Of the
-- events that one upstream's chunk made, the first has the chunk's text.
function _M:event(event)
  local raw = event.raw
  if raw then
    self.passing = true
    return raw_event(self, raw)
  end
  return self.passing and "" or written_event(self, event)
end


-- The end of a stream that ended well.
function _M:finish()
  return (self.last or "") .. "data: [DONE]\n\n"
end


return _M
