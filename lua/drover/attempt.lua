-- One send of a request to one node, from the claimed ticket to its settle.
-- The loop's pump gives it events (it is a sink); one reader takes them.
--
--   opened -> events … -> ended (err or none) -> settled, exactly once
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local cost = require "drover.cost"
local engine = require "drover.provider.engine"
local err = require "drover.err"
local loops = require "drover.loop"
local reader = require "drover.reader"
local send = require "drover.send"

local ffi_string = ffi.string

local HEAD, SSE, BODY = C.DROVER_EVENT_HEAD, C.DROVER_EVENT_SSE,
                        C.DROVER_EVENT_BODY
local TEXT, END, FAIL = C.DROVER_EVENT_TEXT, C.DROVER_EVENT_END,
                        C.DROVER_EVENT_FAIL
local CHOICE = C.DROVER_EVENT_CHOICE
local NAN = 0 / 0

local finishes = {
  [tonumber(C.DROVER_FINISH_STOP)] = "stop",
  [tonumber(C.DROVER_FINISH_LENGTH)] = "length",
}

local _M = {}

local mt = {}
mt.__index = mt
mt.first, mt.last, mt.committed = 1, 0, false   -- where nothing else is said

-- One for each settle: a finalizer may settle another attempt in between.
local outcome_t = ffi.typeof("drover_outcome")


-- ---- events, called by the pump ----

-- An event for the reader; `size` bytes are given back when it is read, or
-- now where the reader waits for the whole.
function mt:push(event, size)
  local last = self.last + 1
  if not self.queue then
    self.queue, self.sizes = {}, {}
  end
  if size > 0 and not self.call.stream and self.handle then
    C.drover_call_consumed(self.handle, size)
    size = 0
  end
  self.last = last
  self.queue[last] = event
  self.sizes[last] = size
  if last == self.first then
    self.gate:post()
  end
end


-- No more events. `e` is the error, nil when all went well.
function mt:finish(e)
  if self.ended then
    return
  end
  self.ended = true
  if e then
    self.err = e
  end
  loops.forget(self.number)
  self.gate:post()
end


-- An error of this attempt.
function mt:fault(kind, message, phase)
  return err.new(kind, message, {
    node = self.row.id, phase = phase, maybe_billed = true,
    status = self.status,
  })
end


local function on_fail(self, ev)
  -- Its finish reason was seen, then a plain close: the answer is whole.
  if self.finished and ev.code == C.DROVER_ETRUNCATED then
    self:finish(reader.verdict(self))
    return
  end
  local size = tonumber(ev.data_size)
  local phase = err.phase(ev.phase)
  if phase == "first_token" and self.first_at then
    phase = "stream"            -- it came before the transport saw our commit
  end
  self:finish(err.new(err.kind(ev.code),
                      size > 0 and ffi_string(ev.data, size) or nil, {
    node = self.row.id, phase = phase, status = self.status,
    maybe_billed = ev.maybe_billed ~= 0,
    retryable = C.drover_err_retryable(ev.code) == 1,
  }))
end


-- A choice's first event says whose words follow.
local function open_choice(self, choice)
  local heads = self.envelope.heads
  if not heads[choice] then
    local opening = engine.role(self.envelope, choice)
    self.opening = self.opening or opening.raw
    self:push(opening, 0)
  end
end


local function on_text(self, ev)
  local size = tonumber(ev.data_size)
  local text = ffi_string(ev.data, size)
  local logprobs = ev.logprobs_size > 0
                   and ffi_string(ev.logprobs, ev.logprobs_size) or nil
  self.first_at = self.first_at or ev.at
  open_choice(self, ev.choice)
  self:push(reader.pieced(engine.event(self.envelope, text, ev.choice,
                                       logprobs)), size)
end


local function on_choice_end(self, ev)
  local reason = finishes[ev.finish] or "stop"
  open_choice(self, ev.choice)
  self.finished = reason
  self:push(engine.finish(self.envelope, reason, ev.choice), 0)
end


local function on_engine_end(self, ev)
  self.usage = {
    prompt_tokens = ev.prompt_tokens,
    completion_tokens = ev.completion_tokens,
    total_tokens = ev.prompt_tokens + ev.completion_tokens,
  }
  on_choice_end(self, ev)
  if self.call.usage_asked then
    self:push(engine.usage_event(self.envelope, self.usage), 0)
  end
end


function mt:event(ev)
  local kind = ev.type
  if kind == SSE then
    reader.sse(self, ev)
  elseif kind == TEXT then
    on_text(self, ev)
  elseif kind == CHOICE then
    on_choice_end(self, ev)
  elseif kind == HEAD then
    self.status = ev.status
    if ev.status ~= 200 then
      self.head = ffi_string(ev.data, ev.data_size)
    end
  elseif kind == BODY then
    self.body = ffi_string(ev.data, ev.data_size)
  elseif kind == END then
    self.ended_at = ev.at
    if self.row.engine then
      on_engine_end(self, ev)
    end
    self:finish(reader.verdict(self))
  elseif kind == FAIL then
    self.ended_at = ev.at
    on_fail(self, ev)
  end
end


-- ---- reading ----

-- The next event, waiting for it; nil at the end (then self.err says how).
function mt:next()
  local first = self.first
  while first > self.last do
    if self.ended then
      return nil
    end
    self.gate:wait()
  end
  local event = self.queue[first]
  local size = self.sizes[first]
  self.queue[first], self.sizes[first] = nil, nil
  self.first = first + 1
  if size > 0 and self.handle and not loops.get().closed then
    C.drover_call_consumed(self.handle, size)
  end
  return event
end


-- Wait until all has come.
function mt:wait()
  while not self.ended do
    self.gate:wait()
  end
end


-- The first content has been seen: from here on no other node is tried.
function mt:commit()
  self.committed = true
  if self.handle then
    C.drover_call_commit(self.handle)
  end
end


-- ---- settling ----

local function fill_outcome(self, outcome, kind)
  local usage = self.usage and self.row.provider.usage(self.usage)
  local first, ended = self.first_at, self.ended_at or C.drover_clock()
  outcome.code = kind == "ok" and 0 or err.code(kind)
  outcome.prompt_tokens = usage and usage.prompt_tokens or 0
  outcome.completion_tokens = usage and usage.completion_tokens or 0
  outcome.cached_tokens = usage and usage.cached_tokens or 0
  outcome.first_token_ms, outcome.token_ms = NAN, NAN
  local count = usage and usage.completion_tokens or 0
  if first then
    outcome.first_token_ms = (first - self.sent_at) * 1000
    if count > 1 then
      outcome.token_ms = (ended - first) * 1000 / (count - 1)
    end
  elseif count > 0 and kind == "ok" then
    outcome.token_ms = (ended - self.sent_at) * 1000 / count
  end
  local dollars = cost.dollars(self.row.price, usage)
  if dollars then
    self.dollars = dollars
    outcome.dollars = dollars
  end
  return ended
end


-- Close the call and give back what the ticket holds; once, whatever comes
-- after. `kind` is "ok" or an err.kind.
function mt:settle(kind)
  if self.settled then
    return
  end
  self.settled = true
  self.ended = true
  loops.forget(self.number)
  local handle = self.handle
  self.handle = false
  if handle and not loops.get().closed then
    if self.done and kind == "ok" then
      C.drover_call_leave(handle)
    else
      C.drover_call_close(handle)
    end
  end
  local outcome = outcome_t()
  local ended = fill_outcome(self, outcome, kind)
  local record = self.record
  record.kind, record.seconds = kind, ended - self.sent_at
  record.maybe_billed = kind == "ok" or self.err ~= nil
                        and self.err.maybe_billed or kind == "cancelled"
  local state = self.state
  state.active[self] = nil
  if not state.closed then
    C.drover_ticket_done(state.handle, self.pick, outcome, C.drover_clock())
  end
  self.gate:post()
end


-- End it from outside: its reader gets an error of that kind.
function mt:cancel(kind)
  if not self.settled then
    self.err = self.err or err.new(kind, nil, {
      node = self.row.id, maybe_billed = true, status = self.status,
      phase = self.first_at and "stream" or "first_token",
    })
    self:settle(kind)
  end
end


-- ---- opening ----

-- Send `call` to `row`, whose ticket `pick` holds. `limits`: deadlines in
-- seconds. The attempt, or nil and an error (the ticket is settled then).
function _M.open(state, row, pick, call, limits)
  local loop = loops.get()
  local self = setmetatable({
    state = state, row = row, pick = pick, call = call, gate = loop.gate(),
    sent_at = C.drover_clock(), handle = false, ended = false,
    settled = false,
    record = { node = row.id, kind = "lost", seconds = 0,
               maybe_billed = false },
  }, mt)
  self.number = loops.register(self)
  state.active[self] = true
  C.drover_ticket_sent(state.handle, pick)
  local port, why = loop.port()
  local handle, e
  if not port then
    e = err.new("resource", why, { node = row.id, phase = "send" })
  elseif row.engine then
    self.envelope = engine.envelope(("%x"):format(self.number)
      .. tostring(C.drover_entropy()):gsub("%D", ""),
      math.floor(C.drover_clock_wall()), call.model or row.model)
    handle, e = send.engine(port, self.number, row, call, limits)
  else
    handle, e = send.http(port, self.number, row, call, limits)
  end
  if not handle then
    self.err = e
    self:settle(e.kind)
    return nil, e, self.record
  end
  self.handle = handle
  return self
end


return _M
