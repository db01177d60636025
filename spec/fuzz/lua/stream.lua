-- Events of a stream, as nodes send them and broken: the quick way of
-- reader.sse() and the provider's slow one say the same text, finish reasons
-- and usage, and end in the same verdict.
local ffi = require "ffi"
local broken = require "spec.fuzz.lua.broken"
local collect = require "drover.collect"
local err = require "drover.err"
local openai = require "drover.provider.openai"
local reader = require "drover.reader"

local TEXTS = { "a", "", " and", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\ud800",
                "\\\\", "\\\"", "\195\169", "x\\/y", ("long "):rep(40) }
local SHAPES = {
  '{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":'
  .. '{"content":"TEXT"},"finish_reason":null}]}',
  '{"choices":[{"delta":{"role":"assistant","content":"TEXT"}}]}',
  '{"choices":[{"index":0,"delta":{"content":"TEXT"},"finish_reason":"stop"}]}',
  '{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}',
  '{"choices":[{"index":1,"delta":{"content":"TEXT"}}]}',
  '{"choices":[{"index":0,"delta":{"content":"TEXT"}},{"index":1,"delta":'
  .. '{"content":"y"}}]}',
  '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":'
  .. '"f","arguments":"TEXT"}}]}}]}',
  '{"choices":[{"delta":{"reasoning_content":"TEXT"}}]}',
  '{"choices":[{"delta":{"refusal":"TEXT"}}]}',
  '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
  '{"choices":[{"delta":{"content":"TEXT"}}],"usage":{"prompt_tokens":1}}',
  '{"error":{"message":"TEXT"}}', '{"choices":null}', '{"choices":{}}', "[]",
  '{"choices":[{"delta":{"content":null}}]}', "[DONE]", "[DONE] ", "null",
  '{"choices":[{"delta":{"content":{"a":1},"tool_calls":[3]}}]}',
}

local _M = {}


function _M.make(chance)
  local list = {}
  for i = 1, 1 + chance:below(6) do
    local text = broken.words(chance, TEXTS, 3)
    list[i] = {
      data = broken.text(chance, (chance:choose(SHAPES)
                                  :gsub("TEXT", (text:gsub("%%", "%%%%"))))),
      name = chance:one_in(12) and chance:choose { "error", "ping", "" }
             or "message" }
  end
  return { events = list, asked = chance:one_in(2) }
end


local function new_attempt(asked)
  local attempt = { row = { id = "n", provider = openai }, status = 200,
                    call = { stream = true, usage_asked = asked }, seen = 0,
                    out = {}, committed = false }
  function attempt:push(event) self.out[#self.out + 1] = event end
  function attempt:finish(e)
    if not self.ended then self.ended, self.err = true, e end
  end
  function attempt:count() end        -- luacheck: ignore 212
  function attempt:fault(kind, message, phase)   -- luacheck: ignore 212
    return err.new(kind, message, { phase = phase })
  end
  return attempt
end


local event_t = ffi.typeof("drover_event")


local function feed(attempt, one)
  local ev = event_t()
  ev.data, ev.data_size = one.data, #one.data
  ev.name, ev.name_size = one.name, #one.name
  ev.at = 1
  reader.sse(attempt, ev)
end


local function add(out, event, name, piece)
  if piece ~= nil then
    assert(type(piece) == "string" and piece ~= "", name)
    out[#out + 1] = event.index .. name .. piece
  end
end


-- What came out, as one text: by kind of piece and choice.
local function told(events)
  local out = {}
  for _, event in ipairs(events) do
    add(out, event, "text", event.text)
    add(out, event, "reasoning", event.reasoning)
    add(out, event, "refusal", event.refusal)
    if event.tool_call then
      out[#out + 1] = event.index .. "tool" .. tostring(event.tool_call.id)
                      .. event.tool_call.arguments
    end
    if event.finish_reason then
      assert(type(event.finish_reason) == "string", "finish_reason")
      out[#out + 1] = event.index .. "finish" .. event.finish_reason
    end
  end
  return table.concat(out, "\n")
end


-- The end mark came; where no finish reason did, one is inferred.
local function close(out)
  local content, finished, tools = false, false, false
  for _, event in ipairs(out) do
    content = content or reader.has_content(event)
    finished = finished or event.finish_reason ~= nil
    tools = tools or event.tool_call ~= nil
  end
  if content and not finished then
    out[#out + 1] = { index = 0,
                      finish_reason = tools and "tool_calls" or "stop" }
  end
  return out, true
end


-- The events of the provider's reading alone, up to the first that ends it.
local function slowly(input)
  local out = {}
  for _, one in ipairs(input.events) do
    local list = openai.event { data = one.data,
                                name = one.name ~= "" and one.name or nil }
    if not list then return out, true end
    for _, event in ipairs(list) do
      if event.done then return close(out) end
      if not (event.only_usage and not input.asked) then
        out[#out + 1] = event
      end
    end
  end
  return out, false
end


-- Half of a pair of \u escapes: the scan takes it for U+FFFD, the decoder of
-- the slow way refuses it.
local function has_half(input)
  for _, one in ipairs(input.events) do
    local rest = one.data:gsub("\\\\", "")
                 :gsub("\\u[dD][89aAbB]%x%x\\u[dD][c-fC-F]%x%x", "")
    if rest:find("\\u[dD][89a-fA-F]") then return true end
  end
  return false
end


function _M.check(input)
  local attempt = new_attempt(input.asked)
  for _, one in ipairs(input.events) do
    feed(attempt, one)
  end
  local want, ended = slowly(input)
  if not has_half(input) then
    assert(told(attempt.out) == told(want), "quick and slow differ:\n"
           .. told(attempt.out) .. "\n--\n" .. told(want))
    assert(ended == (attempt.ended == true), "ended or not")
  end
  local e = attempt.err
  assert(e == nil or err.is(e), "an error of ours")
  assert(attempt.seen >= 0, "bytes seen")
  local parts = collect.new()
  for _, event in ipairs(attempt.out) do
    assert(event.raw == nil or type(event.raw) == "string", "raw")
    parts:add(event)
  end
  parts:reply(attempt.opening, attempt.usage)
  if not attempt.ended then
    e = reader.verdict(attempt)
    assert(e == nil or err.is(e), "a verdict of ours")
  end
  reader.said(attempt)
  openai.usage(attempt.usage)
end


return _M
