-- JSON for requests and replies. The encoder is ours: integers exact to
-- 2^53, keys sorted, what JSON cannot say refused. The decoder is cjson's,
-- with null members dropped (cjson's null is a truthy userdata).
--
-- It writes to a string.buffer: LuaJIT hashes a few bytes of a long string,
-- so that many texts of one length and one frame (request bodies, chunks)
-- fall into one chain, and making such strings gets slower with each that is
-- alive (measured: 300 us a body at 20,000).
--
-- SPDX-License-Identifier: MIT
local buffer = require "string.buffer"
local cjson = require "cjson.safe"
local ffi = require "ffi"

local byte = string.byte
local cast = ffi.cast
local find = string.find
local floor = math.floor
local format = string.format
local gsub = string.gsub

local DEPTH_MAX = 128
local SHORT = 48
local EXACT_MAX = 2 ^ 53

local decoder = cjson.new()
decoder.decode_max_depth(DEPTH_MAX)
local cjson_null = cjson.null

local _M = {}

local array_mt = {}
local raw_mt = {}
_M.null = setmetatable({}, { __tostring = function() return "null" end })


-- Mark a table as a list: {} is then written as [].
function _M.array(t)
  if t ~= nil and type(t) ~= "table" then
    error("drover.array: a table is wanted, got " .. type(t), 2)
  end
  return setmetatable(t or {}, array_mt)
end


-- JSON text that is written as it stands.
function _M.raw(text)
  if type(text) ~= "string" then
    error("drover.raw: a string is wanted, got " .. type(text), 2)
  end
  return setmetatable({ text = text }, raw_mt)
end


-- The same of a text that was read and checked already: `value` is what it
-- says. For the gateway, which checks before it asks.
function _M.checked(text, value)
  return setmetatable({ text = text, value = value }, raw_mt)
end


-- The text of a drover.raw value, or nil; and its value, when it was checked.
function _M.raw_text(x)
  if getmetatable(x) == raw_mt then
    return x.text, x.value
  end
end


local escapes = {
  [byte("\"")] = "\\\"", [byte("\\")] = "\\\\", [byte("\b")] = "\\b",
  [byte("\f")] = "\\f", [byte("\n")] = "\\n", [byte("\r")] = "\\r",
  [byte("\t")] = "\\t",
}


-- Put the inside of a JSON string: spans as they are, escapes between.
local function put_escaped(out, s, at)
  local bytes = cast("const char *", s)
  local from = 0
  repeat
    out:putcdata(bytes + from, at - 1 - from)
    local c = byte(s, at)
    local short = escapes[c]
    out:put(short or format("\\u%04x", c))
    from = at
    at = find(s, "[%c\"\\]", at + 1)
  until not at
  out:putcdata(bytes + from, #s - from)
end


-- Where the first byte stands that needs an escape, or nil. Short texts by a
-- loop, which is compiled; find() with a class is not, but is faster on long.
local function find_special(s)
  local size = #s
  if size > SHORT then
    return find(s, "[%c\"\\]")
  end
  for i = 1, size do
    local c = byte(s, i)
    if c < 32 or c == 34 or c == 92 or c == 127 then
      return i
    end
  end
end


local function put_string(out, s)
  local at = find_special(s)
  if not at then
    out:put("\"", s, "\"")
    return
  end
  out:put("\"")
  put_escaped(out, s, at)
  out:put("\"")
end


local function number_json(n)
  if n ~= n or n - n ~= 0 then
    return nil, "a number is not finite"
  end
  if n == floor(n) and n <= EXACT_MAX and n >= -EXACT_MAX then
    return format("%d", n)
  end
  local short = format("%.15g", n)
  return tonumber(short) == n and short or format("%.17g", n)
end


-- "list", or "object", or nil for a table that is neither.
local function shape(t)
  if getmetatable(t) == array_mt then
    return "list"
  end
  local count, size = 0, #t
  for key in pairs(t) do
    if type(key) ~= "number" then
      return size == 0 and "object" or nil
    end
    count = count + 1
  end
  if size == 0 then
    return count == 0 and "object" or nil
  end
  return count == size and "list" or nil
end


-- The text of a key with its colon; those seen first are kept.
local names, names_left = {}, 512


local function name_json(key)
  local out = buffer.new()
  put_string(out, key)
  local text = out:put(":"):tostring()
  if names_left > 0 and #key <= 64 then
    names_left = names_left - 1
    names[key] = text
  end
  return text
end


-- Few keys are sorted faster here than by table.sort, which is not compiled.
local function sort(keys, count)
  if count > 24 then
    for i = #keys, count + 1, -1 do
      keys[i] = nil
    end
    return table.sort(keys)
  end
  for i = 2, count do
    local key, at = keys[i], i - 1
    while at > 0 and key < keys[at] do
      keys[at + 1] = keys[at]
      at = at - 1
    end
    keys[at + 1] = key
  end
end


local write


local function write_list(t, out, depth)
  out:put("[")
  for i = 1, #t do
    if i > 1 then
      out:put(",")
    end
    local where = write(t[i], out, depth)
    if where then
      return "[" .. i .. "]" .. where
    end
  end
  out:put("]")
end


-- Lists of keys, one for each depth, used again and again.
local scratch = {}


-- All members but the one named `skip`.
local function write_object(t, out, depth, skip)
  local keys, count = scratch[depth], 0
  if not keys then
    keys = {}
    scratch[depth] = keys
  end
  for key in pairs(t) do
    if type(key) ~= "string" then
      return ": a key is not a string"
    end
    if key ~= skip then
      count = count + 1
      keys[count] = key
    end
  end
  sort(keys, count)
  out:put("{")
  for i = 1, count do
    local key = keys[i]
    if i > 1 then
      out:put(",")
    end
    out:put(names[key] or name_json(key))
    local where = write(t[key], out, depth)
    if where then
      return "." .. key .. where
    end
  end
  out:put("}")
end


local function write_table(t, out, depth)
  if t == _M.null then
    out:put("null")
    return
  end
  if getmetatable(t) == raw_mt then
    out:put(t.text)
    return
  end
  if depth > DEPTH_MAX then
    return ": nested too deep, or a table holds itself"
  end
  local kind = shape(t)
  if not kind then
    return ": a table is neither a list nor an object"
  end
  if kind == "list" then
    return write_list(t, out, depth + 1)
  end
  return write_object(t, out, depth + 1)
end


-- Puts the JSON of `x` into `out`. Returns nothing, or where and why not.
function write(x, out, depth)
  local kind = type(x)
  if kind == "string" then
    put_string(out, x)
  elseif kind == "number" then
    local text, why = number_json(x)
    if not text then
      return ": " .. why
    end
    out:put(text)
  elseif kind == "boolean" then
    out:put(x and "true" or "false")
  elseif kind == "table" then
    return write_table(x, out, depth)
  elseif x == cjson_null then
    out:put("null")
  else
    return ": a " .. kind .. " is no JSON"
  end
end


-- Append the JSON of `x` to a string.buffer. Returns true, or nil and where
-- and why not (".messages[2]: …"); the buffer then holds a part.
function _M.put(out, x)
  local where = write(x, out, 1)
  if where then
    return nil, (gsub(where, "^[:.]%s*", ""))
  end
  return true
end


-- The same for an object without its member `skip`.
function _M.put_without(out, t, skip)
  local where = write_object(t, out, 2, skip)
  if where then
    return nil, (gsub(where, "^[:.]%s*", ""))
  end
  return true
end


-- The JSON text of `x`, or nil and where and why not.
function _M.encode(x)
  local out = buffer.new()
  local ok, why = _M.put(out, x)
  if not ok then
    return nil, why
  end
  return out:tostring()
end


-- The inside of a JSON string that says `s`, without the quotes.
function _M.escaped(s)
  local at = find(s, "[%c\"\\]")
  if not at then
    return s
  end
  local out = buffer.new()
  put_escaped(out, s, at)
  return out:tostring()
end


local function drop_nulls(t)
  local size = #t
  for key, value in pairs(t) do
    if value == cjson_null then
      t[key] = type(key) == "number" and key <= size and _M.null or nil
    elseif type(value) == "table" then
      drop_nulls(value)
    end
  end
  return t
end


-- The value of a JSON text, or nil and why not. Null members are dropped; a
-- null in a list is drover.null, so that places stay.
function _M.decode(text)
  local value, why = decoder.decode(text)
  if value == nil then
    return nil, why
  end
  if value == cjson_null then
    return _M.null
  end
  if type(value) == "table" and find(text, "null", 1, true) then
    drop_nulls(value)
  end
  return value
end


return _M
