-- What an attempt has used: by the node's own figures where they can be
-- believed, else by an estimate. Absent usage is never zero. Pure.
--
-- SPDX-License-Identifier: MIT
local tokens = require "drover.tokens"

local min = math.min

local FACTOR = 4                -- times max_tokens; above that it is absurd
local TOKENS_MAX = 2 ^ 24       -- likewise; no context window is as long

local _M = {}


-- The most tokens that an answer to this request may be said to have.
local function most_of(call)
  local most, n = call.max_tokens, call.request.n
  if not most then
    return TOKENS_MAX
  end
  return min(TOKENS_MAX, FACTOR * most * (type(n) == "number" and n or 1))
end


-- The usual case: nothing to mend.
local function is_sound(said, most)
  local input, output = said.prompt_tokens, said.completion_tokens
  return input > 0 and input <= TOKENS_MAX and output > 0 and output <= most
         and said.cached_tokens <= input
end


-- { prompt_tokens, completion_tokens, cached_tokens } and whether that is
-- estimated; nil when the node was not asked to do anything.
--
-- `said`: what a provider's usage() read, or nil; `prompt`: the estimate of
-- the prompt; `billed`: it went well, or the node may have worked on it;
-- `count(x)`: bytes of the text that came, asked for only where it matters.
function _M.of(said, call, prompt, billed, count, x)
  if not said and not billed then
    return nil, false
  end
  local most = most_of(call)
  if said and is_sound(said, most) then
    return said, false
  end
  local input = said and said.prompt_tokens or 0
  local output = said and said.completion_tokens or 0
  local estimated = false
  if input == 0 or input > TOKENS_MAX then
    input, estimated = prompt, true
  end
  if output > most or output == 0 then
    local bytes = count(x)
    if output > 0 or bytes > 0 then
      output, estimated = min(most, tokens.of_bytes(bytes)), true
    end
  end
  return {
    prompt_tokens = input, completion_tokens = output,
    cached_tokens = min(input, said and said.cached_tokens or 0),
  }, estimated
end


return _M
