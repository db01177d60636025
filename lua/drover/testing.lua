-- For people's own specs: a fake server, a fake clock, replies in OpenAI's
-- shape, and whether a policy compiles. No spec needs a sleep.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"

local _M = {}


-- A server on loopback that gives these replies in turn; see
-- testing/server.lua for what a reply may say.
function _M.server(replies, opts)
  return require("drover.testing.server").start(replies, opts)
end


-- A reply of one chat completion that says `text`.
function _M.reply(text, usage)
  return {
    status = 200,
    body = {
      id = "chatcmpl-test", object = "chat.completion", created = 1700000000,
      model = "test-model",
      choices = { { index = 0, finish_reason = "stop",
                    message = { role = "assistant", content = text } } },
      usage = usage or { prompt_tokens = 5, completion_tokens = 2,
                         total_tokens = 7 },
    },
  }
end


local function chunk(delta, finish)
  return {
    id = "chatcmpl-test", object = "chat.completion.chunk",
    created = 1700000000, model = "test-model",
    choices = { { index = 0, delta = delta, finish_reason = finish
                                                            or json.null } },
  }
end


-- A reply that streams these pieces of text.
function _M.stream(pieces, usage)
  if type(pieces) ~= "table" then
    error("testing.stream: a list of texts is wanted, got " .. type(pieces), 2)
  end
  local sse = { chunk { role = "assistant", content = "" } }
  for _, piece in ipairs(pieces) do
    sse[#sse + 1] = chunk { content = piece }
  end
  sse[#sse + 1] = chunk({}, "stop")
  local last = chunk {}
  last.choices = json.array {}
  last.usage = usage or { prompt_tokens = 5, completion_tokens = #pieces,
                          total_tokens = 5 + #pieces }
  sse[#sse + 1] = last
  sse[#sse + 1] = "[DONE]"
  return { sse = sse }
end


-- An error reply in OpenAI's shape.
function _M.error(status, message, fields)
  fields = fields or {}
  return {
    status = status, headers = fields.headers,
    body = { error = { message = message, type = fields.type or "error",
                       code = fields.code or json.null } },
  }
end


-- A clock that stands still until it is told to go on.
function _M.clock(start)
  local clock = { time = start or 0, slept = 0 }

  function clock.now()
    return clock.time
  end

  function clock.advance(s)
    clock.time = clock.time + s
  end

  function clock.sleep(s)
    clock.slept = clock.slept + s
    clock.time = clock.time + s
  end

  return clock
end


-- Does this policy run compiled? true, or false and the reasons why traces
-- were given up. A policy that does not is some 50 times slower.
function _M.compiles(policy)
  return require("drover.testing.compiles").check(policy)
end


return _M
