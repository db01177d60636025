-- Token estimates where no tokenizer is at hand: bytes / 3.5 of the text and
-- 8 for each message. Never zero, so that nothing passes a limit for free.
--
-- SPDX-License-Identifier: MIT
local ceil = math.ceil

local BYTES_PER_TOKEN = 3.5
local PER_MESSAGE = 8
local PER_PART = 256            -- a part that is no text (an image, a file)

local _M = {}


function _M.of_text(text)
  return ceil(#text / BYTES_PER_TOKEN)
end


local function of_content(content)
  if type(content) == "string" then
    return _M.of_text(content)
  end
  local sum = 0
  for _, part in ipairs(type(content) == "table" and content or {}) do
    local text = type(part) == "table" and part.text
    sum = sum + (type(text) == "string" and _M.of_text(text) or PER_PART)
  end
  return sum
end


-- The prompt tokens of a list of chat messages.
function _M.of_messages(messages)
  local sum = 0
  for i = 1, #messages do
    sum = sum + PER_MESSAGE + of_content(messages[i].content)
  end
  return sum
end


return _M
