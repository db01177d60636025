-- Reads the vectors that something else than Drover made. A folder that is
-- not there is an error, never a skip.
local cjson = require "cjson"

local _M = {}

local roots = {
  oracles = os.getenv("DROVER_ORACLES") or "../shared/oracles",
  models = os.getenv("DROVER_MODELS") or "../shared/models",
}


-- The path of a file under the oracles, or under the models.
function _M.path(name)
  return roots.oracles .. "/" .. name
end


function _M.model(name)
  return roots.models .. "/" .. name
end


function _M.read(name)
  local file = assert(io.open(_M.path(name), "rb"))
  local text = file:read("*a")
  file:close()
  return text
end


function _M.json(name)
  return cjson.decode(_M.read(name))
end


-- The files of a folder whose names match, as read() takes them.
function _M.files(folder, pattern)
  local pipe = io.popen("ls '" .. _M.path(folder) .. "'")
  local names = {}
  for name in pipe:lines() do
    if name:find(pattern) then
      names[#names + 1] = folder .. "/" .. name
    end
  end
  pipe:close()
  assert(#names > 0, folder .. " has no such files")
  return names
end


-- The rows of a .jsonl file, in order.
function _M.rows(name)
  local rows = {}
  for line in _M.read(name):gmatch("[^\n]+") do
    rows[#rows + 1] = cjson.decode(line)
  end
  assert(#rows > 0, name .. " has no rows")
  return rows
end


local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


function _M.base64(text)
  local out, acc, bits = {}, 0, 0
  for c in text:gmatch("[%w+/]") do
    acc = acc * 64 + ALPHABET:find(c, 1, true) - 1
    bits = bits + 6
    if bits >= 8 then
      bits = bits - 8
      local byte = math.floor(acc / 2 ^ bits)
      out[#out + 1] = string.char(byte)
      acc = acc - byte * 2 ^ bits
    end
  end
  return table.concat(out)
end


-- The bytes of a row: `text`, or `b64`, or `parts` = { { text, times }, … }.
function _M.bytes(row)
  if row.text then
    return row.text
  elseif row.b64 then
    return _M.base64(row.b64)
  end
  local out = {}
  for i, part in ipairs(row.parts) do
    out[i] = part[1]:rep(part[2])
  end
  return table.concat(out)
end


return _M
