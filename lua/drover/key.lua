-- A node's key: where it comes from, and what is no key. A key's text goes
-- into the Authorization header and a salted hash, and nowhere else.
--
-- SPDX-License-Identifier: MIT
local check = require "drover.check"

local _M = {}

local KEY_MAX = 8192

local from = { env = { "string" }, file = { "string" } }

local placeholders = {
  "^your[-_ ]", "your[-_ ]?api[-_ ]?key", "^<.*>$", "^x+$", "^sk%-x+$",
  "^sk%-%.*$", "^%.+$", "^change[-_ ]?me$", "^api[-_ ]?key$", "^todo$",
  "^replace[-_ ]", "^%$[%a_{]", "^placeholder$", "^insert[-_ ]", "^null$",
  "^none$", "^nil$",
}


local function read_file(path)
  local file, why = io.open(path, "rb")
  if not file then
    return nil, why
  end
  local text = file:read(KEY_MAX + 1) or ""
  file:close()
  return (text:gsub("%s+$", ""))
end


-- The key's text, or nil and what is wrong with it.
local function check_text(text, what)
  if text == "" then
    return nil, what .. " is empty"
  end
  if #text > KEY_MAX or text:find("[%c%s]") then
    return nil, what .. " is not one word of at most " .. KEY_MAX .. " bytes"
  end
  local lower = text:lower()
  for _, pattern in ipairs(placeholders) do
    if lower:find(pattern) then
      return nil, what .. " is a placeholder, put the real one"
    end
  end
  return text
end


-- Read a key's source: a string, { env = NAME } or { file = PATH }. Returns
-- the text, or nil and why not. The answer never holds the text.
function _M.read(source)
  if type(source) == "string" then
    return check_text(source, "the key")
  end
  if type(source) ~= "table" then
    return nil, "must be a string, { env = NAME }, { file = PATH } or false"
  end
  local why = check.fields(source, from, "key")
  if why or (source.env == nil) == (source.file == nil) then
    return nil, why or "must have one of env and file"
  end
  if source.env then
    local text = os.getenv(source.env)
    if not text then
      return nil, "the environment has no " .. source.env
    end
    return check_text(text, "the key in " .. source.env)
  end
  local text, unreadable = read_file(source.file)
  if not text then
    return nil, unreadable
  end
  return check_text(text, "the key in " .. source.file)
end


return _M
