-- The text of a request: encoded once, with the places where a node's own
-- model name and `stream` go left open. A body that came as JSON text
-- (drover.raw) is patched by byte span, so that all else passes as it came.
--
-- Both makers return a body, which says its text with body:put(out, model)
-- into a string.buffer (why no string: see json.lua).
--
-- SPDX-License-Identifier: MIT
local buffer = require "string.buffer"
local ffi = require "ffi"
local C = require "drover.core"
local json = require "drover.json"

local _M = {}

local cast = ffi.cast
local put_json = json.put
local sort = table.sort

local table_mt, text_mt = {}, {}
table_mt.__index = table_mt
text_mt.__index = text_mt


-- A copy of `request` that asks for a stream with its usage.
local function as_stream(request)
  local copy = {}
  for name, value in pairs(request) do
    copy[name] = value
  end
  local options = {}
  if type(request.stream_options) == "table"
     and request.stream_options ~= json.null then
    for name, value in pairs(request.stream_options) do
      options[name] = value
    end
  end
  options.include_usage = true
  copy.stream, copy.stream_options = true, options
  return copy
end


-- The body of a request table. nil and where and why when it is no JSON.
function _M.of_table(request, stream)
  if stream then
    request = as_stream(request)
  end
  local out = buffer.new()
  local ok, why = json.put_without(out, request, "model")
  if not ok then
    return nil, why
  end
  out:skip(1)                           -- its "{": the model comes first
  return setmetatable({ rest = out, model = request.model,
                        alone = #out == 1 }, table_mt)
end


function table_mt:put(out, model)
  model = model or self.model
  if not model then
    out:put("{", self.rest)
    return
  end
  out:put("{\"model\":")
  put_json(out, model)
  out:put(self.alone and "" or ",", self.rest)
end


local span = ffi.new("drover_span")


-- The first and last byte (1-based) of a member's value, or nil.
local function find(text, path)
  if C.drover_json_find(text, #text, path, #path, span, nil) ~= 0 then
    return nil
  end
  return tonumber(span.start) + 1, tonumber(span.stop)
end


local function replace(edits, first, last, with)
  edits[#edits + 1] = { first = first, last = last, with = with }
end


-- The edits that turn the request into one for a stream with usage.
local function stream_edits(text, edits)
  local after = text:find("{", 1, true) + 1
  local add = ""
  local first, last = find(text, "kstream\0")
  if first then
    replace(edits, first, last, "true")
  else
    add = "\"stream\":true,"
  end
  first, last = find(text, "kstream_options\0")
  if not first then
    add = add .. "\"stream_options\":{\"include_usage\":true},"
  elseif text:byte(first) ~= 123 or text:find("^{%s*}", first) then
    replace(edits, first, last, "{\"include_usage\":true}")
  else
    local from, to = find(text, "kstream_options\0kinclude_usage\0")
    if from then
      replace(edits, from, to, "true")
    else
      replace(edits, first + 1, first, "\"include_usage\":true,")
    end
  end
  replace(edits, after, after - 1, add)
end


local function by_place(a, b)
  return a.first < b.first
end


-- The body of a request that is JSON text, of an object with members.
function _M.of_text(text, stream)
  local edits = {}
  if stream then
    stream_edits(text, edits)
  end
  local first, last = find(text, "kmodel\0")
  if first then
    replace(edits, first, last)
  end
  if edits[2] then
    sort(edits, by_place)
  end
  return setmetatable({ text = text, edits = edits }, text_mt)
end


-- Put the text from `at` (1-based) up to an edit, and what stands in its
-- place. Returns where the text goes on.
local function put_edit(out, bytes, at, edit, model)
  local first, last = edit.first, edit.last
  out:putcdata(bytes + at - 1, first - at)
  if edit.with then
    out:put(edit.with)
  elseif model then
    put_json(out, model)
  else
    out:putcdata(bytes + first - 1, last + 1 - first)
  end
  return last + 1
end


-- The first edit apart from the loop: a loop that mostly runs once keeps
-- LuaJIT from compiling all that leads to it.
function text_mt:put(out, model)
  local text, edits, at = self.text, self.edits, 1
  local bytes = cast("const char *", text)
  if edits[1] then
    at = put_edit(out, bytes, at, edits[1], model)
    if edits[2] then
      for i = 2, #edits do
        at = put_edit(out, bytes, at, edits[i], model)
      end
    end
  end
  out:putcdata(bytes + at - 1, #text - at + 1)
end


-- The JSON of one value of a request that came as text; nil where there is
-- none, or where the request is a table, which has no text of its own.
function text_mt:member(path)
  local first, last = find(self.text, path)
  return first and self.text:sub(first, last)
end


function table_mt.member()
  return nil
end


-- The text as a string.
function _M.text(body, model)
  local out = buffer.new()
  body:put(out, model)
  return out:tostring()
end


return _M
