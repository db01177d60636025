-- Expressions by Jinja's grammar, loosest first: methods of the parser, each of
-- which reads its own from the tokens and returns a node { op, … }. What is not
-- known is refused here, by name and byte.
--
-- SPDX-License-Identifier: MIT
local fail = require("drover.jinja.lex").fail
local filters = require "drover.jinja.filters"

local DEPTH = 200                       -- of nested expressions and blocks
local P = {}                            -- { tokens =, i =, depth = }
P.__index = P

local CONSTANTS = { ["true"] = true, ["True"] = true, ["false"] = false,
                    ["False"] = false }
local COMPARE = { ["=="] = true, ["!="] = true, ["<"] = true, [">"] = true,
                  ["<="] = true, [">="] = true }
-- Statement words end an expression that is a name.
local KEYWORDS = {}
for word in ("and or not in is if else elif"):gmatch("%a+") do
  KEYWORDS[word] = true
end


function P:peek(kind, value)
  local t = self.tokens[self.i]
  return t and t.kind == kind and (value == nil or t.value == value) and t
end


function P:next()
  local t = self.tokens[self.i]
  self.i = self.i + 1
  return t
end


function P:accept(kind, value)
  if self:peek(kind, value) then
    return self:next()
  end
end


function P:at()
  local t = self.tokens[self.i]
  return t and t.at or 0
end


function P:expect(kind, value)
  local t = self:accept(kind, value)
  if not t then
    local got = self.tokens[self.i]
    fail(self:at(), ("%s expected, not %s"):format(value or kind,
         got and tostring(got.value) or "the end"))
  end
  return t
end


function P:deeper()
  self.depth = self.depth + 1
  if self.depth > DEPTH then
    fail(self:at(), "nested too deeply")
  end
end


-- ---- expressions, loosest first ----

function P:expression()
  self:deeper()
  local value = self:either()
  while self:accept("name", "if") do
    local test, other = self:either(), nil
    if self:accept("name", "else") then
      other = self:expression()
    end
    value = { "cond", test, value, other or { "undefined" } }
  end
  self.depth = self.depth - 1
  return value
end


function P:either()
  local left = self:both()
  while self:accept("name", "or") do
    left = { "or", left, self:both() }
  end
  return left
end


function P:both()
  local left = self:negated()
  while self:accept("name", "and") do
    left = { "and", left, self:negated() }
  end
  return left
end


function P:negated()
  if self:accept("name", "not") then
    self:deeper()
    local node = { "not", self:negated() }
    self.depth = self.depth - 1
    return node
  end
  return self:compared()
end


function P:compared()
  local first, links = self:sum(), nil
  while true do
    local t, op = self.tokens[self.i]
    if t and t.kind == "op" and COMPARE[t.value] then
      op = self:next().value
    elseif self:accept("name", "in") then
      op = "in"
    elseif self:peek("name", "not") and self.tokens[self.i + 1]
           and self.tokens[self.i + 1].value == "in" then
      self.i = self.i + 2
      op = "not in"
    else
      break
    end
    links = links or {}
    links[#links + 1] = { op, self:sum() }
  end
  return links and { "compare", first, links } or first
end


local function binary(ops, tighter)
  return function(self)
    local left = self[tighter](self)
    while true do
      local t = self.tokens[self.i]
      if not (t and t.kind == "op" and ops[t.value]) then
        return left
      end
      left = { "math", self:next().value, left, self[tighter](self) }
    end
  end
end


P.sum = binary({ ["+"] = true, ["-"] = true }, "joined")


function P:joined()
  local left = self:product()
  while self:accept("op", "~") do
    left = { "join", left, self:product() }
  end
  return left
end


P.product = binary({ ["*"] = true, ["/"] = true, ["//"] = true, ["%"] = true },
                   "power")
P.power = binary({ ["**"] = true }, "signed")


function P:signed()
  if self:accept("op", "-") then
    self:deeper()
    local node = { "minus", self:signed() }
    self.depth = self.depth - 1
    return self:filtered(node)
  elseif self:accept("op", "+") then
    return self:signed()
  end
  return self:filtered(self:postfix(self:primary()))
end


function P:list(close)
  local items = {}
  while not self:accept("op", close) do
    items[#items + 1] = self:expression()
    if not self:accept("op", ",") then
      self:expect("op", close)
      break
    end
  end
  return items
end


function P:dict()
  local pairs_of = {}
  while not self:accept("op", "}") do
    local key = self:expression()
    self:expect("op", ":")
    pairs_of[#pairs_of + 1] = { key, self:expression() }
    if not self:accept("op", ",") then
      self:expect("op", "}")
      break
    end
  end
  return { "dict", pairs_of }
end


function P:group()
  if self:accept("op", ")") then
    return { "list", {} }
  end
  local first = self:expression()
  if self:accept("op", ")") then
    return first
  end
  self:expect("op", ",")
  local items = self:list(")")
  table.insert(items, 1, first)
  return { "list", items }
end


function P:primary()
  local t = self:next()
  if not t then
    fail(0, "an expression expected")
  elseif t.kind == "string" then
    local text = t.value
    while self:peek("string") do        -- neighbours are one
      text = text .. self:next().value
    end
    return { "value", text }
  elseif t.kind == "number" then
    return { "value", t.value }
  elseif t.kind == "name" and not KEYWORDS[t.value] then
    if CONSTANTS[t.value] ~= nil then
      return { "value", CONSTANTS[t.value] }
    elseif t.value == "none" or t.value == "None" then
      return { "none" }
    end
    return { "name", t.value, t.at }
  elseif t.value == "(" and t.kind == "op" then
    return self:group()
  elseif t.value == "[" and t.kind == "op" then
    return { "list", self:list("]") }
  elseif t.value == "{" and t.kind == "op" then
    return self:dict()
  end
  fail(t.at, ("an expression expected, not %s"):format(tostring(t.value)))
end


-- (a, b, name=c): the two lists.
function P:arguments()
  local args, named = {}, {}
  while not self:accept("op", ")") do
    local t, after = self.tokens[self.i], self.tokens[self.i + 1]
    if t and t.kind == "name" and after and after.kind == "op"
       and after.value == "=" then
      self.i = self.i + 2
      named[#named + 1] = { t.value, self:expression() }
    else
      args[#args + 1] = self:expression()
    end
    if not self:accept("op", ",") then
      self:expect("op", ")")
      break
    end
  end
  return args, named
end


-- [start:stop:step] or [index].
function P:subscript(object)
  local parts, n, colons = {}, 1, 0
  while not self:accept("op", "]") do
    if self:accept("op", ":") then
      n, colons = n + 1, colons + 1
    else
      parts[n] = self:expression()
    end
    if n > 3 then
      fail(self:at(), "a slice has at most three parts")
    end
  end
  if colons > 0 then
    return { "slice", object, parts[1] or false, parts[2] or false,
             parts[3] or false }
  elseif not parts[1] then
    fail(self:at(), "an index expected")
  end
  return { "item", object, parts[1] }
end


function P:postfix(node)
  while true do
    if self:accept("op", ".") then
      local t = self:next()
      if not t or t.kind ~= "name" and t.kind ~= "number" then
        fail(self:at(), "a name expected behind the dot")
      end
      node = t.kind == "name" and { "attr", node, t.value }
             or { "item", node, { "value", t.value } }
    elseif self:accept("op", "[") then
      node = self:subscript(node)
    elseif self:accept("op", "(") then
      local args, named = self:arguments()
      node = { "call", node, args, named }
    else
      return node
    end
  end
end


-- x is name, x is name(args), x is name arg.
function P:test(node)
  local negated = self:accept("name", "not")
  local t = self:expect("name")
  if not filters.tests[t.value] then
    fail(t.at, ("the test %q is not supported"):format(t.value))
  end
  local args = {}
  if self:accept("op", "(") then
    args = self:arguments()
  elseif filters.takes_one[t.value] then
    args = { self:postfix(self:primary()) }
  end
  node = { "test", t.value, node, args }
  return negated and { "not", node } or node
end


function P:filtered(node)
  while true do
    if self:accept("op", "|") then
      local t = self:expect("name")
      if not filters.filters[t.value] then
        fail(t.at, ("the filter %q is not supported"):format(t.value))
      end
      local args, named = {}, {}
      if self:accept("op", "(") then
        args, named = self:arguments()
      end
      node = self:postfix({ "filter", t.value, node, args, named })
    elseif self:accept("name", "is") then
      node = self:test(node)
    elseif self:peek("op", "(") then
      node = self:postfix(node)
    else
      return node
    end
  end
end


return P
