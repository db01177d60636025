-- Tokens where no usage is known yet: of a prompt, bytes / 3.5 of its text and
-- 8 for each message (or what a local model's tokenizer counts); of an answer,
-- what its model has answered with lately. Never zero, so that nothing passes
-- for free. What was used in the end is in usage.lua.
--
-- SPDX-License-Identifier: MIT
local ceil, floor, max = math.ceil, math.floor, math.max

local BYTES_PER_TOKEN = 3.5
local PER_MESSAGE = 8
local PER_PART = 256            -- a part that is no text (an image, a file)
local OUTPUT = 256              -- an answer's, before the first was seen
local WEIGHT = 0.1              -- of a new answer in the average
local MODELS_MAX = 1024         -- whose answers are remembered apart
local DEPTH_MAX = 32

local _M = {}


-- Of so many bytes of text.
function _M.of_bytes(size)
  return ceil(size / BYTES_PER_TOKEN)
end


-- Of how many bytes one would say so many tokens.
function _M.bytes(count)
  return floor(count * BYTES_PER_TOKEN)
end


function _M.of_text(text)
  return ceil(#text / BYTES_PER_TOKEN)
end


-- The bytes of a value as JSON, about; no text is made of it.
local function size_of(value, depth)
  if type(value) == "string" then
    return #value + 3
  elseif type(value) ~= "table" or depth > DEPTH_MAX then
    return 5
  end
  local sum = 2
  for name, inner in pairs(value) do
    sum = sum + size_of(inner, depth + 1)
          + (type(name) == "string" and #name + 3 or 0)
  end
  return sum
end


-- Tokens of a content: a text, or a list of parts. `count` is of_text, or a
-- tokenizer's.
local function of_content(content, count)
  if type(content) == "string" then
    return count(content)
  end
  local sum = 0
  for _, part in ipairs(type(content) == "table" and content or {}) do
    local text = type(part) == "table" and part.text
    sum = sum + (type(text) == "string" and count(text) or PER_PART)
  end
  return sum
end


local function of_message(m, count)
  local sum = PER_MESSAGE + of_content(m.content, count)
  if m.tool_calls then
    sum = sum + ceil(size_of(m.tool_calls, 1) / BYTES_PER_TOKEN)
  end
  return sum
end


-- The prompt tokens of a list of chat messages; `count` may be nil.
function _M.of_messages(messages, count)
  count = count or _M.of_text
  local sum = 0
  for i = 1, #messages do
    sum = sum + of_message(messages[i], count)
  end
  return sum
end


-- What goes into a prompt beside its messages.
local BESIDE = { "tools", "functions", "response_format", "prompt", "input" }


-- The prompt tokens of a request, at least 1. `count(text)` is a tokenizer,
-- or nil.
function _M.of_request(request, count)
  local messages = request.messages
  local sum = messages and _M.of_messages(messages, count) or 0
  for i = 1, #BESIDE do
    local value = request[BESIDE[i]]
    if value ~= nil then
      sum = sum + ceil(size_of(value, 1) / BYTES_PER_TOKEN)
    end
  end
  return max(1, sum)
end


-- ---- answers ----

-- Remembers how long answers are, model by model.
function _M.lengths()
  return { count = 0, of = {} }
end


-- How many tokens an answer of `model` (may be nil) is expected to have.
function _M.expect(lengths, model)
  return ceil(lengths.of[model or ""] or lengths.of[""] or OUTPUT)
end


-- An answer of `model` had so many.
function _M.learn(lengths, model, count)
  local of = lengths.of
  model = model or ""
  local old = of[model]
  if not old then
    if lengths.count >= MODELS_MAX then
      model = ""                -- a flood of names shares one average
    end
    lengths.count = lengths.count + (of[model] and 0 or 1)
    old = of[model] or OUTPUT
  end
  of[model] = old + WEIGHT * (count - old)
end


return _M
