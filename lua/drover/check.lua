-- Checks tables that users write: every field known, of its type, in its
-- range. Answers nil, or a sentence that begins with the field's path.
--
-- A row of a specification: { type, min, max, integer = , one_of = , later = }
-- where `type` may be several ("number|table", "number|false"). A row that says
-- `later` is a field of the contract that is refused by name until it is built.
--
-- SPDX-License-Identifier: MIT
local _M = {}


local sets = {}                 -- "number|table" -> { number = true, … }


local function of_type(value, types)
  local set = sets[types]
  if not set then
    set = {}
    for word in types:gmatch("[^|]+") do
      set[word] = true
    end
    sets[types] = set
  end
  return set[type(value)] == true or value == false and set["false"] == true
end


-- What a value is instead of what it must be.
function _M.is(value)
  return value == nil and "is missing" or "is a " .. type(value)
end


local function in_range(value, row)
  local min, max = row[2], row[3]
  if value ~= value or min and value < min or max and value > max then
    if max then
      return "must be " .. min .. " to " .. max
    end
    return "must be at least " .. (min or 0)
  end
  if row.integer and value % 1 ~= 0 then
    return "must be a whole number"
  end
end


local function one_of(value, words)
  for i = 1, #words do
    if words[i] == value then
      return nil
    end
  end
  return "must be one of " .. table.concat(words, ", ")
end


-- Check one value against a row. Returns nil or what is wrong.
function _M.value(value, row)
  if row.later then
    return "not built yet"
  end
  if not of_type(value, row[1]) then
    return "must be a " .. row[1]:gsub("|", " or ") .. ", " .. _M.is(value)
  end
  if type(value) == "number" then
    local why = in_range(value, row)
    if why then
      return why
    end
  end
  if type(value) == "string" and value == "" and not row.empty then
    return "must not be empty"
  end
  return row.one_of and one_of(value, row.one_of) or nil
end


local function known(spec)
  local names = {}
  for name, row in pairs(spec) do
    if not row.later then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return table.concat(names, ", ")
end


-- Check a table's fields. `where` ("nodes[2]") leads the paths; "" for none.
function _M.fields(t, spec, where)
  local lead = where ~= "" and where .. "." or ""
  local names = {}
  for name in pairs(t) do
    if type(name) ~= "string" then
      return (where ~= "" and where or "configuration")
             .. ": must have named fields only"
    end
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local row = spec[name]
    if not row then
      return lead .. name .. ": unknown field (known: " .. known(spec) .. ")"
    end
    local why = _M.value(t[name], row)
    if why then
      return lead .. name .. ": " .. why
    end
  end
end


-- A list without holes of at least `min` entries. Returns nil or why not.
function _M.list(t, min, where)
  local count = 0
  for _ in pairs(t) do
    count = count + 1
  end
  if count ~= #t then
    return where .. ": must be a list"
  end
  if count < min then
    return where .. ": must have at least " .. min
           .. (min == 1 and " entry" or " entries")
  end
end


return _M
