-- One request, checked and worked out once: its body, its model's hash, its
-- size in tokens, the hash of its prompt's beginning, its options. Whatever
-- node it goes to, and however often, this is not done again.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local body = require "drover.body"
local check = require "drover.check"
local config = require "drover.config"
local json = require "drover.json"
local limits = require "drover.limits"
local tokens = require "drover.tokens"

local _M = {}

local PREFIX_BYTES = 1024       -- of the prompt; what prefix affinity hashes
local N_MAX = 128
local TOKENS_MAX = 2 ^ 31
local COUNTED_MAX = 4096        -- counting that many takes some 2 ms

local chat_fields = {
  model = { "string" },
  max_tokens = { "number", 1, 2 ^ 31 - 1, integer = true },
  max_completion_tokens = { "number", 1, 2 ^ 31 - 1, integer = true },
  temperature = { "number", 0, 100 },
  top_p = { "number", 0, 1 },
  n = { "number", 1, N_MAX, integer = true },
  stream = { "boolean" },
  stream_options = { "table" },
  stop = { "string|table" },
  tools = { "table" },
  seed = { "number", -2 ^ 53, 2 ^ 53, integer = true },
}

local chat_names = {}
for name in pairs(chat_fields) do
  chat_names[#chat_names + 1] = name
end
table.sort(chat_names)

_M.opts_fields = {
  timeout = { "number|table" },
  key = { "string" },
  node = { "string" },
  policy = { "string|function|table" },
  headers = { "table" },
  tags = { "table" },
  priority = { "string", one_of = { "interactive", "default", "batch" } },
  session = { later = true },
}

local priorities = {
  interactive = C.DROVER_INTERACTIVE, default = C.DROVER_DEFAULT,
  batch = C.DROVER_BATCH,
}

local pick_t = ffi.typeof("drover_pick")


local function check_message(m)
  if type(m) ~= "table" then
    return ": must be a table, " .. check.is(m)
  end
  local role, content = m.role, m.content
  if type(role) ~= "string" or role == "" then
    return ".role: must be a string"
  end
  if type(content) == "string" or type(content) == "table"
     or content == nil and (m.tool_calls ~= nil or m.refusal ~= nil
                            or m.function_call ~= nil) then
    return nil
  end
  return ".content: must be a string or a list of parts"
end


-- The first sentence about a message that is wrong, or nil.
local function check_messages(messages)
  if type(messages) ~= "table" then
    return "messages: must be a list, " .. check.is(messages)
  end
  if #messages == 0 then
    return "messages: must be a list with at least 1 entry"
  end
  for i = 1, #messages do
    local why = check_message(messages[i])
    if why then
      return "messages[" .. i .. "]" .. why
    end
  end
end


local function check_chat(request)
  for i = 1, #chat_names do
    local name = chat_names[i]
    local value = request[name]
    local why = value ~= nil and value ~= json.null
                and check.value(value, chat_fields[name])
    if why then
      return name .. ": " .. why
    end
  end
  return check_messages(request.messages)
end


-- What the transport and the node's key decide.
local reserved = {
  authorization = true, ["content-type"] = true, ["content-length"] = true,
  host = true, ["transfer-encoding"] = true, connection = true,
  expect = true, accept = true, ["accept-encoding"] = true,
}


-- The lines of opts.headers, or nil and what is wrong.
local function header_lines(headers)
  local err = ffi.new("drover_err")
  local lines = {}
  for name, value in pairs(headers) do
    if type(name) ~= "string" or type(value) ~= "string" then
      return nil, "opts.headers: names and values must be strings"
    end
    if reserved[name:lower()] then
      return nil, "opts.headers: " .. name .. " is set by the router"
    end
    if C.drover_header_check(name, #name, value, #value, err) ~= 0 then
      return nil, "opts.headers: " .. ffi.string(err.text)
    end
    lines[#lines + 1] = name .. ": " .. value .. "\n"
  end
  table.sort(lines)
  return table.concat(lines)
end


-- Check the options of one request. Returns { timeout, headers, … }, or nil
-- and what is wrong.
function _M.options(opts, timeout)
  if opts == nil then
    return { timeout = timeout }
  end
  if type(opts) ~= "table" then
    return nil, "opts: must be a table, " .. check.is(opts)
  end
  local why = check.fields(opts, _M.opts_fields, "opts")
  if why then
    return nil, why
  end
  local out = { node = opts.node, policy = opts.policy, key = opts.key,
                tags = opts.tags, priority = opts.priority,
                timeout = timeout }
  if opts.timeout ~= nil then
    out.timeout, why = config.timeout(opts.timeout, timeout, "opts.timeout")
  end
  if not why and opts.headers then
    out.headers, why = header_lines(opts.headers)
  end
  if why then
    return nil, why
  end
  return out
end


local function string_or_nil(x)
  return type(x) == "string" and x or nil
end


local function number_or_nil(x)
  return type(x) == "number" and x or nil
end


-- What a decision needs to know of a request (a table). One constructor, so
-- that the table has its size from the start.
local function measure(request, stream, text)
  local messages, options = request.messages, request.stream_options
  local first = messages and messages[1]
  local begins = first and (type(first.content) == "string" and first.content
                            or json.encode(first.content)) or nil
  if begins and #begins > PREFIX_BYTES then
    begins = begins:sub(1, PREFIX_BYTES)
  end
  local call = {
    request = request, stream = stream, body = text,
    model = string_or_nil(request.model),
    max_tokens = number_or_nil(request.max_completion_tokens)
                 or number_or_nil(request.max_tokens),
    prompt_tokens = tokens.of_request(request),
    prefix = begins,
  }
  if type(options) == "table" and options.include_usage == true then
    call.usage_asked = true
  end
  return call
end


-- The text and the table of a request, given as either.
local function parts(request)
  local text, checked = json.raw_text(request)
  if checked then
    return checked, text, nil, true
  elseif not text then
    if type(request) ~= "table" then
      return nil, nil, "request: must be a table, " .. check.is(request)
    end
    return request, nil
  end
  local err = ffi.new("drover_err")
  if C.drover_json_check(text, #text, err) ~= 0 then
    return nil, nil, "request: " .. ffi.string(err.text)
  end
  local value = json.decode(text)
  if type(value) ~= "table" or value == json.null or value[1] ~= nil then
    return nil, nil, "request: must be a JSON object"
  end
  return value, text
end


-- Check and measure a chat request; `stream` says how it will be asked.
-- Returns a call, or nil and a sentence that names the field.
function _M.chat(request, stream)
  local t, text, why, checked = parts(request)
  if not checked then
    why = why or check_chat(t)
  end
  if not why and not stream and t.stream == true then
    why = "stream: must not be true here, use router:stream"
  end
  if why then
    return nil, why
  end
  local written
  if text then
    written = body.of_text(text, stream)
  else
    written, why = body.of_table(t, stream)
    if not written then
      return nil, why
    end
  end
  return measure(t, stream, written)
end


-- Check and measure a request of which only the decision is wanted.
function _M.decision(request)
  if type(request) ~= "table" then
    return nil, "request: must be a table, " .. check.is(request)
  end
  if request.model ~= nil and type(request.model) ~= "string" then
    return nil, "model: must be a string"
  end
  local why = request.messages ~= nil and check_messages(request.messages)
  if why then
    return nil, why
  end
  return measure(request, false, nil)
end


local function hash(text)
  return text and C.drover_hash(text, #text) or 0
end


-- The tokens that an attempt is booked with. Where a rate of tokens or money
-- is limited, a prompt for a local model is counted by its tokenizer, unless
-- that would keep others waiting.
local function book(p, call, router)
  local request = call.request
  local prompt = call.prompt_tokens
  if router.metered and prompt <= COUNTED_MAX then
    local count = router.fleet:tokenizer(call.model)
    prompt = count and tokens.of_request(request, count) or prompt
  end
  local n = number_or_nil(request.n) or 1
  p.prompt_tokens = math.min(prompt, TOKENS_MAX)
  p.max_tokens = math.min(TOKENS_MAX, n * (call.max_tokens
                          or tokens.expect(router.lengths, call.model)))
end


-- A drover_pick for this call on a router. What it books is kept in it, so
-- whoever settles finds the prompt's estimate there.
function _M.pick(call, opts, router)
  local p = pick_t()
  p.model = hash(call.model)
  p.prefix = hash(call.prefix)
  p.key = hash(opts.key)
  p.priority = priorities[opts.priority] or C.DROVER_DEFAULT
  book(p, call, router)
  limits.point(router, p, call, opts)
  return p
end


return _M
