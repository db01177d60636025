-- The fake server's process: luajit serve.lua SCRIPT LOG LIFETIME PARENT.
-- Ends after its lifetime, or soon after the process PARENT is gone. Answers
-- request number n on loopback with reply number n of the script (the last
-- one again and again), and logs each whole request as a line of JSON.
--
-- Not for use by hand: drover.testing.server() starts and ends it.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local json = require "drover.json"
local libc = require "drover.testing.libc"

local REASONS = { [200] = "OK", [400] = "Bad Request", [429] = "Too Many" }

local script_path, log_path, lifetime = arg[1], arg[2], tonumber(arg[3])


local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end


local script = assert(json.decode(slurp(script_path)))
local log = assert(io.open(log_path, "ab"))
log:setvbuf("no")

local ends = libc.now() + lifetime
local connections = {}          -- fd -> connection
local served = 0


local function head_of(reply, size)
  local status = reply.status or 200
  local lines = { "HTTP/1.1 " .. status .. " " .. (REASONS[status] or "X") }
  local headers = reply.headers or {}
  if not headers["content-type"] then
    lines[#lines + 1] = "content-type: "
      .. (reply.sse and "text/event-stream" or "application/json")
  end
  for name, value in pairs(headers) do
    lines[#lines + 1] = name .. ": " .. value
  end
  lines[#lines + 1] = size and "content-length: " .. size
                      or "transfer-encoding: chunked"
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end


local function chunked(text)
  return ("%x\r\n%s\r\n"):format(#text, text)
end


-- What a reply is on the wire: a list of { text, pause before it }.
local function pieces_of(reply)
  local first = reply.delay or 0
  if not reply.sse then
    local body = reply.body or ""
    local text = head_of(reply, #body) .. body
    return { { reply.cut and text:sub(1, reply.cut) or text, first } }
  end
  local list = { { head_of(reply), first } }
  for i, event in ipairs(reply.sse) do
    if reply.cut and i > reply.cut then
      return list
    end
    list[#list + 1] = { chunked("data: " .. event .. "\n\n"), reply.pause or 0 }
  end
  if not reply.hold then
    list[#list + 1] = { "0\r\n\r\n", 0 }
  end
  return list
end


-- One whole request out of the connection's bytes, or nil.
local function next_request(c)
  local head, after = c.input:match("^(.-\r\n)\r\n()")
  if not head then
    return nil
  end
  local headers = {}
  for name, value in head:gmatch("\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
    headers[name:lower()] = value
  end
  local size = tonumber(headers["content-length"] or 0)
  if #c.input < after - 1 + size then
    return nil
  end
  local method, path = head:match("^(%S+) (%S+)")
  local body = c.input:sub(after, after - 1 + size)
  c.input = c.input:sub(after + size)
  return { method = method, path = path, headers = headers, body = body }
end


local function drop(c, reset)
  connections[c.fd] = nil
  libc.close(c.fd, reset)
end


local function begin_reply(c, now)
  local request = next_request(c)
  if not request then
    return
  end
  served = served + 1
  request.number = served
  log:write(json.encode(request) .. "\n")
  local reply = script[math.min(served, #script)]
  c.reply = reply
  c.pieces = reply.hold and not reply.sse and {} or pieces_of(reply)
  c.at = 1
  c.output = ""
  c.due = c.pieces[1] and now + c.pieces[1][2] or nil
end


local function end_reply(c)
  local reply = c.reply
  if reply.hold then
    c.due = nil
    return
  end
  if reply.reset or reply.cut or reply.close then
    drop(c, reply.reset)
    return
  end
  c.reply, c.due = nil, nil
end


-- Send what is due.
local function advance(c, now)
  while c.reply and c.due and c.due <= now do
    if c.output == "" then
      local piece = c.pieces[c.at]
      if not piece then
        return end_reply(c)
      end
      c.output = piece[1]
    end
    local size = libc.write(c.fd, c.output)
    if not size then
      return drop(c)
    end
    c.output = c.output:sub(size + 1)
    if c.output ~= "" then
      return
    end
    c.at = c.at + 1
    local piece = c.pieces[c.at]
    c.due = now + (piece and piece[2] or 0)
  end
end


local function receive(c)
  local text = libc.read(c.fd)
  if not text then
    log:write(json.encode { closed = true, during = c.reply ~= nil } .. "\n")
    return drop(c)
  end
  c.input = c.input .. text
end


-- One turn: wait for news or the next piece that is due.
local function turn(listener)
  local list, count = { listener }, 1
  local wait = 0.2
  local now = libc.now()
  for fd, c in pairs(connections) do
    count = count + 1
    list[count] = fd
    if c.due then
      wait = math.min(wait, math.max(0, c.due - now))
    end
  end
  local fds = ffi.new("struct drover_test_pollfd[?]", count)
  for i = 1, count do
    local c = connections[list[i]]
    fds[i - 1].fd = list[i]
    fds[i - 1].events = libc.POLLIN
      + (c and c.output ~= "" and libc.POLLOUT or 0)
  end
  libc.C.poll(fds, count, math.ceil(wait * 1000))
  if fds[0].revents ~= 0 then
    local fd = libc.accept(listener)
    if fd then
      connections[fd] = { fd = fd, input = "", output = "" }
    end
  end
  for i = 2, count do
    local c = connections[list[i]]
    if c and fds[i - 1].revents % 4 ~= 0 or c and fds[i - 1].revents > 7 then
      receive(c)
    end
  end
end


local parent = tonumber(arg[4])
local listener, port = libc.listen()
io.stdout:write(port, " ", libc.C.getpid(), "\n")
io.stdout:flush()
libc.close(1)                           -- the parent reads to the end

while libc.now() < ends and libc.alive(parent) do
  turn(listener)
  local now = libc.now()
  for _, c in pairs(connections) do
    if not c.reply then
      begin_reply(c, now)
    end
    advance(c, now)
  end
end

os.remove(log_path)
