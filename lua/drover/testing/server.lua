-- Starts and ends the fake server: an HTTP server on loopback in a process of
-- its own, whose replies are a list of tables:
--
--   { status = 200, headers = {}, body = text or table }     one reply
--   { sse = { table or text, …, "[DONE]" }, pause = 0.01 }   a stream
--   delay = s    before the first byte        hold = true   never answer
--   cut = n      close after n bytes (n events of a stream)
--   close = true close after the reply        reset = true  ... with RST
--
-- SPDX-License-Identifier: MIT
local check = require "drover.check"
local json = require "drover.json"
local libc = require "drover.testing.libc"

local _M = {}

local LIFETIME = 60

local fields = {
  status = { "number", 100, 599 }, headers = { "table" },
  body = { "string|table", empty = true },
  sse = { "table" }, pause = { "number", 0 }, delay = { "number", 0 },
  cut = { "number", 0 }, hold = { "boolean" }, close = { "boolean" },
  reset = { "boolean" },
}

local opts_fields = { lifetime = { "number", 0.001, 86400 } }

local mt = {}
mt.__index = mt


local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end


local function read_lines(path)
  local list = {}
  local file = io.open(path, "rb")      -- gone once the server has ended
  for line in file and file:lines() or pairs({}) do
    list[#list + 1] = assert(json.decode(line))
  end
  if file then
    file:close()
  end
  return list
end


local function write_file(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end


local function text_of(x)
  return type(x) == "table" and assert(json.encode(x)) or x
end


-- The script as text: bodies and events as they will go over the wire.
local function script_of(replies)
  local list = {}
  for i, reply in ipairs(replies) do
    local copy = {}
    for name, value in pairs(reply) do
      copy[name] = value
    end
    copy.body = text_of(reply.body)
    if reply.sse then
      copy.sse = {}
      for j, event in ipairs(reply.sse) do
        copy.sse[j] = text_of(event)
      end
    end
    list[i] = copy
  end
  return assert(json.encode(list))
end


-- The interpreter that runs us, and the server's file beside this one.
local function command(script, log, lifetime)
  local i = 0
  while arg and arg[i - 1] do
    i = i - 1
  end
  local luajit = arg and i < 0 and arg[i] or "luajit"
  local serve = assert(package.searchpath("drover.testing.serve",
                                          package.path))
  return "LD_PRELOAD= LUA_PATH=" .. quote(package.path) .. " LUA_CPATH="
         .. quote(package.cpath) .. " " .. quote(luajit) .. " "
         .. quote(serve) .. " " .. quote(script) .. " " .. quote(log) .. " "
         .. lifetime .. " " .. libc.C.getpid() .. " </dev/null &"
end


-- What is wrong with the options, or nil.
local function check_opts(opts)
  if type(opts) ~= "table" then
    return "opts: must be a table, is a " .. type(opts)
  end
  return check.fields(opts, opts_fields, "opts")
end


-- Start it. opts = { lifetime = seconds }. Ends with stop(), with this
-- process, or after its lifetime.
function _M.start(replies, opts)
  if type(replies) ~= "table" or #replies == 0 then
    error("testing.server: a list of replies is wanted", 2)
  end
  local wrong = opts ~= nil and check_opts(opts)
  if wrong then
    error("testing.server: " .. wrong, 2)
  end
  for i, reply in ipairs(replies) do
    local why = type(reply) ~= "table" and "must be a table"
                or check.fields(reply, fields, "")
    if why then
      error("testing.server: replies[" .. i .. "]: " .. why, 2)
    end
  end
  local script, log = os.tmpname(), os.tmpname()
  write_file(script, script_of(replies))
  local lifetime = opts and opts.lifetime or LIFETIME
  local pipe = assert(io.popen(command(script, log, lifetime), "r"))
  local line = pipe:read("*l")
  pipe:close()                          -- the shell's end; the server goes on
  local port, pid = (line or ""):match("^(%d+) (%d+)$")
  os.remove(script)
  if not port then
    error("testing.server: it did not start", 2)
  end
  return setmetatable({
    port = tonumber(port), pid = tonumber(pid), log = log,
    url = "http://127.0.0.1:" .. port .. "/v1",
  }, mt)
end


-- The whole requests that came so far: { method, path, headers, body }.
function mt:requests()
  local list = {}
  for _, one in ipairs(read_lines(self.log)) do
    if one.method then
      list[#list + 1] = one
    end
  end
  return list
end


-- How many connections the clients have closed, and how many of those while
-- a reply was on its way.
function mt:closed()
  local all, during = 0, 0
  for _, one in ipairs(read_lines(self.log)) do
    if one.closed then
      all = all + 1
      during = during + (one.during and 1 or 0)
    end
  end
  return all, during
end


function mt:stop()
  if self.pid then
    libc.terminate(self.pid)
    self.pid = nil
    os.remove(self.log)
  end
end


return _M
