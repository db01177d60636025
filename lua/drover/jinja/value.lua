-- Values of templates, as Python has them: none and undefined apart, lists and
-- dicts with their order, text that counts in code points. Text, numbers and
-- booleans are Lua's own.
--
--   list  { kind = "list", n = count, [1..n] }
--   dict  { kind = "dict", keys = { ordered }, map = { key -> value } }
--
-- SPDX-License-Identifier: MIT
local lex = require "drover.jinja.lex"

local concat, format = table.concat, string.format
local floor = math.floor

local _M = {}

_M.none = setmetatable({ kind = "none" }, {})

local DEPTH = 64


function _M.fail(kind, message)
  error({ jinja = kind, message = message }, 0)
end


function _M.undefined(name)
  return { kind = "undefined", name = name }
end


function _M.list(items, n)
  items.kind, items.n = "list", n or #items
  return items
end


function _M.dict()
  return { kind = "dict", keys = {}, map = {} }
end


function _M.put(dict, key, value)
  if dict.map[key] == nil then
    dict.keys[#dict.keys + 1] = key
  end
  dict.map[key] = value
end


-- "none", "undefined", "list", "dict", "namespace", "macro", "function", or
-- Lua's "string", "number", "boolean".
function _M.kind(x)
  local t = type(x)
  return t == "table" and x.kind or t
end

local kind = _M.kind


function _M.truth(x)
  local k = kind(x)
  if k == "boolean" then
    return x
  elseif k == "string" then
    return x ~= ""
  elseif k == "number" then
    return x ~= 0
  elseif k == "list" then
    return x.n > 0
  elseif k == "dict" then
    return #x.keys > 0
  end
  return k ~= "none" and k ~= "undefined"
end


-- Python's ==: True is 1; an undefined equals any other.
function _M.equal(a, b, depth)
  local ka, kb = kind(a), kind(b)
  depth = (depth or 0) + 1
  if depth > DEPTH then
    _M.fail("limit", "values are nested too deeply")
  end
  if ka == "boolean" then a, ka = a and 1 or 0, "number" end
  if kb == "boolean" then b, kb = b and 1 or 0, "number" end
  if ka ~= kb then
    return false
  elseif ka == "list" then
    if a.n ~= b.n then
      return false
    end
    for i = 1, a.n do
      if not _M.equal(a[i], b[i], depth) then
        return false
      end
    end
    return true
  elseif ka == "dict" then
    if #a.keys ~= #b.keys then
      return false
    end
    for _, key in ipairs(a.keys) do
      if b.map[key] == nil or not _M.equal(a.map[key], b.map[key], depth) then
        return false
      end
    end
    return true
  end
  return a == b or ka == "undefined"
end


-- ---- text ----

-- The code points of a text as a list of strings; bytes that are no UTF-8 stand
-- each for themselves.
function _M.chars(text)
  local out, n = {}, 0
  for c in text:gmatch("[%z\1-\127\194-\244][\128-\191]*") do
    n = n + 1
    out[n] = c
  end
  return out, n
end


function _M.length(x)
  local k = kind(x)
  if k == "string" then
    if not x:find("[\128-\255]") then
      return #x
    end
    local _, n = _M.chars(x)
    return n
  elseif k == "list" then
    return x.n
  elseif k == "dict" then
    return #x.keys
  elseif k == "undefined" then
    return 0
  end
  _M.fail("type", "a " .. k .. " has no length")
end


local function number_text(x)
  if x ~= x then
    return "nan"
  elseif x == math.huge or x == -math.huge then
    return x > 0 and "inf" or "-inf"
  elseif x % 1 == 0 and math.abs(x) < 2 ^ 53 then
    return format("%d", x)
  end
  for digits = 15, 17 do
    local text = format("%." .. digits .. "g", x)
    if tonumber(text) == x then
      return text
    end
  end
end

_M.number_text = number_text


-- Python's repr of a text: single quotes, unless it holds some and no double.
local function quoted(text)
  local quote = text:find("'", 1, true) and not text:find('"', 1, true)
                and '"' or "'"
  text = text:gsub("[%c\\" .. quote .. "]", function(c)
    if c == "\n" then return "\\n" end
    if c == "\t" then return "\\t" end
    if c == "\r" then return "\\r" end
    if c == "\\" or c == quote then return "\\" .. c end
    return format("\\x%02x", c:byte())
  end)
  return quote .. text .. quote
end


local function repr(x, depth)
  local k = kind(x)
  if depth > DEPTH then
    _M.fail("limit", "values are nested too deeply")
  elseif k == "string" then
    return quoted(x)
  elseif k == "list" then
    local out = {}
    for i = 1, x.n do
      out[i] = repr(x[i], depth + 1)
    end
    return "[" .. concat(out, ", ") .. "]"
  elseif k == "dict" then
    local out = {}
    for i, key in ipairs(x.keys) do
      out[i] = repr(key, depth + 1) .. ": " .. repr(x.map[key], depth + 1)
    end
    return "{" .. concat(out, ", ") .. "}"
  end
  return k == "undefined" and "Undefined" or _M.text(x)
end


-- What a value prints as.
function _M.text(x)
  local k = kind(x)
  if k == "string" then
    return x
  elseif k == "number" then
    return number_text(x)
  elseif k == "boolean" then
    return x and "True" or "False"
  elseif k == "none" then
    return "None"
  elseif k == "undefined" then
    return ""
  elseif k == "list" or k == "dict" then
    return repr(x, 1)
  end
  return "<" .. k .. ">"
end


-- ---- JSON out ----

local SHORT = { ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
                ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }


local function json_text(text)
  return '"' .. text:gsub('[%c"\\]', function(c)
    return c == "\127" and c or SHORT[c] or format("\\u%04x", c:byte())
  end) .. '"'
end


-- `indent` spaces a level, or nil for one line, as Python's json.dumps.
local function json(x, indent, depth)
  local k = kind(x)
  if depth > DEPTH then
    _M.fail("limit", "values are nested too deeply")
  end
  local open, close, parts, comma = "[", "]", {}, ", "
  if k == "string" then
    return json_text(x)
  elseif k == "number" then
    return number_text(x)
  elseif k == "boolean" then
    return x and "true" or "false"
  elseif k == "none" then
    return "null"
  elseif k == "list" then
    for i = 1, x.n do
      parts[i] = json(x[i], indent, depth + 1)
    end
  elseif k == "dict" then
    open, close = "{", "}"
    for i, key in ipairs(x.keys) do
      parts[i] = json_text(_M.text(key)) .. ": "
                 .. json(x.map[key], indent, depth + 1)
    end
  else
    _M.fail("type", "a " .. k .. " is no JSON")
  end
  if indent and #parts > 0 then
    local pad = "\n" .. (" "):rep(indent * depth)
    open, comma = open .. pad, "," .. pad
    close = "\n" .. (" "):rep(indent * (depth - 1)) .. close
  end
  return open .. concat(parts, comma) .. close
end


function _M.json(x, indent)
  return json(x, indent, 1)
end


-- ---- from Lua ----

-- A decoded request's value as a template's. Order of keys is that of `order`
-- (a list, for the objects that have it), else of the alphabet.
function _M.from_lua(x, null, depth)
  depth = (depth or 0) + 1
  if depth > DEPTH then
    _M.fail("limit", "values are nested too deeply")
  end
  if x == nil or x == null then
    return _M.none
  elseif type(x) ~= "table" then
    return x
  elseif x.kind == "list" or x.kind == "dict" and x.keys then
    return x                            -- one of ours already
  elseif #x > 0 or next(x) == nil and getmetatable(x) then
    local out = {}
    for i = 1, #x do
      out[i] = _M.from_lua(x[i], null, depth)
    end
    return _M.list(out, #x)
  end
  local names, out = {}, _M.dict()
  for name in pairs(x) do
    names[#names + 1] = name
  end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    _M.put(out, name, _M.from_lua(x[name], null, depth))
  end
  return out
end


-- ---- JSON in, keys in their order ----

local decode


local function decode_string(text, at)
  local out, from = {}, at + 1
  while true do
    local i = text:find('["\\]', from) or _M.fail("json", "byte " .. at)
    out[#out + 1] = text:sub(from, i - 1)
    if text:sub(i, i) == '"' then
      return concat(out), i + 1
    end
    local c = text:sub(i + 1, i + 1)
    if c == "u" then
      local code = tonumber(text:match("^%x%x%x%x", i + 2) or "", 16)
                   or _M.fail("json", "byte " .. i)
      from = i + 6
      local low = code >= 0xd800 and code < 0xdc00
                  and text:match("^\\u(%x%x%x%x)", from)
      if low then
        code = 0x10000 + (code - 0xd800) * 1024 + tonumber(low, 16) - 0xdc00
        from = from + 6
      end
      out[#out + 1] = lex.utf8(code)
    else
      local plain = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
      out[#out + 1] = plain[c] or c
      from = i + 2
    end
  end
end


local function decode_items(text, at, close, item)
  at = text:find("%S", at + 1)
  if text:sub(at, at) == close then
    return at + 1
  end
  while true do
    at = text:find("%S", item(at))
    local c = at and text:sub(at, at)
    if c == close then
      return at + 1
    elseif c ~= "," then
      _M.fail("json", "byte " .. (at or #text))
    end
    at = text:find("%S", at + 1)
  end
end


local WORDS = { { "true", true }, { "false", false }, { "null", _M.none } }


function decode(text, at, depth)
  at = text:find("%S", at) or _M.fail("json", "the end")
  local c = text:sub(at, at)
  if depth > DEPTH then
    _M.fail("limit", "values are nested too deeply")
  elseif c == '"' then
    return decode_string(text, at)
  elseif c == "[" then
    local list = _M.list({})
    return list, decode_items(text, at, "]", function(from)
      list.n = list.n + 1
      list[list.n], from = decode(text, from, depth + 1)
      return from
    end)
  elseif c == "{" then
    local dict = _M.dict()
    return dict, decode_items(text, at, "}", function(from)
      local key, value
      key, from = decode(text, from, depth + 1)
      from = text:find(":", from, true) or _M.fail("json", "byte " .. at)
      value, from = decode(text, from + 1, depth + 1)
      _M.put(dict, key, value)
      return from
    end)
  end
  for _, word in ipairs(WORDS) do
    if text:sub(at, at + #word[1] - 1) == word[1] then
      return word[2], at + #word[1]
    end
  end
  local number = text:match("^-?%d+[%d.eE+-]*", at)
  if not tonumber(number) then
    _M.fail("json", "byte " .. at)
  end
  return tonumber(number), at + #number
end


-- A checked JSON text as a value; its objects keep the order of their keys.
function _M.from_json(text)
  return (decode(text, 1, 1))
end


-- floor division and modulo are Python's, and Lua's.
function _M.floor_div(a, b)
  return floor(a / b)
end


return _M
