-- Starts build/bin/fault_server, which fails as the request's path says, and
-- reads what it reports: one line for each complete body, and for each client
-- that left early; and its log, which is the billing oracle. It ends with
-- this process, or by stop().
local json = require "drover.json"

local _M = {}
local mt = { __index = {} }

local CLEAN = "exec env -u LD_PRELOAD -u ASAN_OPTIONS -u LSAN_OPTIONS "


-- Bytes as the paths of faults spell them.
function _M.hex(text)
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end


-- A running server: .port, .url. `opts`: the path of a unix socket to listen
-- on instead, or words of its command line in a table.
function _M.start(opts)
  local words = type(opts) == "table" and table.concat(opts, " ") or opts or ""
  local fifo = os.tmpname()
  os.remove(fifo)
  assert(os.execute("mkfifo -m 600 " .. fifo) == 0, "mkfifo")
  local input = assert(io.popen(CLEAN .. "build/bin/fault_server " .. words
                                .. " > " .. fifo, "w"))
  input:setvbuf("no")
  local output = assert(io.open(fifo))            -- waits for the server
  os.remove(fifo)
  local line = assert(output:read("*l"), "build/bin/fault_server: no port")
  local port = tonumber(line:match("^port (%d+)$"))
  return setmetatable({ input = input, output = output, port = port,
                        url = "http://127.0.0.1:" .. port }, mt)
end


-- The next line it reports, without its end; waits for it.
function mt.__index:line()
  return self.output:read("*l")
end


-- Lines up to the one that begins with `text`, which is the last.
function mt.__index:lines_until(text)
  local lines = {}
  repeat
    local line = assert(self:line(), "the server has ended")
    lines[#lines + 1] = line
  until line:sub(1, #text) == text
  return lines
end


local function command(self, word)
  self.input:write(word, "\n")
  local lines = self:lines_until("log ")
  return assert(json.decode(lines[#lines]:sub(5)))
end


-- What it has seen: totals, and a list of the requests, see fault/log.h.
-- Lines that were not read yet are lost.
function mt.__index:log()
  return command(self, "log")
end


function mt.__index:totals()
  return command(self, "totals")
end


function mt.__index:reset()
  return command(self, "reset")
end


-- End it; the lines that were not read yet.
function mt.__index:stop()
  local rest = {}
  self.input:close()
  for line in self.output:lines() do
    rest[#rest + 1] = line
  end
  self.output:close()
  return rest
end


return _M
