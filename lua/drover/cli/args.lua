-- Reads a command line against a small table of flags. Prints nothing.
--
-- SPDX-License-Identifier: MIT
local _M = {}


-- flags = { name = "WORD" (takes a value) | true (a switch) }; at most `most`
-- words that are no flags. Returns a table of flags and words, or nil, why.
function _M.parse(argv, flags, most)
  local out, i = { words = {} }, 1
  while i <= #argv do
    local word = argv[i]
    local name, value = word:match("^%-%-([%w-]+)=(.*)$")
    name = name or word:match("^%-%-([%w-]+)$")
    if word == "-h" then name = "help" end
    if word == "--" then
      for k = i + 1, #argv do out.words[#out.words + 1] = argv[k] end
      break
    elseif name then
      if not flags[name] then return nil, "unknown flag --" .. name end
      if flags[name] == true then
        if value then return nil, "--" .. name .. " takes no value" end
        value = true
      elseif not value then
        i = i + 1
        value = argv[i]
        if not value then
          return nil, "--" .. name .. " wants " .. flags[name]
        end
      end
      if out[name] then return nil, "--" .. name .. " is given twice" end
      out[name] = value
    elseif word:sub(1, 1) == "-" and word ~= "-" then
      return nil, "unknown flag " .. word
    else
      out.words[#out.words + 1] = word
    end
    i = i + 1
  end
  if #out.words > most then
    return nil, "unexpected word: " .. out.words[most + 1]
  end
  return out
end


return _M
