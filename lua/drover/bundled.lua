-- Where the model that comes with Drover lies: beside these files in a
-- checkout (model/), or under share/drover/ where it is installed. It is
-- used wherever nobody names a model.
-- SPDX-License-Identifier: MIT
local FILE = "lambkin-q8_0.gguf"

local _M = {}


-- The folder of this file, with a closing slash.
local function own_folder()
  local source = debug.getinfo(1, "S").source
  return source:match("^@(.*/)[^/]*$") or "./"
end


local function readable(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
  end
  return file ~= nil
end


-- The path of the bundled model, or nil and where it was looked for.
function _M.path()
  local here = own_folder()
  local places = {
    here .. "../../model/" .. FILE,           -- lua/drover/ in a checkout
    here .. "../../../drover/model/" .. FILE, -- share/lua/5.1/drover/
    here .. "model/" .. FILE,                 -- where luarocks puts it
  }
  for _, place in ipairs(places) do
    if readable(place) then
      return place
    end
  end
  return nil, "the bundled model is not in " .. table.concat(places, " nor ")
end


return _M
