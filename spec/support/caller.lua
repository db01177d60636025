-- A port and its calls, driven by hand: what specs of the transport use.
local ffi = require "ffi"
local c = require "spec.support.c"

local C = c.lib
local err = ffi.new("drover_err")
local event = ffi.new("drover_event")
local LONG = 20                       -- seconds; a spec that waits so long fails

local NAMES = {
  [C.DROVER_EVENT_HEAD] = "head", [C.DROVER_EVENT_SSE] = "sse",
  [C.DROVER_EVENT_BODY] = "body", [C.DROVER_EVENT_TEXT] = "text",
  [C.DROVER_EVENT_END] = "end", [C.DROVER_EVENT_FAIL] = "fail",
}

local _M = {}
local mt = { __index = {} }


function _M.new()
  local out = ffi.new("drover_port *[1]")
  assert(C.drover_port_open(out, err) == 0, ffi.string(err.text))
  return setmetatable({ port = out[0], count = 0, calls = {} }, mt)
end


-- Start a call. `opts` are the fields of drover_call_config but url; `hold`
-- keeps its data unread, `commit` commits at the first event of a stream.
-- Returns the call's number, or nil, code, text.
function mt.__index:send(url, opts)
  opts = opts or {}
  local number = self.count + 1
  local body = opts.body or (opts.method == "GET" and "" or "{}")
  local config = ffi.new("drover_call_config", {
    call = number, stream = opts.stream and 1 or 0,
    method = opts.method or "POST", url = url, unix_path = opts.unix_path,
    headers = opts.headers, headers_size = opts.headers and #opts.headers or 0,
    body = body, body_size = #body, ca_file = opts.ca_file,
    connect = opts.connect or 0, first_token = opts.first_token or 0,
    idle = opts.idle or 0, total = opts.total or 0,
    body_max = opts.body_max or 0,
  })
  local out = ffi.new("drover_call *[1]")
  local code = C.drover_call_http(out, self.port, config, err)
  if code ~= 0 then
    return nil, code, ffi.string(err.text)
  end
  self.count = number
  self.calls[number] = { handle = out[0], opts = opts }
  return number
end


local function take(self, ev)
  local call = assert(self.calls[ev.call], "an event of a call that is closed")
  local out = {
    call = ev.call, type = NAMES[ev.type], code = ev.code, phase = ev.phase,
    status = ev.status, billed = ev.maybe_billed == 1, at = ev.at,
    data = ffi.string(ev.data, ev.data_size),
    name = ffi.string(ev.name, ev.name_size),
  }
  if out.type == "sse" and call.opts.commit then
    C.drover_call_commit(call.handle)
  end
  if out.type == "sse" and not call.opts.hold then
    C.drover_call_consumed(call.handle, ev.data_size)
  end
  return out
end


-- The next event of any call; nil when none comes for `seconds`.
function mt.__index:next(seconds)
  local stop = C.drover_clock() + (seconds or LONG)
  repeat
    if C.drover_port_next(self.port, event) == 1 then
      return take(self, event)
    end
    C.drover_port_wait(self.port, math.max(0, stop - C.drover_clock()))
  until C.drover_clock() >= stop
end


function mt.__index:consumed(number, bytes)
  C.drover_call_consumed(self.calls[number].handle, bytes)
end


function mt.__index:close(number)
  C.drover_call_close(self.calls[number].handle)
  self.calls[number] = nil
end


function mt.__index:leave(number)
  C.drover_call_leave(self.calls[number].handle)
  self.calls[number] = nil
end


-- All events of one call up to its last, which closes it; a list that also
-- has .head .body .last, and .sse, the data of its SSE events.
function mt.__index:finish(number)
  local list = { sse = {} }
  repeat
    local ev = assert(self:next(), "no event came")
    assert(ev.call == number, "an event of another call")
    list[#list + 1] = ev
    if ev.type == "sse" then
      list.sse[#list.sse + 1] = ev.data
    else
      list[ev.type] = ev
    end
    list.last = ev
  until ev.type == "end" or ev.type == "fail"
  self:close(number)
  return list
end


-- Send and wait for all of it.
function mt.__index:call(url, opts)
  local number, code, text = self:send(url, opts)
  if not number then
    return nil, code, text
  end
  return self:finish(number)
end


function mt.__index:free()
  C.drover_port_close(self.port)
  self.port = nil
end


return _M
