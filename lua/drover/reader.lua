-- Turns what an HTTP node answers into events and verdicts, for attempt.lua.
-- The hot path (a chunk of plain text) is one scan in C and no decoding.
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"
local ffi = require "ffi"
local C = require "drover.core"
local err = require "drover.err"
local json = require "drover.json"

local band = bit.band
local cast = ffi.cast
local ffi_string = ffi.string
local lower = string.lower

local F_TEXT, F_FINISH = C.DROVER_DELTA_TEXT, C.DROVER_DELTA_FINISH
local SLOW = C.DROVER_DELTA_USAGE + C.DROVER_DELTA_ERROR + C.DROVER_DELTA_OTHER

local MESSAGE_SIZE = #"message"
local CHUNK_MIN = 16            -- what is shorter is no chunk ("[DONE]")
local SAID_MAX = 400
local JOINED_MAX = 4096
local OBJECT, QUOTE = ("{"):byte(), ("\""):byte()

local _M = {}

ffi.cdef [[
void *memmem(const void *in, size_t in_size, const void *what, size_t size);
]]

local LIMITS = "ratelimit-"     -- in the names of headers that say limits

local delta = ffi.new("drover_delta")
local scratch, scratch_size = ffi.new("char[4096]"), 4096


-- { ["retry-after"] = "1" } of the lines of a response's head. Lines of one
-- name are joined by LF, as many as anybody reads.
function _M.headers(head)
  local headers = {}
  for name, value in (head or ""):gmatch("([^:\n]+):[ \t]*([^\n]*)") do
    name = lower(name)
    local before = headers[name]
    value = value:gsub("%s+$", "")
    if not before then
      headers[name] = value
    elseif #before < JOINED_MAX then
      headers[name] = before .. "\n" .. value
    end
  end
  return headers
end


-- Whether a response's head says something of the node's own limits; of the
-- bytes as they are, since most say nothing and no text need be made of them.
function _M.says_limits(head, size)
  return ffi.C.memmem(head, size, LIMITS, #LIMITS) ~= nil
end


-- An upstream's words without what looks like a key.
local function scrub(text, key)
  if not text then
    return nil
  end
  if key and #key > 3 then
    local at, to = text:find(key, 1, true)
    while at do
      text = text:sub(1, at - 1) .. "[key]" .. text:sub(to + 1)
      at, to = text:find(key, at, true)
    end
  end
  return (text:gsub("%f[%w]sk%-[%w_*%-]+", "[key]"):sub(1, SAID_MAX))
end


-- The error that a status, or an error member in a body, stands for.
function _M.upstream_error(attempt, body, phase)
  local row = attempt.row
  local c = row.provider.classify(attempt.status or 0,
                                  _M.headers(attempt.head), body,
                                  C.drover_clock_wall())
  local message = scrub(c.message, row.key)
  local code = c.code and #c.code <= 64 and c.code:match("^[%w_.:-]+$") or nil
  return err.new(c.kind, message, {
    node = row.id, status = attempt.status, code = code, param = c.param,
    said = message ~= nil, phase = phase, retryable = c.retryable,
    retry_after = c.retry_after,
    maybe_billed = c.maybe_billed or attempt.first_at ~= nil,
  })
end


-- Events of plain text keep their chunk in three pieces, of which the first
-- and the last are the same for a whole stream: `raw` is put together only
-- for who asks (why long texts are not made for nothing: see json.lua).
local event_mt = {
  __index = function(event, name)
    if name == "raw" then
      local head = rawget(event, "head")
      return head and head .. event.mid .. event.tail or nil
    end
  end,
}


-- Give an event with head, mid and tail its `raw`.
function _M.pieced(event)
  return setmetatable(event, event_mt)
end


-- The event of a chunk of text, whose delta has been scanned.
local function text_event(data, size)
  local start, length = delta.text_start, delta.text_size
  local mid = ffi_string(data + start, length)
  local text = mid
  if delta.text_plain ~= 1 then
    if length > scratch_size then
      scratch_size = length
      scratch = ffi.new("char[?]", length)
    end
    local wrote = C.drover_json_unescape(data + start, length, scratch)
    text = ffi_string(scratch, math.max(0, tonumber(wrote)))
  end
  return setmetatable({
    index = 0, text = text, head = ffi_string(data, start), mid = mid,
    tail = ffi_string(data + start + length, size - start - length),
  }, event_mt)
end


local function mark_first(attempt, at)
  if not attempt.first_at then
    attempt.first_at = at
  end
end


local function size_of(text)
  return type(text) == "string" and #text or 0
end


-- Bytes of what an event says.
local function said_by(event)
  local tool = event.tool_call
  return size_of(event.text) + size_of(event.reasoning)
         + size_of(event.refusal)
         + (tool and size_of(tool.name) + #tool.arguments or 0)
end


-- What the provider makes of a chunk that the scan does not cover.
local function slow(attempt, ev, raw)
  local name_size = tonumber(ev.name_size)
  local name = name_size > 0 and ffi_string(ev.name, name_size) or nil
  local list, why, is_error = attempt.row.provider.event { data = raw,
                                                           name = name }
  if is_error then
    attempt:finish(_M.upstream_error(attempt, raw, attempt.first_at
                                     and "stream" or "first_token"))
    return
  elseif not list then
    attempt:finish(attempt:fault("malformed", why, "stream"))
    return
  end
  local size = #raw
  for i = 1, #list do
    local event = list[i]
    if event.done then
      attempt.done = true
      event = nil
    elseif event.usage then
      attempt.usage = event.usage
      if not attempt.call.usage_asked then
        event.usage = nil
        event = not event.only_usage and event or nil
      end
    end
    if event then
      if _M.has_content(event) then
        mark_first(attempt, ev.at)
        attempt.seen = attempt.seen + said_by(event)
      end
      attempt.finished = event.finish_reason or attempt.finished
      attempt.tools = attempt.tools or event.tool_call ~= nil
      attempt:push(event, size)
      size = 0
    end
  end
  if size > 0 and attempt.handle then
    C.drover_call_consumed(attempt.handle, size)
  end
  if attempt.done then                  -- the end of its connection may be far
    attempt.ended_at = ev.at
    attempt:finish(_M.verdict(attempt))
  end
end


-- One event of the stream.
function _M.sse(attempt, ev)
  if attempt.ended then
    return
  end
  local data, size = ev.data, tonumber(ev.data_size)
  if not attempt.opening then
    attempt.opening = ffi_string(data, size)    -- its id and model, for join()
  end
  if ev.name_size ~= MESSAGE_SIZE or size < CHUNK_MIN
     or C.drover_delta_scan(data, size, delta, nil) ~= 0
     or band(delta.flags, SLOW) ~= 0 then
    return slow(attempt, ev, ffi_string(data, size))
  end
  local event
  if band(delta.flags, F_TEXT) ~= 0 then
    event = text_event(data, size)
    mark_first(attempt, ev.at)
    attempt.seen = attempt.seen + delta.text_size
  else
    event = { index = 0, raw = ffi_string(data, size) }
  end
  if band(delta.flags, F_FINISH) ~= 0 then
    event.finish_reason = attempt.row.provider.finish(
      ffi_string(data + delta.finish_start, delta.finish_size))
    attempt.finished = event.finish_reason
  end
  attempt:push(event, size)
end


-- True when an event carries what commits a stream.
function _M.has_content(event)
  return event.text ~= nil or event.tool_call ~= nil
         or event.reasoning ~= nil or event.refusal ~= nil
end


-- A stream was asked for and a whole reply came: its events.
local function push_reply(attempt, reply)
  for _, event in ipairs(attempt.row.provider.as_events(reply)) do
    if event.usage then
      attempt.usage = event.usage
      if not attempt.call.usage_asked then
        event = nil
      end
    end
    if event then
      attempt.finished = event.finish_reason or attempt.finished
      attempt.tools = attempt.tools or event.tool_call ~= nil
      attempt.opening = attempt.opening or event.raw
      attempt:push(event, 0)
    end
  end
  attempt.done = true
end


-- Bytes of the text that came: counted as it streamed, or in a whole reply.
function _M.said(attempt)
  local reply, sum = attempt.reply, attempt.seen
  if not reply or sum > 0 then
    return sum
  elseif not reply.choices then
    return #attempt.body                -- passes as it came; an upper bound
  end
  for _, choice in ipairs(reply.choices) do
    local message = type(choice) == "table" and choice.message
    if type(message) == "table" then
      local tools = message.tool_calls and json.encode(message.tool_calls)
      sum = sum + size_of(message.content) + size_of(message.refusal)
            + size_of(message.reasoning_content) + size_of(tools)
    end
  end
  return sum
end


local MEMBERS = "choices\0error\0usage\0"
local CONTENT = "i0\0kmessage\0kcontent\0"       -- in choices
local members, span = ffi.new("drover_span[3]"), ffi.new("drover_span")


-- Whether a reply that passes as it came (call.pass) is a chat completion
-- with a text; its usage is all that is read of it. Others are decoded.
local function passes(attempt, body)
  local bytes = cast("const char *", body)
  if C.drover_json_members(bytes, #body, MEMBERS, 3, members, nil) ~= 0
     or members[1].type == OBJECT then
    return false
  end
  local choices, usage = members[0], members[2]
  if choices.type == 0
     or C.drover_json_find(bytes + choices.start, choices.stop - choices.start,
                           CONTENT, #CONTENT, span, nil) ~= 0
     or span.type ~= QUOTE then
    return false
  end
  attempt.usage = usage.type == OBJECT
    and json.decode(ffi_string(bytes + usage.start, usage.stop - usage.start))
    or nil
  attempt.reply = { usage = attempt.usage }
  return true
end


-- What a body of a reply is: decoded into attempt.reply, or an error.
local function body_verdict(attempt)
  local status, body = attempt.status or 0, attempt.body or ""
  if status >= 300 and status < 400 then
    local e = attempt:fault("malformed", "a redirect, which is not followed",
                            "decode")
    e.retryable, e.maybe_billed = false, false
    return e
  end
  if status ~= 200 then
    return _M.upstream_error(attempt, body, "decode")
  end
  local call = attempt.call
  if call.pass and not call.stream and passes(attempt, body) then
    return nil
  end
  local reply, why, is_error, code = attempt.row.provider.decode(body)
  if is_error then
    return _M.upstream_error(attempt, body, "decode")
  elseif not reply then
    local e = attempt:fault("malformed", why, "decode")
    e.code = code
    return e
  end
  attempt.reply = reply
  attempt.usage = type(reply.usage) == "table" and reply.usage or nil
  if call.stream then
    push_reply(attempt, reply)
  end
end


-- The finish reason that a clean end without one stands for.
local function infer_finish(attempt)
  local reason = attempt.tools and "tool_calls" or "stop"
  attempt.finished = reason
  attempt:push({ index = 0, finish_reason = reason,
                 raw = attempt.row.provider.finish_chunk(attempt.opening,
                                                         reason) }, 0)
end


-- The transfer ended well: is the answer whole? Returns an error or nil. One
-- of finish reason and end mark will do, and the oddity is counted.
function _M.verdict(attempt)
  if attempt.row.engine then
    return nil
  end
  if attempt.body or not attempt.opening or attempt.status ~= 200 then
    return body_verdict(attempt)
  end
  if attempt.finished then
    if not attempt.done then
      attempt:count(C.DROVER_STREAM_QUIRK)
    end
    return nil
  end
  if not attempt.done then
    return attempt:fault("truncated", "the stream ended without its end mark",
                         "stream")
  end
  if not attempt.first_at then
    local e = attempt:fault("malformed", "the stream held no content",
                            "stream")
    e.code = "empty_response"
    return e
  end
  attempt:count(C.DROVER_STREAM_QUIRK)
  infer_finish(attempt)
end


return _M
