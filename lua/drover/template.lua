-- Prompt templates: text with {{path}} in it. Compiled once, rendered often.
-- A path is names and numbers parted by dots: {{doc.title}}, {{parts.1}};
-- {{.}} is the value itself, when that is a text, a number or a boolean.
-- {{{{ gives a literal {{ ; a }} outside of a placeholder is itself. There
-- is no code and there are no filters. A value is never scanned again, so
-- what a user or a model wrote cannot become a placeholder.
-- SPDX-License-Identifier: MIT
local concat = table.concat
local find, format, sub = string.find, string.format, string.sub
local floor = math.floor

local EXACT = 2 ^ 53                -- above it a double skips integers

local _M = {}


-- "a.1.b" -> { "a", 1, "b" }; "." -> {}; nil when it is no path
local function split_path(path)
  if path == "." then
    return {}
  end
  if not find(path, "^[%w_%-]+[%w_%-%.]*$") or find(path, "%.%.")
     or sub(path, -1) == "." then
    return nil
  end
  local steps = {}
  for step in path:gmatch("[^%.]+") do
    steps[#steps + 1] = tonumber(step) or step
  end
  return steps
end


local function syntax_error(text, at, why)
  error(format("template, byte %d: %s near %q (a literal {{ is written "
               .. "{{{{)", at, why, sub(text, at, at + 23)), 4)
end


-- Texts stand in `parts` as strings, placeholders as { path =, steps = }.
local function parse(text)
  local parts, from = {}, 1
  while true do
    local open = find(text, "{{", from, true)
    if not open then
      parts[#parts + 1] = sub(text, from)
      return parts
    end
    parts[#parts + 1] = sub(text, from, open - 1)
    if sub(text, open, open + 3) == "{{{{" then
      parts[#parts + 1] = "{{"
      from = open + 4
    else
      local close = find(text, "}}", open, true)
      if not close then
        syntax_error(text, open, "unclosed placeholder")
      end
      local path = sub(text, open + 2, close - 1):match("^%s*(.-)%s*$")
      local steps = split_path(path)
      if not steps then
        syntax_error(text, open, "this is no path")
      end
      parts[#parts + 1] = { path = path, steps = steps }
      from = close + 2
    end
  end
end


local function number_text(n)
  if n == floor(n) and n > -EXACT and n < EXACT then
    return format("%.0f", n)
  end
  return format("%.14g", n)
end


local function field(value, step)
  if type(value) ~= "table" then
    return nil
  end
  local found = value[step]
  if found == nil and type(step) == "number" then
    found = value[number_text(step)]
  end
  return found
end


-- The text of one placeholder, or nil and what is wrong with it.
local function look_up(part, values, kept)
  local value, steps = values, part.steps
  for i = 1, #steps do
    local inner = field(value, steps[i])
    if i == 1 and inner == nil then
      inner = field(kept, steps[1])
    end
    value = inner
  end
  local kind = type(value)
  if kind == "string" then
    return value
  elseif kind == "number" then
    return number_text(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "nil" then
    return nil, format("no value for {{%s}}", part.path)
  end
  return nil, format("the value for {{%s}} is a %s, not a text", part.path,
                     kind)
end


-- template.compile(text) -> render. Raises on a malformed template.
-- render(values, kept) -> text | nil, message naming the path. `kept` is
-- where a path's first name is looked up when `values` has none of it.
function _M.compile(text)
  if type(text) ~= "string" then
    error("template: text expected, got " .. type(text), 2)
  end
  local parts = parse(text)

  return function(values, kept)
    local out = {}
    for i = 1, #parts do
      local part = parts[i]
      if type(part) == "string" then
        out[i] = part
      else
        local value, why = look_up(part, values, kept)
        if not value then
          return nil, why
        end
        out[i] = value
      end
    end
    return concat(out)
  end
end


return _M
