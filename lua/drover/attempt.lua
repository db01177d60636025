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
local ratelimit = require "drover.provider.ratelimit"
local reader = require "drover.reader"
local send = require "drover.send"
local tokens = require "drover.tokens"
local usages = require "drover.usage"

local ffi_string = ffi.string

local HEAD, SSE, BODY = C.DROVER_EVENT_HEAD, C.DROVER_EVENT_SSE,
                        C.DROVER_EVENT_BODY
local TEXT, END, FAIL = C.DROVER_EVENT_TEXT, C.DROVER_EVENT_END,
                        C.DROVER_EVENT_FAIL
local CHOICE = C.DROVER_EVENT_CHOICE
local NAN = 0 / 0
local COOL_MIN, COOL_MAX = 0.05, 86400  -- seconds; the table has its own caps

local finishes = {
  [tonumber(C.DROVER_FINISH_STOP)] = "stop",
  [tonumber(C.DROVER_FINISH_LENGTH)] = "length",
}

local _M = {}

local mt = {}
mt.__index = mt
mt.first, mt.last, mt.committed = 1, 0, false   -- where nothing else is said
mt.seen = 0                     -- bytes of text that came

-- One for each settle: a finalizer may settle another attempt in between.
local outcome_t = ffi.typeof("drover_outcome")
local upstream = ffi.new("drover_upstream")

-- What says less than the status that came before it.
local cut_short = { reset = true, truncated = true, timeout = true,
                    too_large = true, malformed = true }


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


-- Count what is odd but no failure.
function mt:count(counter)
  if not self.state.closed then
    C.drover_count(self.state.handle, counter)
  end
end


-- The reply's head. What it says of the node's limits is told to all workers.
local function on_head(self, ev)
  local size = tonumber(ev.data_size)
  local limits = reader.says_limits(ev.data, size)
  self.status = ev.status
  if ev.status ~= 200 or limits then
    self.head = ffi_string(ev.data, size)
  end
  local said = limits and not self.state.closed
               and ratelimit.read(reader.headers(self.head),
                                  C.drover_clock_wall())
  if said then
    upstream.requests_limit = said.requests_limit or NAN
    upstream.requests_left = said.requests_left or NAN
    upstream.requests_reset = said.requests_reset or NAN
    upstream.tokens_limit = said.tokens_limit or NAN
    upstream.tokens_left = said.tokens_left or NAN
    upstream.tokens_reset = said.tokens_reset or NAN
    C.drover_node_upstream(self.state.handle, self.pick.node,
                           self.pick.version, upstream, C.drover_clock())
  end
end


local function on_fail(self, ev)
  local kind = err.kind(ev.code)
  if self.status and self.status >= 400 and cut_short[kind] then
    self:finish(reader.upstream_error(self, "", "decode"))
    return
  end
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
  self:finish(err.new(kind, size > 0 and ffi_string(ev.data, size) or nil, {
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
  self.seen = self.seen + size
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
    on_head(self, ev)
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

-- What it has used, or by all that is known may have: charged to limits,
-- counted and priced. `billed` as in usage.lua. Returns the tokens of the
-- answer where the node's own figure is believed, else 0.
local function account(self, outcome, kind, billed)
  local call, router, row = self.call, self.state, self.row
  local used, estimated = usages.of(self.usage
                                    and row.provider.usage(self.usage),
                                    call, self.pick.prompt_tokens, billed,
                                    reader.said, self)
  if not used then
    return 0
  end
  local count = used.completion_tokens
  outcome.prompt_tokens, outcome.completion_tokens = used.prompt_tokens, count
  outcome.cached_tokens = used.cached_tokens
  outcome.tokens = used.prompt_tokens + count
  self.dollars = cost.dollars(row.price, used)
  outcome.dollars = self.dollars or 0
  if estimated then
    self.estimated, self.record.estimated = true, true
    self:count(C.DROVER_USAGE_ESTIMATED)
    return 0
  end
  if kind == "ok" then
    local n = call.request.n
    tokens.learn(router.lengths, call.model,
                 type(n) == "number" and count / n or count)
  end
  return count
end


local function fill_outcome(self, outcome, kind, billed)
  local first, ended = self.first_at, self.ended_at or C.drover_clock()
  local count = account(self, outcome, kind, billed)
  local asked = self.err and self.err.retry_after
  outcome.code = kind == "ok" and 0 or err.code(kind)
  local brief = kind == "timeout" and self.brief
  if brief and ended - self.sent_at >= brief then
    outcome.code = C.DROVER_ECANCELLED  -- we had no time: not the node's fault
  end
  outcome.first_token_ms, outcome.token_ms = NAN, NAN
  if asked then
    outcome.retry_after = math.max(COOL_MIN, math.min(asked, COOL_MAX))
  end
  if first then
    outcome.first_token_ms = (first - self.sent_at) * 1000
    if count > 1 then
      outcome.token_ms = (ended - first) * 1000 / (count - 1)
    end
  elseif count > 0 and kind == "ok" then
    outcome.token_ms = (ended - self.sent_at) * 1000 / count
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
  local outcome, record = outcome_t(), self.record
  local billed = kind == "ok" or self.err ~= nil and self.err.maybe_billed
                 or kind == "cancelled"
  local ended = fill_outcome(self, outcome, kind, billed)
  record.kind, record.seconds = kind, ended - self.sent_at
  record.maybe_billed = billed
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
-- seconds (`brief`: a total too short to blame the node), and the request's
-- serial number. The attempt, or nil and an error (the ticket is settled then).
function _M.open(state, row, pick, call, limits)
  local loop = loops.get()
  local self = setmetatable({
    state = state, row = row, pick = pick, call = call, gate = loop.gate(),
    sent_at = C.drover_clock(), handle = false, ended = false,
    settled = false, brief = limits.brief,
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
    handle, e = send.engine(port, self.number, row, call, limits, pick)
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
