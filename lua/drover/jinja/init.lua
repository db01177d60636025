-- Chat templates as model files carry them: the part of Jinja that they use,
-- over values that hold nothing but data. Bounded: a million steps, 16 MiB of
-- output, 64 levels. What is outside of the part is refused by name when the
-- template is compiled.
--
-- SPDX-License-Identifier: MIT
local lex = require "drover.jinja.lex"
local parse = require "drover.jinja.parse"
local run = require "drover.jinja.run"
local value = require "drover.jinja.value"

local _M = {}

local TEMPLATE_MAX = 1024 * 1024        -- bytes

local mt = {}
mt.__index = mt


-- What went wrong: one of ours (a table with its kind), or a defect.
local function explain(e)
  if type(e) == "table" and e.jinja then
    return nil, e.message, e.jinja
  end
  return nil, tostring(e), "internal"
end


-- Compile a template's text. Returns it, or nil, why ("byte N: …") and the
-- kind, "syntax".
function _M.compile(text)
  if #text > TEMPLATE_MAX then
    return nil, "the template is larger than 1 MiB", "syntax"
  end
  local ok, tree = pcall(function()
    return parse.tree(lex.read(text))
  end)
  if not ok then
    return explain(tree)
  end
  return setmetatable({ tree = tree }, mt)
end


-- The text for `vars` (values of value.lua, or plain Lua). `now`: seconds since
-- 1970. Or nil, why, and the kind: "raise" (the template's own words),
-- "template", "type" or "limit".
function mt:render(vars, now)
  local ok, text = pcall(function()
    local given = {}
    for name, x in pairs(vars) do
      given[name] = value.from_lua(x)
    end
    return run.render(self.tree, given, now)
  end)
  if not ok then
    return explain(text)
  end
  return text
end


_M.value = value

return _M
