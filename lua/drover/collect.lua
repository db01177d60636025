-- Joins the events of a stream into the reply that the same request would
-- have given without streaming.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"

local concat = table.concat

local _M = {}

local mt = {}
mt.__index = mt


function _M.new()
  return setmetatable({ choices = {}, top = -1 }, mt)
end


local function choice_of(self, index)
  local choice = self.choices[index]
  if not choice then
    choice = { text = {}, tools = {} }
    self.choices[index] = choice
    if index > self.top then
      self.top = index
    end
  end
  return choice
end


-- Calls are kept by index; a second id under one index is a new call.
local function add_tool(choice, part)
  local place = choice.tools[part.index]
  local call = place and choice.tools.list[place]
  if not call or part.id and call.id and part.id ~= call.id then
    choice.tools.list = choice.tools.list or {}
    call = { arguments = {} }
    choice.tools.list[#choice.tools.list + 1] = call
    choice.tools[part.index] = #choice.tools.list
  end
  call.id = call.id or part.id
  call.name = call.name or part.name
  local pieces = call.arguments
  if part.arguments ~= "" then
    pieces[#pieces + 1] = part.arguments
  end
end


local function add_piece(choice, name, piece)
  local list = choice[name] or {}
  choice[name] = list
  list[#list + 1] = piece
end


-- Take one event in.
function mt:add(event)
  if event.usage then
    self.usage = event.usage
  end
  local choice = self.choices[event.index] or choice_of(self, event.index)
  local text = event.text
  if text then
    local list = choice.text
    list[#list + 1] = text
  end
  if event.reasoning then
    add_piece(choice, "reasoning", event.reasoning)
  end
  if event.logprobs then
    choice.logprobs = choice.logprobs or {}
    for _, entry in ipairs(event.logprobs) do
      choice.logprobs[#choice.logprobs + 1] = entry
    end
  end
  if event.refusal then
    add_piece(choice, "refusal", event.refusal)
  end
  if event.tool_call then
    add_tool(choice, event.tool_call)
  end
  if event.finish_reason then
    choice.finish_reason = event.finish_reason
  end
end


local function tools_of(choice)
  local list = choice.tools.list
  if not list then
    return nil
  end
  local out = {}
  for i, call in ipairs(list) do
    local arguments = concat(call.arguments)
    out[i] = {
      id = call.id or "call_" .. i, type = "function",
      ["function"] = { name = call.name or "",
                       arguments = arguments ~= "" and arguments or "{}" },
    }
  end
  return out
end


local function message_of(choice)
  local tools = tools_of(choice)
  local text = concat(choice.text)
  local bare = text == "" and (tools or choice.refusal)
  return {
    role = "assistant", content = not bare and text or nil,
    reasoning_content = choice.reasoning and concat(choice.reasoning) or nil,
    refusal = choice.refusal and concat(choice.refusal) or nil,
    tool_calls = tools,
  }
end


-- The reply so far. `opening` is the JSON of the first chunk, which has its
-- id, model and time; `usage` the counts, which may have come apart.
function mt:reply(opening, usage)
  local first = opening and json.decode(opening)
  first = type(first) == "table" and first or {}
  local reply = {
    id = first.id, object = "chat.completion", created = first.created,
    model = first.model, system_fingerprint = first.system_fingerprint,
    choices = {}, usage = usage or self.usage,
  }
  for index = 0, self.top do
    local choice = self.choices[index]
    if choice then
      reply.choices[#reply.choices + 1] = {
        index = index, message = message_of(choice),
        logprobs = choice.logprobs and { content = choice.logprobs } or nil,
        finish_reason = choice.finish_reason,
      }
    end
  end
  return reply
end


return _M
