-- Reads the project's own source as text, for the rules of the house: which
-- files there are, what they include or require, how long their functions are.
local _M = {}


-- The files under these folders (those that exist) whose name matches.
function _M.files(folders, pattern)
  local pipe = io.popen("find " .. folders .. " -type f 2> /dev/null | sort")
  local out = {}
  for path in pipe:lines() do
    if path:find(pattern) then
      out[#out + 1] = path
    end
  end
  pipe:close()
  return out
end


function _M.read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end


local function blank(text)
  return (text:gsub("[^\n]", " "))
end


-- Lua without comments and long strings; without short ones too if asked. The
-- lines stay where they are.
function _M.lua_code(text, no_strings)
  local out, at = {}, 1
  while at <= #text do
    local stop, keep
    local level = text:match("^%-%-%[(=*)%[", at) or text:match("^%[(=*)%[", at)
    if level then
      stop = select(2, text:find("]" .. level .. "]", at, true)) or #text
    elseif text:find("^%-%-", at) then
      stop = (text:find("\n", at, true) or #text + 1) - 1
    elseif text:find("^[\"']", at) then
      local quote, i = text:sub(at, at), at + 1
      while i <= #text and text:sub(i, i) ~= quote do
        i = i + (text:sub(i, i) == "\\" and 2 or 1)
      end
      stop, keep = i, not no_strings
    else
      stop, keep = (text:find("[%-%[\"']", at + 1) or #text + 1) - 1, true
    end
    local piece = text:sub(at, stop)
    out[#out + 1] = keep and piece or blank(piece)
    at = stop + 1
  end
  return table.concat(out)
end


-- C without comments.
function _M.c_code(text)
  return (text:gsub("/%*.-%*/", blank))
end


-- Does a path from any name come back to itself? `arrows[name]` is a set.
-- Returns the way round as text, or nil.
function _M.cycle(arrows)
  local state, way = {}, {}
  local function visit(name)
    state[name] = "open"
    way[#way + 1] = name
    for to in pairs(arrows[name] or {}) do
      if state[to] == "open" then
        way[#way + 1] = to
        return table.concat(way, " -> ")
      end
      local found = not state[to] and visit(to)
      if found then
        return found
      end
    end
    way[#way] = nil
    state[name] = "done"
  end
  for name in pairs(arrows) do
    local found = not state[name] and visit(name)
    if found then
      return found
    end
  end
end


-- How many parameters the last bracket of a C signature holds.
local function count_params(signature)
  local inside = signature:match("(%b())%s*{?$")
  if not inside or inside:find("^%(%s*void%s*%)") then
    return 0
  end
  local depth, count = 0, 1
  for c in inside:sub(2, -2):gmatch("[(),]") do
    depth = depth + (c == "(" and 1 or c == ")" and -1 or 0)
    count = count + (c == "," and depth == 0 and 1 or 0)
  end
  return count
end


-- The C functions of a file: { { line, lines, params }, … }. Relies on the
-- layout of the house: a body's closing brace stands alone at the margin.
function _M.c_functions(text)
  local out, start, signature, number = {}, nil, "", 0
  for line in (_M.c_code(text) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if line == "}" and start then
      out[#out + 1] = { line = start, lines = number - start + 1,
                        params = count_params(signature) }
      start = nil
    elseif not start and line:find("^[%a_]") then
      start, signature = number, ""
    end
    if start and not signature:find("{", 1, true) then
      signature = signature .. " " .. line:gsub("{.*", "")
      if line:find("{", 1, true) then
        start = count_params(signature) > 0 and start
                or signature:find("%(%s*void%s*%)%s*$") and start or nil
        signature = signature .. "{"
      elseif line:find(";%s*$") then
        start = nil
      end
    end
  end
  return out
end


-- The Lua functions that start at the margin or as a field: the same list.
-- A function ends where an `end` stands as far in as it began.
function _M.lua_functions(text)
  local out, open, number = {}, {}, 0
  for line in (_M.lua_code(text, true) .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local indent = line:match("^ *")
    local params = line:match("%f[%w_]function%s*[%w_.:]*%s*(%b())")
    if line:find("%f[%w_]function%f[^%w_]") and not line:find("%f[%w_]end%f[^%w_]") then
      open[indent] = { line = number, params = params or "()" }
    elseif open[indent] and line:find("^ *end%f[^%w_]") then
      local started = open[indent]
      local commas = select(2, started.params:gsub(",", ""))
      out[#out + 1] = { line = started.line, lines = number - started.line + 1,
                        params = started.params:find("%w") and commas + 1 or 0 }
      open[indent] = nil
    end
  end
  return out
end


return _M
