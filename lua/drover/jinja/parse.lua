-- Tokens into a tree, by Jinja's grammar: statements are lists of nodes,
-- expressions tables { op, … } (expr.lua). What is not known is refused when a
-- template is compiled, by name and byte, so that one that compiles has no
-- construct that is left out.
--
-- SPDX-License-Identifier: MIT
local P = require "drover.jinja.expr"
local fail = require("drover.jinja.lex").fail

local _M = {}

local statements = {}


function P:close_tag()
  self:expect("end", "block")
end


-- Nodes up to a block tag whose word is one of `stops`; that word is read, and
-- returned.
function P:body(stops)
  local nodes = {}
  self:deeper()
  while true do
    local t = self:next()
    if not t then
      if not stops then
        break
      end
      fail(self.tokens[#self.tokens].at, "the end, and a block is still open")
    elseif t.kind == "text" then
      nodes[#nodes + 1] = { "text", t.value }
    elseif t.value == "print" then
      nodes[#nodes + 1] = { "print", self:tuple() }
      self:expect("end", "print")
    else
      local word = self:expect("name")
      if stops and stops[word.value] then
        self.depth = self.depth - 1
        return nodes, word.value
      elseif not statements[word.value] then
        fail(word.at, ("the statement %q is not supported"):format(word.value))
      end
      nodes[#nodes + 1] = statements[word.value](self)
    end
  end
  self.depth = self.depth - 1
  return nodes
end


-- a, b, c without brackets: a list.
function P:tuple()
  local first = self:expression()
  if not self:peek("op", ",") then
    return first
  end
  local items = { first }
  while self:accept("op", ",") do
    if self:peek("end") then
      break
    end
    items[#items + 1] = self:expression()
  end
  return { "list", items }
end


function P:names()
  local names = {}
  local open = self:accept("op", "(")
  repeat
    names[#names + 1] = self:expect("name").value
  until not self:accept("op", ",")
  if open then
    self:expect("op", ")")
  end
  return names
end


statements["if"] = function(self)
  local branches, other = {}, nil
  local stops = { ["elif"] = true, ["else"] = true, ["endif"] = true }
  local test = self:expression()
  self:close_tag()
  while true do
    local body, word = self:body(stops)
    if test then
      branches[#branches + 1] = { test, body }
    else
      other = body
    end
    test = word == "elif" and self:expression() or nil
    self:close_tag()
    if word == "endif" then
      return { "if", branches, other }
    end
  end
end


statements["for"] = function(self)
  local names = self:names()
  self:expect("name", "in")
  local over, test = self:either(), nil
  if self:peek("op", ",") then
    fail(self:at(), "a loop runs over one value")
  end
  if self:accept("name", "if") then
    test = self:expression()
  end
  if self:peek("name", "recursive") then
    fail(self:at(), "recursive loops are not supported")
  end
  self:close_tag()
  local body, word = self:body { ["else"] = true, endfor = true }
  local other
  self:close_tag()
  if word == "else" then
    other = self:body { endfor = true }
    self:close_tag()
  end
  return { "for", names, over, test, body, other }
end


function statements.set(self)
  local name = self:expect("name").value
  local names, attr = { name }, nil
  if self:accept("op", ".") then
    attr = self:expect("name").value
  end
  while self:accept("op", ",") do
    names[#names + 1] = self:expect("name").value
  end
  if self:accept("op", "=") then
    local value = self:tuple()
    self:close_tag()
    return { "set", names, attr, value }
  end
  self:close_tag()
  local body = self:body { endset = true }
  self:close_tag()
  return { "set", names, attr, { "body", body } }
end


function statements.macro(self)
  local name = self:expect("name").value
  local params = {}
  self:expect("op", "(")
  while not self:accept("op", ")") do
    local param = { self:expect("name").value }
    if self:accept("op", "=") then
      param[2] = self:expression()
    end
    params[#params + 1] = param
    if not self:accept("op", ",") then
      self:expect("op", ")")
      break
    end
  end
  self:close_tag()
  local body = self:body { endmacro = true }
  self:close_tag()
  return { "macro", name, params, body }
end


-- Marks what a model says, for training; it prints its inside.
function statements.generation(self)
  self:close_tag()
  local body = self:body { endgeneration = true }
  self:close_tag()
  return { "block", body }
end


statements["break"] = function(self)
  self:close_tag()
  return { "break" }
end


statements["continue"] = function(self)
  self:close_tag()
  return { "continue" }
end


-- The tree of a template's tokens.
function _M.tree(tokens)
  return setmetatable({ tokens = tokens, i = 1, depth = 0 }, P):body(nil)
end


return _M
