-- Puts one request on the wire, or into the local engine. Knows how to fill
-- the C structs; the C side copies everything before it returns.
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"
local buffer = require "string.buffer"
local ffi = require "ffi"
local C = require "drover.core"
local err_new = require("drover.err").new
local from_c = require("drover.err").from_c
local prompts = require "drover.prompt"

local ceil = math.ceil
local concat = table.concat
local sort = table.sort

local _M = {}

local config = ffi.new("drover_call_config")
local generate = ffi.new("drover_generate")
local out = ffi.new("drover_call *[1]")
local c_err = ffi.new("drover_err")
local scratch = buffer.new()                    -- a body on its way to C
local heads = buffer.new()                      -- and its headers
local lead                      -- of this process's idempotency keys

local TIMEOUT = "x-request-timeout-ms: "


local function header_text(headers)
  local lines = {}
  for name, value in pairs(headers) do
    lines[#lines + 1] = name .. ": " .. value .. "\n"
  end
  sort(lines)
  return concat(lines)
end


-- The header lines of a row's calls; made once, until its key changes.
local function row_headers(row, stream)
  local cache = row.header_cache
  if not cache or cache.key ~= row.key then
    cache = { key = row.key }
    row.header_cache = cache
  end
  local text = cache[stream]
  if not text then
    text = header_text(row.provider.headers { key = row.key,
                                              stream = stream })
    cache[stream] = text
  end
  return text
end


-- Random, and made in the process that sends: forked ones share our tables.
local function make_lead()
  lead = ("idempotency-key: drover-%s-"):format(
    bit.tohex(tonumber(C.drover_entropy() % 2 ^ 32))
    .. bit.tohex(tonumber(C.drover_entropy() % 2 ^ 32)))
end


-- The caller's header lines, and of ours those that it does not name.
local function put_beside(more, limits, ms)
  local own = "\n" .. more:lower()
  heads:put(more)
  if not own:find("\nx-request-timeout-ms:", 1, true) then
    heads:put(TIMEOUT, ms, "\n")
  end
  if not own:find("\nidempotency-key:", 1, true) then
    heads:put(lead, limits.serial, "\n")
  end
end


-- The header lines of one attempt, in `heads`: those of its row, of its
-- caller, how long we shall wait, and the same key for all attempts of a
-- request.
local function put_headers(row, stream, more, limits)
  local ms = ceil(limits.total * 1000)
  if not lead then
    make_lead()
  end
  heads:reset():put(row_headers(row, stream))
  if more then
    put_beside(more, limits, ms)
  else
    heads:put(TIMEOUT, ms, "\n", lead, limits.serial, "\n")
  end
  return heads:ref()
end


-- Send over HTTP. `limits`: the deadlines in seconds (`total` above 0; others
-- may be 0: none), and `serial`, the request's number here. Returns the call's handle, or nil and
-- an error (then no event comes).
function _M.http(port, number, row, call, limits)
  local stream = call.stream and true or false
  local models = row.models
  local model = call.model
  local headers, headers_size = put_headers(row, stream, call.headers, limits)
  local url = row.base_url .. row.provider.PATH
  call.body:put(scratch:reset(), model and models and models[model] or model)
  local body, size = scratch:ref()
  config.call, config.stream = number, stream and 1 or 0
  config.method, config.url = "POST", url
  config.unix_path, config.ca_file = row.unix_path, row.ca_file
  config.headers, config.headers_size = headers, headers_size
  config.body, config.body_size = body, size
  config.connect, config.total = limits.connect, limits.total
  config.first_token, config.idle = limits.first_token, limits.idle
  local code = C.drover_call_http(out, port, config, c_err)
  if code ~= 0 then
    return nil, from_c(code, c_err, { node = row.id, phase = "send" })
  end
  return out[0]
end


local function fill_stop(stop)
  local array = ffi.new("drover_text[?]", math.max(1, #stop))
  for i, text in ipairs(stop) do
    array[i - 1].data, array[i - 1].size = text, #text
  end
  generate.stop, generate.stop_count = array, #stop
  return array
end


local function fill_bias(list)
  local array = ffi.new("drover_bias[?]", math.max(1, #list))
  for i, pair in ipairs(list) do
    array[i - 1].token, array[i - 1].bias = pair[1], pair[2]
  end
  generate.bias, generate.bias_count = array, #list
  return array
end


local none = {}
local formats = { json_object = C.DROVER_FORMAT_JSON,
                  json_schema = C.DROVER_FORMAT_SCHEMA }


-- What a request may leave out. Returns what must stay alive.
local function fill_rest(g)
  local ids = g.stop_ids or none
  local stop_ids = ffi.new("int32_t[?]", math.max(1, #ids), ids)
  generate.stop_id, generate.stop_id_count = stop_ids, #ids
  generate.min_p, generate.repetition = g.min_p or 0, g.repetition or 0
  generate.presence = g.presence or 0
  generate.frequency = g.frequency or 0
  generate.n, generate.logprobs = g.n or 1, g.logprobs or 0
  generate.top_logprobs = g.top_logprobs or 0
  generate.format = formats[g.format] or C.DROVER_FORMAT_TEXT
  generate.schema.data = g.schema
  generate.schema.size = g.schema and #g.schema or 0
  return { stop_ids, fill_bias(g.bias or none) }
end


-- What the engine refused; its texts begin with the field, as ours do.
local function engine_error(row, code, text)
  local e = from_c(code, text, { node = row.id, phase = "send" })
  if e.kind == "bad_request" then
    e.param = e.message:match("^([%w_%[%].]+): ")
  elseif e.kind == "context_too_long" then
    e.param = "messages"
  end
  return e
end


-- The prompt of messages by the row's template (a text, with its marks), or nil
-- and why not.
local function render(row, messages)
  if row.prompts == nil then
    local prompt, why = prompts.new(C.drover_engine_model(row.engine),
                                    row.template)
    row.prompts = prompt or why
  end
  if type(row.prompts) == "string" then
    return nil, row.prompts
  end
  local text, why, kind = row.prompts:render(messages, {
    now = math.floor(C.drover_clock_wall()),
  })
  if not text then
    return nil, "messages: the model's chat template "
                .. (kind == "raise" and "refuses them: " or "fails: ") .. why
  end
  return text
end


-- Hand the request to the engine of a local row. As http(). The pick's
-- priority is the engine's too; its key parts one tenant's prompts in the
-- cache from another's.
function _M.engine(port, number, row, call, limits, pick)
  local g, why = row.provider.encode(call)
  local text
  if g then
    text, why = render(row, g.messages)
  end
  if not text then
    return nil, err_new("bad_request", why, {
      node = row.id, phase = "send", param = why:match("^([%w_%[%].]+): "),
    })
  end
  local stop, rest = fill_stop(g.stop), fill_rest(g)
  generate.prompt.data, generate.prompt.size = text, #text
  generate.call = number
  generate.max_tokens, generate.temperature = g.max_tokens, g.temperature
  generate.top_k, generate.top_p = g.top_k, g.top_p
  generate.seed = g.seed or C.drover_entropy()
  generate.priority, generate.salt = pick.priority, pick.key
  generate.first_token, generate.total = limits.first_token, limits.total
  local code = C.drover_call_engine(out, port, row.engine, generate, c_err)
  generate.prompt.data, generate.stop = nil, nil
  generate.bias, generate.stop_id, generate.schema.data = nil, nil, nil
  if code ~= 0 and text and stop and rest then
    return nil, engine_error(row, code, c_err)
  end
  return out[0]
end


return _M
