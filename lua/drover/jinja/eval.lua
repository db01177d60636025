-- Values of expressions: a step counted for each node, nothing reached but what
-- a template was given.
--
-- SPDX-License-Identifier: MIT
local filters = require "drover.jinja.filters"
local methods = require "drover.jinja.methods"
local value = require "drover.jinja.value"

local kind, fail, truth, text_of = value.kind, value.fail, value.truth,
                                   value.text
local none = value.none

local _M = {}

_M.STEPS, _M.OUTPUT = 1000000, 16 * 1024 * 1024
local STEPS, OUTPUT = _M.STEPS, _M.OUTPUT

local E = {}                            -- by the node's word


-- ---- scopes ----

-- A scope's own names, then those around it.
function _M.scope(parent)
  return { vars = {}, parent = parent }
end


function _M.lookup(env, name)
  while env do
    local got = env.vars[name]
    if got ~= nil then
      return got
    end
    env = env.parent
  end
  return value.undefined(name)
end


function _M.step(run)
  run.steps = run.steps + 1
  if run.steps > STEPS then
    fail("limit", ("more than %d steps"):format(STEPS))
  end
end


local function eval(run, env, node)
  _M.step(run)
  return E[node[1]](run, env, node)
end


-- ---- attributes and items ----

local function attr_of(object, name)
  local k = kind(object)
  if k == "undefined" then
    fail("template", ("%s is undefined"):format(object.name or "a value"))
  elseif k == "namespace" or k == "loop" then
    local got = object.map[name]
    return got == nil and value.undefined(name) or got
  end
  local method = methods[k] and methods[k][name]
  if method then
    return { kind = "function", call = function(args)
      return method(object, unpack(args, 1, 4))
    end }
  elseif k == "dict" and object.map[name] ~= nil then
    return object.map[name]
  end
  return value.undefined(name)
end


local function item_of(object, key)
  local k = kind(object)
  if k == "undefined" then
    fail("template", ("%s is undefined"):format(object.name or "a value"))
  elseif k == "list" and kind(key) == "number" then
    local at = key < 0 and object.n + key + 1 or key + 1
    local got = object[at]
    return at >= 1 and at <= object.n and got or value.undefined("item")
  elseif k == "string" and kind(key) == "number" then
    local chars, n = value.chars(object)
    return chars[key < 0 and n + key + 1 or key + 1]
           or value.undefined("item")
  elseif k == "dict" and object.map[key] ~= nil then
    return object.map[key]
  end
  return kind(key) == "string" and attr_of(object, key)
         or value.undefined("item")
end


-- Python's rules for a slice's ends.
local function bounds(n, first, last, by)
  local function clip(x, low, high)
    if x < 0 then
      x = x + n
    end
    return math.max(low, math.min(high, x))
  end
  if by > 0 then
    return first and clip(first, 0, n) or 0, last and clip(last, 0, n) or n
  end
  return first and clip(first, -1, n - 1) or n - 1,
         last and clip(last, -1, n - 1) or -1
end


function E.slice(run, env, node)
  local object, part = eval(run, env, node[2]), {}
  for i = 3, 5 do
    local x = node[i] and eval(run, env, node[i])
    part[i] = x and x ~= none and x or nil
    if part[i] and kind(part[i]) ~= "number" then
      fail("type", "a slice wants numbers")
    end
  end
  local by = part[5] or 1
  if by == 0 then
    fail("type", "a slice's step is 0")
  elseif kind(object) ~= "list" and kind(object) ~= "string" then
    fail("type", "a " .. kind(object) .. " has no slices")
  end
  local list, out = filters.items(object), {}
  local first, last = bounds(list.n, part[3], part[4], by)
  for i = first, by > 0 and last - 1 or last + 1, by do
    out[#out + 1] = list[i + 1]
  end
  return kind(object) == "string" and table.concat(out) or value.list(out)
end


-- ---- expressions ----

function E.value(_, _, node) return node[2] end
function E.none() return none end
function E.undefined() return value.undefined("a value") end
function E.name(_, env, node) return _M.lookup(env, node[2]) end


function E.list(run, env, node)
  local out = {}
  for i, item in ipairs(node[2]) do
    out[i] = eval(run, env, item)
  end
  return value.list(out, #node[2])
end


function E.dict(run, env, node)
  local out = value.dict()
  for _, pair in ipairs(node[2]) do
    value.put(out, eval(run, env, pair[1]), eval(run, env, pair[2]))
  end
  return out
end


function E.cond(run, env, node)
  return eval(run, env, truth(eval(run, env, node[2])) and node[3] or node[4])
end


E["or"] = function(run, env, node)
  local left = eval(run, env, node[2])
  if truth(left) then
    return left
  end
  return eval(run, env, node[3])
end


E["and"] = function(run, env, node)
  local left = eval(run, env, node[2])
  if not truth(left) then
    return left
  end
  return eval(run, env, node[3])
end


E["not"] = function(run, env, node)
  return not truth(eval(run, env, node[2]))
end


local compare = {
  ["=="] = value.equal,
  ["!="] = function(a, b) return not value.equal(a, b) end,
  ["<"] = filters.less,
  [">"] = function(a, b) return filters.less(b, a) end,
  ["<="] = function(a, b) return not filters.less(b, a) end,
  [">="] = function(a, b) return not filters.less(a, b) end,
  ["in"] = function(a, b) return filters.contains(b, a) end,
  ["not in"] = function(a, b) return not filters.contains(b, a) end,
}


function E.compare(run, env, node)
  local left = eval(run, env, node[2])
  for _, link in ipairs(node[3]) do
    local right = eval(run, env, link[2])
    if not compare[link[1]](left, right) then
      return false
    end
    left = right
  end
  return true
end


-- a .. b, where that is not too long.
local function joined(a, b)
  if #a + #b > OUTPUT then
    fail("limit", ("more than %d bytes"):format(OUTPUT))
  end
  return a .. b
end


E["join"] = function(run, env, node)
  return joined(text_of(eval(run, env, node[2])),
                text_of(eval(run, env, node[3])))
end


local function add(a, b)
  if kind(a) == "list" and kind(b) == "list" then
    local out = {}
    if a.n + b.n > STEPS then
      fail("limit", ("more than %d items"):format(STEPS))
    end
    for i = 1, a.n do out[i] = a[i] end
    for i = 1, b.n do out[a.n + i] = b[i] end
    return value.list(out, a.n + b.n)
  end
  return joined(a, b)
end


local math_ops = {
  ["+"] = function(a, b) return a + b end,
  ["-"] = function(a, b) return a - b end,
  ["*"] = function(a, b) return a * b end,
  ["/"] = function(a, b) return a / b end,
  ["//"] = value.floor_div,
  ["%"] = function(a, b) return a % b end,
  ["**"] = function(a, b) return a ^ b end,
}


local function number(x)
  return type(x) == "boolean" and (x and 1 or 0) or x
end


-- Text and lists add up; a text may be repeated; the rest is for numbers.
function E.math(run, env, node)
  local op, a, b = node[2], eval(run, env, node[3]), eval(run, env, node[4])
  local ka, kb = kind(a), kind(b)
  if ka == "undefined" or kb == "undefined" then
    local x = ka == "undefined" and a or b
    fail("template", ("%s is undefined"):format(x.name or "a value"))
  elseif op == "+" and ka == kb and (ka == "string" or ka == "list") then
    return add(a, b)
  elseif op == "*" and ka == "string" and kb == "number" then
    if #a * b > OUTPUT then
      fail("limit", ("more than %d bytes"):format(OUTPUT))
    end
    return a:rep(b)
  end
  a, b = number(a), number(b)
  if type(a) ~= "number" or type(b) ~= "number" then
    fail("type", ("%s of a %s and a %s"):format(op, ka, kb))
  elseif b == 0 and (op == "/" or op == "//" or op == "%") then
    fail("type", "a division by zero")
  end
  return math_ops[op](a, b)
end


function E.minus(run, env, node)
  local x = number(eval(run, env, node[2]))
  return type(x) == "number" and -x or fail("type", "- of a " .. kind(x))
end


function E.attr(run, env, node)
  return attr_of(eval(run, env, node[2]), node[3])
end


function E.item(run, env, node)
  return item_of(eval(run, env, node[2]), eval(run, env, node[3]))
end


local function arguments(run, env, args, named)
  local list, names = {}, {}
  for i, arg in ipairs(args) do
    list[i] = eval(run, env, arg)
  end
  for _, pair in ipairs(named or {}) do
    names[pair[1]] = eval(run, env, pair[2])
  end
  return list, names
end


function E.call(run, env, node)
  local f = eval(run, env, node[2])
  local args, named = arguments(run, env, node[3], node[4])
  local k = kind(f)
  if k == "undefined" then
    fail("template", ("%s is undefined"):format(f.name or "a value"))
  elseif k ~= "function" and k ~= "macro" then
    fail("type", "a " .. k .. " is called")
  end
  return f.call(args, named, run)
end


function E.filter(run, env, node)
  local x = eval(run, env, node[3])
  local args, named = arguments(run, env, node[4], node[5])
  return filters.filters[node[2]](x, args, named, run)
end


function E.test(run, env, node)
  local x = eval(run, env, node[3])
  local args = arguments(run, env, node[4])
  return filters.tests[node[2]](x, args)
end


_M.eval, _M.item_of, _M.E = eval, item_of, E

return _M
