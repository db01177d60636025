-- The methods of text, lists and dicts that templates call, as Python has them.
-- None changes its object.
--
-- SPDX-License-Identifier: MIT
local value = require "drover.jinja.value"

local kind, text_of, fail = value.kind, value.text, value.fail

local _M = { string = {}, list = {}, dict = {} }
local S, L, D = _M.string, _M.list, _M.dict


local function want(x, k, what)
  if kind(x) ~= k then
    fail("type", what .. ": a " .. k .. " is wanted, not a " .. kind(x))
  end
  return x
end


-- A set of characters as a pattern's class; white space where none is given.
local function class_of(chars)
  if chars == nil or kind(chars) == "none" then
    return "%s"
  end
  want(chars, "string", "strip")
  return chars == "" and nil or (chars:gsub("[%%%]%^%-]", "%%%0"))
end


function S.strip(s, chars)
  return S.rstrip(S.lstrip(s, chars), chars)
end


function S.lstrip(s, chars)
  local class = class_of(chars)
  return class and (s:gsub("^[" .. class .. "]+", "")) or s
end


function S.rstrip(s, chars)
  local class = class_of(chars)
  if not class then
    return s
  end
  local last = #s
  while last > 0 and s:find("^[" .. class .. "]", last) do
    last = last - 1
  end
  return s:sub(1, last)
end


function S.upper(s) return s:upper() end
function S.lower(s) return s:lower() end


function S.title(s)
  return (s:lower():gsub("(%a)([%a]*)", function(a, b)
    return a:upper() .. b
  end))
end


function S.capitalize(s)
  return s:sub(1, 1):upper() .. s:sub(2):lower()
end


local function any_of(what, test)
  if kind(what) == "list" then
    for i = 1, what.n do
      if test(want(what[i], "string", "startswith")) then
        return true
      end
    end
    return false
  end
  return test(want(what, "string", "startswith"))
end


function S.startswith(s, what)
  return any_of(what, function(p) return s:sub(1, #p) == p end)
end


function S.endswith(s, what)
  return any_of(what, function(p)
    return p == "" or s:sub(-#p) == p
  end)
end


-- By white space where `sep` is none: empty pieces are dropped then.
function S.split(s, sep, most)
  local out, from = {}, 1
  most = most and most >= 0 and most or math.huge
  if sep == nil or kind(sep) == "none" then
    local at = s:find("%S")
    while at do
      if #out == most then
        out[#out + 1] = s:sub(at)
        break
      end
      local stop = s:find("%s", at) or #s + 1
      out[#out + 1] = s:sub(at, stop - 1)
      at = s:find("%S", stop)
    end
    return value.list(out)
  end
  if want(sep, "string", "split") == "" then
    fail("type", "split: empty separator")
  end
  while #out < most do
    local i, j = s:find(sep, from, true)
    if not i then
      break
    end
    out[#out + 1] = s:sub(from, i - 1)
    from = j + 1
  end
  out[#out + 1] = s:sub(from)
  return value.list(out)
end


function S.splitlines(s)
  local out = {}
  for line in (s:gsub("\r\n?", "\n") .. (s:find("[\r\n]$") and "" or "\n"))
              :gmatch("(.-)\n") do
    out[#out + 1] = line
  end
  return value.list(s == "" and {} or out)
end


function S.replace(s, from, to, most)
  want(from, "string", "replace")
  want(to, "string", "replace")
  local pattern = from:gsub("%W", "%%%0")
  return (s:gsub(pattern, (to:gsub("%%", "%%%%")), most))
end


function S.join(s, list)
  want(list, "list", "join")
  local out = {}
  for i = 1, list.n do
    out[i] = want(list[i], "string", "join")
  end
  return table.concat(out, s)
end


function S.find(s, what)
  local i = s:find(want(what, "string", "find"), 1, true)
  return i and value.length(s:sub(1, i - 1)) or -1
end


function S.count(s, what)
  local pattern = want(what, "string", "count"):gsub("%W", "%%%0")
  local _, n = s:gsub(pattern, "")
  return n
end


function S.isdigit(s) return s:find("^%d+$") ~= nil end
function S.isalpha(s) return s:find("^%a+$") ~= nil end
function S.isspace(s) return s:find("^%s+$") ~= nil end


function S.removeprefix(s, p)
  return s:sub(1, #p) == p and s:sub(#p + 1) or s
end


function S.removesuffix(s, p)
  return p ~= "" and s:sub(-#p) == p and s:sub(1, -#p - 1) or s
end


function L.index(list, what)
  for i = 1, list.n do
    if value.equal(list[i], what) then
      return i - 1
    end
  end
  fail("type", "index: not in the list")
end


function L.count(list, what)
  local n = 0
  for i = 1, list.n do
    n = n + (value.equal(list[i], what) and 1 or 0)
  end
  return n
end


function D.get(dict, key, default)
  local got = dict.map[key]
  if got == nil then
    return default == nil and value.none or default
  end
  return got
end


function D.keys(dict)
  local out = {}
  for i, key in ipairs(dict.keys) do
    out[i] = key
  end
  return value.list(out)
end


function D.values(dict)
  local out = {}
  for i, key in ipairs(dict.keys) do
    out[i] = dict.map[key]
  end
  return value.list(out)
end


function D.items(dict)
  local out = {}
  for i, key in ipairs(dict.keys) do
    out[i] = value.list({ key, dict.map[key] })
  end
  return value.list(out)
end


function D.copy(dict)
  local out = value.dict()
  for _, key in ipairs(dict.keys) do
    value.put(out, key, dict.map[key])
  end
  return out
end


_M.text_of = text_of

return _M
