-- Writes a stream of chat chunks as server-sent events. A chunk that needs
-- no change passes as its bytes came, in the three pieces of which the
-- reader made it (head and tail are one text for a whole stream). Pure:
-- events in, pieces of text out.
--
-- When the caller asked for usage, every chunk says `"usage":null` and the
-- last one carries it with no choices; when not, no chunk has a usage.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"

local find, match, gsub = string.find, string.match, string.gsub

local _M = {}
local mt = { __index = _M }


-- `usage`: the caller asked for it.
function _M.new(usage)
  return setmetatable({
    usage = usage,
    last = nil,                       -- the usage chunk, for the end
    head = false, tail = false,       -- the pieces seen last, and as they
    lead = nil, trail = nil,          -- are written; nil: chunk by chunk
  }, mt)
end


-- JSON text as the data of one event; its line ends become lines.
local function data(raw)
  if find(raw, "[\r\n]") then
    raw = gsub(gsub(raw, "\r\n?", "\n"), "\n", "\ndata: ")
  end
  return "data: " .. raw .. "\n\n"
end


-- A chunk that carries usage. Alone it is the last chunk, as it should be;
-- beside choices the usage is kept for a chunk of its own.
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


-- A whole chunk.
local function chunk_text(self, raw)
  local at = find(raw, '"usage"', 1, true)
  if not at then
    local body = self.usage and match(raw, "^(.*)}%s*$")
    return data(body and body .. ',"usage":null}' or raw)
  elseif find(raw, '^"usage"%s*:%s*null', at) then
    return data(raw)
  end
  return usage_chunk(self, raw)
end


-- How chunks between this head and this tail are written.
local function frame(self, head, tail)
  self.head, self.tail = head, tail
  self.lead = nil
  local at = find(tail, '"usage"', 1, true)
  if find(head, "[\r\n]") or find(tail, "[\r\n]")
     or find(head, '"usage"', 1, true)
     or at and not find(tail, '^"usage"%s*:%s*null', at) then
    return
  end
  local body = self.usage and not at and match(tail, "^(.*)}%s*$")
  self.lead = "data: " .. head
  self.trail = (body and body .. ',"usage":null}' or tail) .. "\n\n"
end


-- Append one event of stream:events() to the `n` pieces of `out`; returns
-- their number. Of the events that one chunk made, the first has its text.
function _M:add(out, n, event)
  local head, tail = event.head, event.tail
  if head then
    if head ~= self.head or tail ~= self.tail then
      frame(self, head, tail)
    end
    if self.lead then
      out[n + 1], out[n + 2], out[n + 3] = self.lead, event.mid, self.trail
      return n + 3
    end
  end
  local raw = event.raw
  if not raw then
    return n
  end
  out[n + 1] = chunk_text(self, raw)
  return n + 1
end


-- The end of a stream that ended well.
function _M:finish()
  return (self.last or "") .. "data: [DONE]\n\n"
end


return _M
