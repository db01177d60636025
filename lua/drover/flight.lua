-- The life of one request: pick, send, wait for the first content or the
-- whole reply, and where that fails before anything was seen, try again
-- elsewhere. Ends once: with the attempt that stands, or with an error.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local attempts = require "drover.attempt"
local collect = require "drover.collect"
local err = require "drover.err"
local has_content = require("drover.reader").has_content
local loops = require "drover.loop"
local pick = require "drover.pick"
local requests = require "drover.request"
local retries = require "drover.retry"
local streams = require "drover.stream"
local waits = require "drover.wait"

local NAN = 0 / 0

local LEAST = 0.001             -- seconds; 0 would mean no deadline
local HELD_MAX = 4096           -- events before the first content
local BRIEF = 5                 -- seconds; see FAULTS.md, Deadlines
local limits = {}               -- of the send that is being made
local serial = 0                -- of the last request
local stats = ffi.new("drover_node_stats")

local _M = {}

local mt = {}
mt.__index = mt


-- A request that is about to travel; run() sends it.
function _M.new(router, call, opts)
  local now = C.drover_clock()
  if opts.headers then
    call.headers = opts.headers
  end
  serial = serial + 1
  return setmetatable({
    router = router, call = call, opts = opts, ledger = {}, serial = serial,
    pick = requests.pick(call, opts, router), begun = now,
    deadline = now + opts.timeout.total, patience = opts.timeout.total,
    ended = false, cancelled = false, ambiguous = false, freed = false,
    sent = false,
  }, mt)
end


-- Deadlines of the next attempt, in seconds from now; 0 for none.
function mt:limits(now)
  local timeout, stream = self.opts.timeout, self.call.stream
  limits.connect = timeout.connect
  limits.first_token = stream and timeout.first_token or 0
  limits.idle = stream and timeout.idle or 0
  local left = math.max(LEAST, self.deadline - now)
  limits.total = left
  limits.brief = left < math.min(BRIEF, self.patience / 2) and left or nil
  limits.serial = self.serial
  return limits
end


-- Count the request's end; once.
local function count(self, row, code, first)
  if self.ended then
    return
  end
  self.ended = true
  local router = self.router
  if not router.closed then
    C.drover_request_done(router.handle, row, code, self.overhead or NAN,
                          first or NAN)
  end
end


-- The request ends with this error, which gets the whole ledger.
function mt:fail(e)
  e.attempts = self.ledger
  for _, record in ipairs(self.ledger) do
    e.maybe_billed = e.maybe_billed or record.maybe_billed
  end
  count(self, self.pick.node, err.code(e.kind), nil)
  return nil, e
end


-- The request ended well. Returns what reply.drover says.
function mt:done(attempt)
  local now = attempt.ended_at or C.drover_clock()
  local first = attempt.first_at and attempt.first_at - self.begun or nil
  count(self, self.pick.node, 0, first)
  return {
    node = attempt.row.id, attempts = self.ledger, cost = attempt.dollars,
    estimated = attempt.estimated,
    seconds = now - self.begun,
    first_token_seconds = self.call.stream and first or nil,
  }
end


-- Wait until the attempt stands: at its first content when it streams, whole
-- when not, or when nobody sees the stream before its end (`self.whole`).
-- Returns nothing, or its error.
local function reach(self, attempt)
  if not self.call.stream then
    attempt:wait()
    return attempt.err
  end
  local held, n = {}, 0
  self.held = held
  for event in attempt.next, attempt do
    n = n + 1
    held[n] = event
    if not attempt.committed and has_content(event) then
      attempt:commit()
      if not self.whole then
        return nil
      end
    elseif n >= HELD_MAX and not attempt.committed then
      attempt.err = attempt:fault("malformed", "too many events without"
                                  .. " content", "first_token")
      break
    end
  end
  return attempt.err
end


-- Wait before the same node is asked again; cancel() ends it early.
local function rest(self, seconds)
  local loop, active = loops.get(), self.router.active
  self.pause = loop.gate()
  active[self] = true
  loop.sleep(seconds, self.pause)
  active[self] = nil
  self.pause = nil
end


-- Whether one more send is granted: of what never left one is free, all
-- others are paid from the budget that all workers share.
local function granted(self, e)
  if not self.freed and retries.class(e) == "unsent" then
    self.freed = true
    return true
  end
  return C.drover_retry_take(self.router.handle, C.drover_clock()) == 1
end


-- Give a row back that was chosen and is not sent to.
local function release(self)
  if self.router.closed then
    return                              -- which has given it back
  end
  local outcome = ffi.new("drover_outcome")
  outcome.code = C.DROVER_ECANCELLED
  outcome.first_token_ms, outcome.token_ms = NAN, NAN
  C.drover_ticket_done(self.router.handle, self.pick, outcome,
                       C.drover_clock())
end


-- Why nothing is sent any more: an err.kind, or nil. To be asked behind all
-- that may wait: a pause, the queue, functions of the caller's.
local function over(self)
  return self.cancelled or self.router.closed and "closed"
         or C.drover_clock() >= self.deadline and "timeout" or nil
end


-- A row that was chosen, unless it is too late for it.
local function in_time(self, row)
  if row and over(self) then
    release(self)
    return nil
  end
  return row
end


-- Seconds for which the table keeps a row back by its node's own wish.
local function cooling(self, node)
  local handle = self.router.handle
  if C.drover_node_stat(handle, node, stats, C.drover_clock()) ~= 0
     or stats.why ~= C.DROVER_WHY_RATE then
    return 0
  end
  return stats.out_for
end


-- Another node at once, or the same one (number `failed`) after a wait.
-- Returns its row, or nil when the last error stands.
local function next_row(self, e, failed)
  local router, p, sends = self.router, self.pick, #self.ledger
  if over(self)
     or not retries.in_time(router.retry, self.deadline - C.drover_clock(),
                            self.ledger[sends].seconds) then
    return nil
  end
  local verdict, wait, instead = retries.decide(router.retry, e, sends, self)
  if verdict == "stop" or over(self) then
    return nil, instead
  end
  p.again = 0
  if not wait then
    local row = in_time(self, pick.node(router, p, self.call, self.opts))
    if row and not granted(self, e) then
      release(self)
      return nil
    elseif row or verdict == "other_node" or over(self) then
      return row
    end
    wait = retries.pause(router.retry, e, sends, router.random(),
                         cooling(self, failed))
  end
  if not wait or C.drover_clock() + wait >= self.deadline
     or not granted(self, e) then
    return nil
  end
  rest(self, wait)
  if over(self) then
    return nil
  end
  p.again = verdict == "retry" and 1 or 0
  return in_time(self, waits.node(router, p, self.call, self.opts, self))
end


local function send(self, row)
  local now = C.drover_clock()
  self.overhead = self.overhead or now - self.begun
  local attempt, e, record = attempts.open(self.router, row, self.pick,
                                           self.call, self:limits(now))
  self.ledger[#self.ledger + 1] = attempt and attempt.record or record
  if not attempt then
    return nil, e
  end
  self.attempt = attempt
  e = reach(self, attempt)
  if e then
    attempt:settle(e.kind)
    return nil, e
  end
  return attempt
end


-- Send until one attempt stands. Returns it, or nil and the error. Once: what
-- was paid and tried is that of one request.
function mt:run()
  if self.sent then
    error("a flight is sent once; begin another", 3)
  end
  self.sent = true
  if self.cancelled then
    return self:fail(err.new(self.cancelled, nil, { phase = "pick" }))
  end
  local p = self.pick
  local row, e = waits.node(self.router, p, self.call, self.opts, self)
  local late = row and over(self)
  if late then
    release(self)
    row, e = nil, err.new(late, nil, { phase = "pick" })
  end
  if not row then
    return self:fail(e)
  end
  while row do
    local attempt, instead
    local number = p.node
    attempt, e = send(self, row)
    if attempt then
      return attempt
    end
    row, instead = next_row(self, e, number)
    e = instead or e
    if not row then
      p.node = number                   -- whose failure it is
    end
  end
  if self.cancelled and e.kind ~= self.cancelled then
    e = err.new(self.cancelled, nil, { node = e.node, phase = "pick" })
  end
  return self:fail(e)
end


-- End it from outside, whoever waits for it: at once and any number of times.
-- `kind` is "cancelled" where it is not said.
function mt:cancel(kind)
  if self.ended then
    return
  end
  self.cancelled = self.cancelled or kind or "cancelled"
  if self.attempt then
    self.attempt:cancel(self.cancelled)
  end
  if self.waiter then
    self.waiter:cancel(self.cancelled)
  end
  if self.pause then
    self.router.active[self] = nil
    self.pause:post()
  end
end


-- Whoever held it is gone: count it as cancelled.
function mt:abandoned()
  count(self, self.pick.node, err.code("cancelled"), nil)
end


-- The whole reply of a request that was not streamed, or nil and the error.
function mt:reply()
  local attempt, e = self:run()
  if not attempt then
    return nil, e
  end
  local reply = attempt.reply
  if not reply then                     -- a local model: only events came
    local parts = collect.new()
    local opening
    for event in attempt.next, attempt do
      opening = opening or event.raw
      parts:add(event)
    end
    reply = parts:reply(opening, attempt.usage)
  end
  self.body = attempt.body
  attempt:settle("ok")
  reply.drover = self:done(attempt)
  return reply
end


-- The stream of a request that is streamed, or nil and the error.
function mt:stream()
  local guard = loops.get().killable and streams.guard(self)
  local attempt, e = self:run()
  if guard then
    streams.release(guard)
  end
  if not attempt then
    return nil, e
  end
  return streams.new(self, attempt)
end


return _M
