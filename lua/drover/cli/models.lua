-- Asks a server which models it has: the one plain GET of the command line.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local json = require "drover.json"
local loop = require "drover.loop"

local _M = {}

local HEAD, BODY = C.DROVER_EVENT_HEAD, C.DROVER_EVENT_BODY
local END, FAIL = C.DROVER_EVENT_END, C.DROVER_EVENT_FAIL
local SECONDS = 10


local sink_mt = {}
sink_mt.__index = sink_mt


function sink_mt:event(ev)
  if ev.type == HEAD then
    self.status = ev.status
  elseif ev.type == BODY then
    self.body = ffi.string(ev.data, ev.data_size)
  elseif ev.type == FAIL then
    self.failure = ffi.string(ev.data, ev.data_size)
  end
  if ev.type == END or ev.type == FAIL then self.gate:post() end
end


local function call_config(url, key, number)
  local c = ffi.new("drover_call_config")
  local headers = "Accept: application/json\n"
  if key then headers = headers .. "Authorization: Bearer " .. key .. "\n" end
  c.call, c.method, c.url = number, "GET", url
  c.headers, c.headers_size = headers, #headers
  c.connect, c.total = SECONDS, SECONDS
  return c, headers
end


-- The names that BASE/models lists, or nil, why.
function _M.list(base, key)
  local waits = loop.get()
  local port, why = waits.port()
  if not port then return nil, why end
  local sink = setmetatable({ gate = waits.gate() }, sink_mt)
  local number = loop.register(sink)
  local call, err = ffi.new("drover_call *[1]"), ffi.new("drover_err")
  local c, headers = call_config(base .. "/models", key, number)
  local rc = C.drover_call_http(call, port, c, err)
  if rc == 0 then
    sink.gate:wait()
    C.drover_call_close(call[0])
  end
  loop.forget(number)
  if rc ~= 0 then return nil, ffi.string(err.text), headers end
  if sink.failure then return nil, sink.failure end
  local answer = sink.status == 200 and json.decode(sink.body or "")
  local rows = type(answer) == "table" and answer.data
  if sink.status == 401 then
    return nil, "it refuses the key in DROVER_API_KEY, or wants one (HTTP 401)"
  elseif type(rows) ~= "table" then
    return nil, "it gave no list of models (HTTP " .. tostring(sink.status)
                .. "); name one with --name"
  end
  local names = {}
  for _, row in ipairs(rows) do
    if type(row) == "table" and type(row.id) == "string" then
      names[#names + 1] = row.id
    end
  end
  if #names == 0 then return nil, "it lists no models; name one with --name" end
  return names
end


return _M
