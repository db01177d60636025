-- The filters and tests that templates may use; what is not here is refused
-- when a template is compiled. None reaches anything but its arguments.
--
-- A filter: function(x, args, named, run) -> value; `run` calls other filters
-- and tests by name (map, select) and reads attributes.
--
-- SPDX-License-Identifier: MIT
local methods = require "drover.jinja.methods"
local value = require "drover.jinja.value"

local kind, fail, text_of = value.kind, value.fail, value.text
local none = value.none

local _M = { filters = {}, tests = {}, takes_one = {} }
local F, T = _M.filters, _M.tests


-- The items of a value that can be walked, as a list.
function _M.items(x)
  local k = kind(x)
  if k == "list" then
    return x
  elseif k == "dict" then
    return methods.dict.keys(x)
  elseif k == "string" then
    local chars, n = value.chars(x)
    return value.list(chars, n)
  elseif k == "undefined" then
    return value.list({})
  end
  fail("type", "a " .. k .. " has no items")
end

local items = _M.items


local function string_of(x)
  return kind(x) == "string" and x or text_of(x)
end


function F.tojson(x, args, named)
  local indent = args[1] or named.indent
  return value.json(x, kind(indent) == "number" and indent or nil)
end


F.length = value.length
F.count = value.length


function F.trim(x, args)
  return methods.string.strip(string_of(x), args[1])
end


function F.string(x) return string_of(x) end
function F.safe(x) return x end
function F.upper(x) return string_of(x):upper() end
function F.lower(x) return string_of(x):lower() end
function F.title(x) return methods.string.title(string_of(x)) end
function F.capitalize(x) return methods.string.capitalize(string_of(x)) end


function F.default(x, args, named)
  local other = args[1]
  if other == nil then
    other = named.default_value == nil and "" or named.default_value
  end
  local falsy = args[2] or named.boolean
  if kind(x) == "undefined" or falsy and not value.truth(x) then
    return other
  end
  return x
end

F.d = F.default


function F.join(x, args, named)
  local out, list = {}, items(x)
  local attribute = named.attribute
  for i = 1, list.n do
    local item = list[i]
    if attribute then
      item = kind(item) == "dict" and item.map[attribute] or ""
    end
    out[i] = string_of(item)
  end
  return table.concat(out, string_of(args[1] or named.d or ""))
end


-- Jinja's own: an undefined has none.
function F.items(x)
  if kind(x) == "undefined" then
    return value.list({})
  elseif kind(x) ~= "dict" then
    fail("type", "items: a dict is wanted, not a " .. kind(x))
  end
  return methods.dict.items(x)
end


function F.list(x)
  local from = items(x)
  local out = {}
  for i = 1, from.n do
    out[i] = from[i]
  end
  return value.list(out, from.n)
end


function F.first(x)
  local list = items(x)
  return list.n > 0 and list[1] or value.undefined("first")
end


function F.last(x)
  local list = items(x)
  return list.n > 0 and list[list.n] or value.undefined("last")
end


function F.reverse(x)
  local list, out = items(x), {}
  for i = list.n, 1, -1 do
    out[#out + 1] = list[i]
  end
  return kind(x) == "string" and table.concat(out) or value.list(out, list.n)
end


function F.unique(x)
  local list, out = items(x), value.list({})
  for i = 1, list.n do
    local seen = false
    for j = 1, out.n do
      seen = seen or value.equal(out[j], list[i])
    end
    if not seen then
      out.n = out.n + 1
      out[out.n] = list[i]
    end
  end
  return out
end


local function less(a, b)
  if kind(a) ~= kind(b) or kind(a) ~= "string" and kind(a) ~= "number" then
    fail("type", "a " .. kind(a) .. " and a " .. kind(b) .. " have no order")
  end
  return a < b
end

_M.less = less


-- Stable; by `key`.
local function sorted(list, key, reverse)
  local order = {}
  for i = 1, list.n do
    order[i] = i
  end
  table.sort(order, function(a, b)
    local x, y = key(list[a]), key(list[b])
    if reverse then
      x, y = y, x
    end
    if less(x, y) then
      return true
    end
    return not less(y, x) and a < b
  end)
  local out = {}
  for i, from in ipairs(order) do
    out[i] = list[from]
  end
  return value.list(out, list.n)
end


local function folded(x)
  return kind(x) == "string" and x:lower() or x
end


function F.sort(x, args, named, run)
  local attribute = named.attribute
  return sorted(items(x), function(item)
    return folded(attribute and run.attr(item, attribute) or item)
  end, value.truth(args[1] or named.reverse or false))
end


function F.dictsort(x)
  if kind(x) ~= "dict" then
    fail("type", "dictsort: a dict is wanted, not a " .. kind(x))
  end
  return sorted(methods.dict.items(x), function(pair)
    return folded(pair[1])
  end)
end


function F.replace(x, args)
  return methods.string.replace(string_of(x), args[1], args[2], args[3])
end


function F.int(x, args)
  local n = kind(x) == "string" and tonumber(x:match("^%s*[+-]?%d+"))
            or kind(x) == "number" and x or x == true and 1
  if not n then
    return args[1] or 0
  end
  return n < 0 and math.ceil(n) or math.floor(n)
end


function F.float(x, args)
  return kind(x) == "number" and x or tonumber(kind(x) == "string" and x)
         or args[1] or 0
end


function F.abs(x)
  return kind(x) == "number" and math.abs(x) or fail("type", "abs: no number")
end


function F.round(x, args)
  local scale = 10 ^ (args[1] or 0)
  return math.floor(x * scale + 0.5) / scale
end


function F.sum(x)
  local list, sum = items(x), 0
  for i = 1, list.n do
    sum = sum + (kind(list[i]) == "number" and list[i]
                 or fail("type", "sum: no number"))
  end
  return sum
end


local function best(x, better)
  local list = items(x)
  local found = list.n > 0 and list[1] or value.undefined("min")
  for i = 2, list.n do
    found = better(list[i], found) and list[i] or found
  end
  return found
end


function F.min(x) return best(x, less) end
function F.max(x) return best(x, function(a, b) return less(b, a) end) end


-- Lines but the first (and empty ones) get `width` blanks, or a text.
function F.indent(x, args, named)
  local width = args[1] or named.width or 4
  local pad = kind(width) == "string" and width or (" "):rep(width)
  local first = value.truth(args[2] or named.first or false)
  local blank = value.truth(args[3] or named.blank or false)
  local text = string_of(x):gsub("\n([^\n]*)", function(line)
    return "\n" .. ((line ~= "" or blank) and pad or "") .. line
  end)
  return (first and pad or "") .. text
end


local function keep(x, wanted, test)
  local list, out = items(x), value.list({})
  for i = 1, list.n do
    if test(list[i]) == wanted then
      out.n = out.n + 1
      out[out.n] = list[i]
    end
  end
  return out
end


-- By a test's name and its arguments, or by truth; `attr`: of an attribute.
local function selection(wanted, attr)
  return function(x, args, _, run)
    local at = attr and 1 or 0
    local name = args[at + 1]
    return keep(x, wanted, function(item)
      local it = attr and run.attr(item, args[1]) or item
      if name == nil then
        return value.truth(it)
      end
      return run.test(name, it, { unpack(args, at + 2) })
    end)
  end
end


F.select = selection(true, false)
F.reject = selection(false, false)
F.selectattr = selection(true, true)
F.rejectattr = selection(false, true)


function F.map(x, args, named, run)
  local list, out = items(x), {}
  for i = 1, list.n do
    if named.attribute then
      local got = run.attr(list[i], named.attribute)
      out[i] = kind(got) == "undefined" and named.default or got
    else
      out[i] = run.filter(args[1], list[i], { unpack(args, 2) })
    end
  end
  return value.list(out, list.n)
end


local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;",
                   ['"'] = "&#34;", ["'"] = "&#39;" }


function F.escape(x)
  return (string_of(x):gsub("[&<>\"']", ENTITIES))
end

F.e = F.escape


-- ---- tests ----

function T.defined(x) return kind(x) ~= "undefined" end
function T.undefined(x) return kind(x) == "undefined" end
function T.none(x) return x == none end
T["None"] = T.none
function T.string(x) return kind(x) == "string" end
function T.number(x) return kind(x) == "number" end
function T.integer(x) return kind(x) == "number" and x % 1 == 0 end
function T.float(x) return kind(x) == "number" and x % 1 ~= 0 end
function T.boolean(x) return kind(x) == "boolean" end
T["true"] = function(x) return x == true end
T["false"] = function(x) return x == false end
function T.mapping(x) return kind(x) == "dict" or kind(x) == "namespace" end


function T.sequence(x)
  local k = kind(x)
  return k == "list" or k == "string" or k == "dict" or k == "undefined"
end


T.iterable = T.sequence
function T.callable(x) return kind(x) == "macro" or kind(x) == "function" end
function T.odd(x) return x % 2 == 1 end
function T.even(x) return x % 2 == 0 end
function T.divisibleby(x, args) return x % args[1] == 0 end
function T.equalto(x, args) return value.equal(x, args[1]) end
function T.ne(x, args) return not value.equal(x, args[1]) end
function T.gt(x, args) return less(args[1], x) end
function T.lt(x, args) return less(x, args[1]) end
T.eq, T["=="], T["!="] = T.equalto, T.equalto, T.ne


function T.lower(x) return string_of(x) == string_of(x):lower() end
function T.upper(x) return string_of(x) == string_of(x):upper() end


-- What `in` means.
function _M.contains(container, x)
  local k = kind(container)
  if k == "string" then
    if kind(x) ~= "string" then
      fail("type", "a " .. kind(x) .. " is in no text")
    end
    return container:find(x, 1, true) ~= nil
  elseif k == "dict" then
    return container.map[x] ~= nil
  end
  local list = items(container)
  for i = 1, list.n do
    if value.equal(list[i], x) then
      return true
    end
  end
  return false
end


T["in"] = function(x, args) return _M.contains(args[1], x) end

for _, name in ipairs { "divisibleby", "equalto", "eq", "ne", "gt", "lt",
                        "in" } do
  _M.takes_one[name] = true
end


return _M
