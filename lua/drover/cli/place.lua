-- Where things lie: this installation's model and search paths, nginx and its
-- Lua module; and whether an address is free. Asks the system and the shell,
-- changes nothing.
--
-- SPDX-License-Identifier: MIT
local bundled = require "drover.bundled"
local libc = require "drover.testing.libc"

local _M = {}

local MODULE_DIRS = { "/usr/lib/nginx/modules", "/usr/share/nginx/modules" }
local MODULES = { "ndk_http_module.so", "ngx_http_lua_module.so" }


-- A word for sh.
function _M.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end


-- The first line of a command's output, or nil.
function _M.ask(command)
  local pipe = io.popen(command .. " 2>&1")
  local line = pipe and pipe:read("*l")
  if pipe then pipe:close() end
  return line ~= "" and line or nil
end


local function readable(path)
  local file = io.open(path, "rb")
  local ok = file and file:read(0) ~= nil
  if file then file:close() end
  return ok
end
_M.readable = readable


local function cwd()
  return _M.ask("pwd")
end


function _M.absolute(path)
  return path:sub(1, 1) == "/" and path or cwd() .. "/" .. path:gsub("^%./", "")
end


-- A search path (package.path) with every entry absolute.
function _M.absolute_path(path)
  local here, out = cwd(), {}
  for entry in path:gmatch("[^;]+") do
    if entry:sub(1, 1) ~= "/" then
      entry = here .. "/" .. entry:gsub("^%./", "")
    end
    out[#out + 1] = entry
  end
  return table.concat(out, ";")
end


-- The model that comes with Drover, or nil, why.
function _M.model()
  local path, why = bundled.path()
  if not path then return nil, why end
  return _M.absolute(path)
end


-- nginx's command, or nil, why.
function _M.nginx()
  for _, name in ipairs{ "nginx", "openresty", "/usr/sbin/nginx",
                         "/usr/local/openresty/nginx/sbin/nginx" } do
    local path = _M.ask("command -v " .. _M.quote(name))
    if path and path:sub(1, 1) == "/" then return path end
  end
  return nil, "nginx was not found; install nginx and its Lua module "
              .. "(make deps)"
end


-- The modules that `nginx` must load to speak Lua: none when it is built in.
function _M.modules(nginx)
  local pipe = io.popen(_M.quote(nginx) .. " -V 2>&1")
  local built = pipe and pipe:read("*a") or ""
  if pipe then pipe:close() end
  if built:find("add%-module=%S*ngx_lua") or built:find("openresty") then
    return {}
  end
  local dirs = { built:match("%-%-modules%-path=(%S+)") }
  for _, dir in ipairs(MODULE_DIRS) do dirs[#dirs + 1] = dir end
  for _, dir in ipairs(dirs) do
    local found = {}
    for i, name in ipairs(MODULES) do
      local path = dir .. "/" .. name
      found[i] = readable(path) and path or nil
    end
    if #found == #MODULES then return found end
  end
  return nil, "nginx's Lua module was not found; install "
              .. "libnginx-mod-http-lua (make deps)"
end


local REFUSED = {                     -- by errno, on Linux
  [13] = "is not allowed to this user", [98] = "is in use",
  [99] = "is no address of this machine",
}


-- Why nginx could not listen there, or nil. Asks for IPv4 addresses and unix
-- sockets; of others nginx itself says it.
function _M.not_free(listen)
  local path = listen:match("^unix:(.*)")
  if path then
    return os.execute("test -e " .. _M.quote(path)) == 0
           and listen .. " is in use, or left behind: remove it" or nil
  end
  local host, port = listen:match("^(.*):(%d+)$")
  local a, b, c, d = host:gsub("^localhost$", "127.0.0.1")
                         :match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  if not a or math.max(a, b, c, d) > 255 then return nil end
  local fd, errno = libc.bind(string.char(a, b, c, d), tonumber(port))
  if fd then
    libc.close(fd)
    return nil
  end
  return listen .. " " .. (REFUSED[errno] or "is refused (" .. errno .. ")")
end


function _M.cores()
  return tonumber(_M.ask("getconf _NPROCESSORS_ONLN")) or 1
end


return _M
