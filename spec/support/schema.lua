-- JSON schemas for specs: random ones of the subset that the local engine
-- takes, and a reader and a validator of the same subset that share nothing
-- with it.
local _M = {}

local null = setmetatable({}, { __tostring = function() return "null" end })
local array_mt = {}


-- ---- a plain JSON reader: lists are marked, a name twice is an error ----

local read


local function bad(at, what)
  error(("byte %d: %s"):format(at, what), 0)
end


local function skip(t, at)
  return t:find("[^ \t\r\n]", at) or #t + 1
end


local escapes = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
                  ["\""] = "\"", ["\\"] = "\\", ["/"] = "/" }


local function utf8(code)
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(192 + math.floor(code / 64), 128 + code % 64)
  elseif code < 0x10000 then
    return string.char(224 + math.floor(code / 4096),
                       128 + math.floor(code / 64) % 64, 128 + code % 64)
  end
  return string.char(240 + math.floor(code / 262144),
                     128 + math.floor(code / 4096) % 64,
                     128 + math.floor(code / 64) % 64, 128 + code % 64)
end


local function read_hex(t, at)
  local hex = t:match("^\\u(%x%x%x%x)", at) or bad(at, "an escape")
  local code = tonumber(hex, 16)
  if code < 0xd800 or code > 0xdfff then
    return utf8(code), at + 6
  end
  local low = tonumber(t:match("^\\u(%x%x%x%x)", at + 6) or "0", 16)
  if code > 0xdbff or low < 0xdc00 or low > 0xdfff then
    bad(at, "half a pair")
  end
  return utf8(0x10000 + (code - 0xd800) * 1024 + low - 0xdc00), at + 12
end


-- Continuations that stand alone and leads without them are caught here; what
-- is overlong is left to the C side's own specs.
local function check_utf8(s, at)
  local left = s:gsub("[%z\1-\127]", ""):gsub("[\194-\223][\128-\191]", "")
    :gsub("[\224-\239][\128-\191][\128-\191]", "")
    :gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  return left == "" or bad(at, "no UTF-8")
end


local function read_string(t, at)
  local out, from = {}, at
  at = at + 1
  while true do
    local stop = t:find('[%c"\\]', at) or bad(from, "a string without end")
    out[#out + 1] = t:sub(at, stop - 1)
    local byte = t:sub(stop, stop)
    if byte == '"' then
      local text = table.concat(out)
      check_utf8(text, from)
      return text, stop + 1
    elseif byte == "\\" and t:sub(stop + 1, stop + 1) == "u" then
      out[#out + 1], at = read_hex(t, stop)
    elseif byte == "\\" then
      out[#out + 1] = escapes[t:sub(stop + 1, stop + 1)] or bad(stop, "an escape")
      at = stop + 2
    elseif byte == "\127" then
      out[#out + 1], at = byte, stop + 1
    else
      bad(stop, "a control character")
    end
  end
end


local function read_number(t, at)
  local whole = t:match("^-?%d+", at) or bad(at, "a value")
  if whole:find("^-?0%d") then
    bad(at, "a leading zero")
  end
  local stop = at + #whole
  stop = stop + #(t:match("^%.%d+", stop) or "")
  stop = stop + #(t:match("^[eE][+-]?%d+", stop) or "")
  return tonumber(t:sub(at, stop - 1)), stop
end


local function read_list(t, at)
  local out = setmetatable({}, array_mt)
  at = skip(t, at + 1)
  if t:sub(at, at) == "]" then
    return out, at + 1
  end
  repeat
    out[#out + 1], at = read(t, at)
    at = skip(t, at)
    local byte = t:sub(at, at)
    at = at + 1
    if byte ~= "," and byte ~= "]" then
      bad(at, "a list")
    end
  until byte == "]"
  return out, at
end


local function read_object(t, at)
  local out = {}
  at = skip(t, at + 1)
  if t:sub(at, at) == "}" then
    return out, at + 1
  end
  repeat
    local name
    at = skip(t, at)
    if t:sub(at, at) ~= '"' then
      bad(at, "a name")
    end
    name, at = read_string(t, at)
    at = skip(t, at)
    if t:sub(at, at) ~= ":" or out[name] ~= nil then
      bad(at, "a colon, or a name twice")
    end
    out[name], at = read(t, at + 1)
    at = skip(t, at)
    local byte = t:sub(at, at)
    at = at + 1
    if byte ~= "," and byte ~= "}" then
      bad(at, "an object")
    end
  until byte == "}"
  return out, at
end


function read(t, at)
  at = skip(t, at)
  local byte = t:sub(at, at)
  if byte == "{" then
    return read_object(t, at)
  elseif byte == "[" then
    return read_list(t, at)
  elseif byte == '"' then
    return read_string(t, at)
  end
  for word, value in pairs{ ["true"] = true, ["false"] = false, null = null } do
    if t:sub(at, at + #word - 1) == word then
      return value, at + #word
    end
  end
  return read_number(t, at)
end


-- The value of a JSON text, or nil and why it is none.
function _M.decode(text)
  local ok, value, at = pcall(read, text, 1)
  if not ok then
    return nil, value
  elseif skip(text, at) <= #text then
    return nil, "something follows"
  end
  return value
end


-- ---- a plain validator ----

local function is_array(v)
  return getmetatable(v) == array_mt
end


local function characters(s)
  local _, n = s:gsub("[^\128-\191]", "")
  return n
end


local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for k, v in pairs(a) do
    if not same(v, b[k]) then
      return false
    end
  end
  for k in pairs(b) do
    if a[k] == nil then
      return false
    end
  end
  return is_array(a) == is_array(b)
end


local kinds = {
  string = function(v) return type(v) == "string" end,
  number = function(v) return type(v) == "number" end,
  integer = function(v) return type(v) == "number" and v % 1 == 0 end,
  boolean = function(v) return type(v) == "boolean" end,
  null = function(v) return v == null end,
  array = is_array,
  object = function(v) return type(v) == "table" and v ~= null and not is_array(v) end,
}

local fits


local function fits_object(v, s, root)
  for _, name in ipairs(s.required or {}) do
    if v[name] == nil then
      return false
    end
  end
  for name, member in pairs(v) do
    local sub = (s.properties or {})[name]
    if sub == nil then
      sub = s.additionalProperties
    end
    if sub == false or type(sub) == "table" and not fits(member, sub, root) then
      return false
    end
  end
  return true
end


local function fits_array(v, s, root)
  if #v < (s.minItems or 0) or #v > (s.maxItems or math.huge) then
    return false
  end
  for _, item in ipairs(v) do
    if s.items and not fits(item, s.items, root) then
      return false
    end
  end
  return true
end


local function one_of(list, test)
  for _, x in ipairs(list) do
    if test(x) then
      return true
    end
  end
  return false
end


function fits(v, s, root)
  if s["$ref"] then
    local at = root
    for step in s["$ref"]:gmatch("/([^/]+)") do
      at = at[step]
    end
    return fits(v, at, root)
  end
  if s.anyOf and not one_of(s.anyOf, function(x) return fits(v, x, root) end)
     or s.enum and not one_of(s.enum, function(x) return same(v, x) end)
     or s.const ~= nil and not same(v, s.const) then
    return false
  end
  local types = type(s.type) == "table" and s.type or { s.type }
  if s.type and not one_of(types, function(x) return kinds[x](v) end) then
    return false
  end
  if type(v) == "string" then
    local n = characters(v)
    return n >= (s.minLength or 0) and n <= (s.maxLength or math.huge)
  elseif is_array(v) then
    return fits_array(v, s, root)
  elseif type(v) == "table" and v ~= null then
    return fits_object(v, s, root)
  end
  return true
end


-- Whether a text is JSON and fits a schema (JSON text). False, and why not.
function _M.fits(text, schema)
  local value, why = _M.decode(text)
  if value == nil then
    return false, "no JSON: " .. why
  end
  local s = assert(_M.decode(schema))
  return fits(value, s, s)
end


-- ---- random schemas, as text ----

local make


local function pick(random, list)
  return list[random(#list)]
end


local words = { "id", "name", "kind", "size", "open", "tags", "next", "left",
                "colour", "état", "a b", "x\\\"y" }

local leaves = {
  function() return '{"type":"string"}' end,
  function(random)
    local least = random(0, 3)
    return ('{"type":"string","minLength":%d,"maxLength":%d}'):format(
      least, least + random(0, 12))
  end,
  function() return '{"type":"integer"}' end,
  function() return '{"type":"number"}' end,
  function() return '{"type":"boolean"}' end,
  function() return '{"type":["string","null"],"maxLength":40}' end,
  function() return '{"type":["integer","boolean"]}' end,
  function() return '{"enum":["red","green","re",1,12,null]}' end,
  function() return '{"type":"string","enum":["north","south","no"]}' end,
  function() return '{"const":{"v":[1,"two"]}}' end,
}


local function object(random, depth)
  local names, parts, required = {}, {}, {}
  for i = 1, #words do
    names[i] = words[i]
  end
  for i = 1, random(1, 4) do
    local name = table.remove(names, random(#names))
    parts[i] = ('"%s":%s'):format(name, make(random, depth - 1))
    if random(4) > 1 then
      required[#required + 1] = '"' .. name .. '"'
    end
  end
  return ('{"type":"object","properties":{%s},"required":[%s],'
          .. '"additionalProperties":false}'):format(
    table.concat(parts, ","), table.concat(required, ","))
end


local function array(random, depth)
  local least = random(0, 2)
  local bounds = random(3) > 1
    and (',"minItems":%d,"maxItems":%d'):format(least, least + random(0, 3))
    or ',"maxItems":4'
  return '{"type":"array","items":' .. make(random, depth - 1) .. bounds .. "}"
end


local function choice(random, depth)
  return ('{"anyOf":[%s,%s]}'):format(make(random, depth - 1),
                                       make(random, depth - 1))
end


function make(random, depth)
  local what = depth > 0 and random(10) or 10
  if what <= 3 then
    return object(random, depth)
  elseif what <= 5 then
    return array(random, depth)
  elseif what == 6 then
    return choice(random, depth)
  elseif what == 7 then
    return '{"$ref":"#/$defs/node"}'
  end
  return pick(random, leaves)(random)
end


-- The JSON text of a random schema, an object at its top; `random` as
-- math.random.
function _M.random(random)
  local node = '{"type":"object","properties":{"value":{"type":"integer"},'
    .. '"next":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/node"}]}},'
    .. '"required":["value","next"],"additionalProperties":false}'
  return '{"$defs":{"node":' .. node .. "}," .. object(random, 3):sub(2)
end


return _M
