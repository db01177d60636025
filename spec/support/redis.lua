-- A real redis-server for specs, with a folder and a loopback port of its own,
-- ended by pid; and as much of its protocol as they need.
local socket = require "cqueues.socket"
local nginx = require "spec.support.nginx"

local _M = {}

local mt = {}
mt.__index = mt


-- Start one; `options` are words of its command line. `port` takes an earlier
-- one's port again.
function _M.start(options, port)
  local self = setmetatable({ port = port or nginx.port() }, mt)
  local dir = nginx.folder()
  self.process = nginx.start(("redis-server --bind 127.0.0.1 --port %d "
    .. "--save \"\" --appendonly no --daemonize no --dir %s %s"):format(
    self.port, dir, options or ""), dir)
  local up = nginx.until_true(function()
    return nginx.read(dir .. "/out"):find("Ready to accept", 1, true)
           or not self.process:alive()
  end)
  assert(up and self.process:alive(), nginx.read(dir .. "/out"))
  return self
end


function mt:stop(signal)
  if self.connection then
    self.connection:close()
    self.connection = nil
  end
  self.process:stop(signal)
end


local function reply(connection)
  local line = assert(connection:read("*l"), "redis closed the connection")
  local kind, rest = line:sub(1, 1), line:sub(2):gsub("\r$", "")
  if kind == "-" then
    error("redis: " .. rest, 3)
  elseif kind == ":" then
    return tonumber(rest)
  elseif kind == "$" then
    local size = tonumber(rest)
    return size >= 0 and assert(connection:read(size + 2)):sub(1, -3) or nil
  elseif kind == "*" then
    local list = {}
    for i = 1, tonumber(rest) do
      list[i] = reply(connection)
    end
    return list
  end
  return rest
end


-- One command: mt:call("GET", "key").
function mt:call(...)
  if not self.connection then
    self.connection = socket.connect("127.0.0.1", self.port)
    self.connection:setmode("b", "bf")
  end
  local words = { ... }
  local out = { "*" .. #words .. "\r\n" }
  for _, word in ipairs(words) do
    word = tostring(word)
    out[#out + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  assert(self.connection:write(table.concat(out)))
  assert(self.connection:flush())
  return reply(self.connection)
end


return _M
