-- Texts out of pieces, and texts broken in a few places.
local _M = {}


-- Some of these words in a row.
function _M.words(chance, list, most)
  local out = {}
  for i = 1, 1 + chance:below(most) do
    out[i] = chance:choose(list)
  end
  return table.concat(out)
end


local ODD = { "\0", "\n", "\r", "\255", "\226\130", "\"", "\\", "{", "}", "[",
              "]", ",", ":", ";", "-", "+", ".", "0", "9", "e", " ", "\t",
              "%", "18446744073709551616", "1e999", "nan", "inf", "0x10" }

local ways = {
  function(text, at) return text:sub(1, at - 1) .. text:sub(at + 1) end,
  function(text, at) return text:sub(1, at) .. text:sub(at) end,
  function(text, at) return text:sub(1, at) end,
  function(text, at) return text:sub(at) end,
  function(text, at, chance)
    return text:sub(1, at - 1) .. chance:choose(ODD) .. text:sub(at)
  end,
  function(text, at, chance)
    return text:sub(1, at - 1) .. string.char(chance:below(256))
           .. text:sub(at + 1)
  end,
  function(text, at, chance)
    return text .. text:sub(at, at + chance:below(16))
  end,
}


-- Half of the time as it was.
function _M.text(chance, text)
  if chance:one_in(2) then
    return text
  end
  for _ = 1, 1 + chance:below(3) do
    text = chance:choose(ways)(text, 1 + chance:below(#text + 1), chance)
  end
  return text
end


-- A value of any type, tables not deeper than `deep`.
function _M.value(chance, deep)
  local kind = chance:below(deep > 0 and 12 or 9)
  if kind == 0 then return nil end
  if kind == 1 then return chance:one_in(2) end
  if kind < 5 then
    return chance:choose { 0, 1, -1, 0.5, 60, 2 ^ 31, 2 ^ 53, 1e18, 1e308,
                           math.huge, -math.huge, 0 / 0 }
  end
  if kind < 8 then
    return _M.text(chance, chance:choose { "", "a", "round_robin", "local:x",
      "http://127.0.0.1:1/v1", "unix:/x.sock:/", "sk-x", "\0", "key" })
  end
  if kind == 8 then return print end
  local out = {}
  for _ = 1, chance:below(4) do
    local key = chance:one_in(2) and #out + 1
                or chance:choose { "id", "url", "rpm", "per", "x", true, 1.5 }
    out[key] = _M.value(chance, deep - 1)
  end
  return out
end


return _M
