-- The text of a request: encoded once, with the places where a node's own
-- model name and `stream` go left open. A body that came as JSON text
-- (drover.raw) is patched by byte span, so that all else passes as it came.
--
-- Both makers return a function(model) -> text.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local json = require "drover.json"

local _M = {}

local encode = json.encode


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
  local model = request.model
  local rest = {}
  for name, value in pairs(request) do
    if name ~= "model" then
      rest[name] = value
    end
  end
  local text, why = encode(rest)
  if not text then
    return nil, why:gsub("^%.", "")
  end
  local lead = text == "{}" and "" or ","
  text = text:sub(2)
  return function(name)
    name = name or model
    if not name then
      return "{" .. text
    end
    return "{\"model\":" .. encode(name) .. lead .. text
  end
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
  table.sort(edits, function(a, b) return a.first < b.first end)
  local before, after, at = {}, {}, 1
  local out = before
  for _, edit in ipairs(edits) do
    out[#out + 1] = text:sub(at, edit.first - 1)
    out[#out + 1] = edit.with
    if not edit.with then
      out = after
    end
    at = edit.last + 1
  end
  out[#out + 1] = text:sub(at)
  local head, tail = table.concat(before), table.concat(after)
  local own = first and text:sub(first, last)
  return function(name)
    return own and head .. (name and encode(name) or own) .. tail or head
  end
end


return _M
