-- The one file that loads the C library. Everybody else requires this file
-- and calls the functions of src/drover.h on what it returns.
--
-- Looked for in DROVER_LIB (a path), then beside the other C modules of
-- package.cpath, then in the lib/ that was installed with this file, then
-- where the linker looks.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local cdef = require "drover.cdef"              -- cut from src/drover.h by make


local function readable(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
  end
  return file ~= nil
end


-- The name to give to ffi.load.
local function find_library()
  local path = os.getenv("DROVER_LIB")
  if path and path ~= "" then
    return path
  end
  for template in package.cpath:gmatch("[^;]+") do
    local folder = template:match("^(.*/)[^/]*%?")
    if folder and not folder:find("?", 1, true)
       and readable(folder .. "libdrover.so") then
      return folder .. "libdrover.so"
    end
  end
  local prefix = debug.getinfo(1, "S").source:match("^@(.*)/share/lua/")
  local installed = prefix and prefix .. "/lib/libdrover.so"
  return installed and readable(installed) and installed or "drover"
end


local function load_library()
  local name = find_library()
  local ok, lib = pcall(ffi.load, name)
  if not ok then
    error("drover: the C library was not found (" .. tostring(lib)
          .. "); set DROVER_LIB to its path or run `make`", 0)
  end
  local ours, abi = pcall(function() return lib.drover_abi() end)
  if not ours or abi ~= cdef.abi then
    error("drover: " .. name .. " and the Lua files are of two builds ("
          .. tostring(abi) .. " and " .. cdef.abi
          .. "): restart, or USR2 under nginx", 0)
  end
  return lib
end


if not pcall(ffi.typeof, "drover_pick") then    -- specs load this file twice
  ffi.cdef(cdef.text)
end

return load_library()
