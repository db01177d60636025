-- A chat request as it came over HTTP: JSON to a request table, or what is
-- wrong with it and in which field. Knows no server and no router.
--
-- SPDX-License-Identifier: MIT
local ffi = require "ffi"
local C = require "drover.core"
local json = require "drover.json"

local format, concat = string.format, table.concat

local _M = {}

local MESSAGES_MAX = 4096
local OBJECT = ("{"):byte()
local QUOTE = ('"'):byte()
local TWICE = "model\0stream\0"      -- must not be said twice and differently
local scan_err = ffi.new("drover_err")
local places = ffi.new("drover_span[2]")


local function named(value)
  local kind = type(value)
  if value == json.null then return "null" end
  if kind == "number" then
    return value % 1 == 0 and "an integer" or "a number"
  end
  if kind == "table" then return #value > 0 and "an array" or "an object" end
  return "a " .. kind
end


local function wrong_type(param, wanted, value)
  return { param = param, code = "invalid_type",
           message = format("Invalid type for '%s': expected %s, but got %s "
                            .. "instead.", param, wanted, named(value)) }
end


local function wrong_value(param, why)
  return { param = param, code = "invalid_value",
           message = format("Invalid value for '%s': %s.", param, why) }
end


local function missing(param)
  return { param = param, code = "missing_required_parameter",
           message = format("Missing required parameter: '%s'.", param) }
end


local function check_number(low, high, whole)
  local wanted = whole and "an integer" or "a number"
  return function(value, param)
    if type(value) ~= "number" or whole and value % 1 ~= 0 then
      return wrong_type(param, wanted, value)
    end
    if not (value >= low and value <= high) then
      return wrong_value(param, format("must be from %.16g to %.16g", low,
                                       high))
    end
  end
end


local function check_kind(kind, wanted)
  return function(value, param)
    if type(value) ~= kind then return wrong_type(param, wanted, value) end
  end
end


local function check_stop(value, param)
  if type(value) == "string" then return nil end
  if type(value) ~= "table" then
    return wrong_type(param, "a string or an array of strings", value)
  end
  for i, stop in ipairs(value) do
    if type(stop) ~= "string" then
      return wrong_type(format("%s[%d]", param, i - 1), "a string", stop)
    end
  end
end


local function check_message(message, param)
  if type(message) ~= "table" or message == json.null or #message > 0 then
    return wrong_type(param, "an object", message)
  end
  if message.role == nil then return missing(param .. ".role") end
  if type(message.role) ~= "string" then
    return wrong_type(param .. ".role", "a string", message.role)
  end
  local content = message.content
  if content == nil and not (message.tool_calls or message.refusal
                             or message.function_call) then
    return missing(param .. ".content")
  elseif content ~= nil and type(content) ~= "string"
         and type(content) ~= "table" then
    return wrong_type(param .. ".content", "a string or an array", content)
  end
end


local function check_messages(value, param)
  if type(value) ~= "table" or value == json.null
     or #value == 0 and next(value) then
    return wrong_type(param, "an array of objects", value)
  end
  if #value == 0 then return wrong_value(param, "must not be empty") end
  if #value > MESSAGES_MAX then
    return wrong_value(param, format("has %d entries, at most %d "
                                     .. "are taken", #value, MESSAGES_MAX))
  end
  for i, message in ipairs(value) do
    local problem = check_message(message, format("%s[%d]", param, i - 1))
    if problem then return problem end
  end
end


local function check_stream_options(value, param)
  if type(value) ~= "table" then
    return wrong_type(param, "an object", value)
  end
  local asked = value.include_usage
  if asked ~= nil and type(asked) ~= "boolean" then
    return wrong_type(param .. ".include_usage", "a boolean", asked)
  end
end


local function check_model(value, param)
  if type(value) ~= "string" then
    return wrong_type(param, "a string", value)
  end
  if value == "" then return missing(param) end
end


local FIELDS = {
  model = check_model,
  messages = check_messages,
  stream = check_kind("boolean", "a boolean"),
  stream_options = check_stream_options,
  temperature = check_number(0, 2),
  top_p = check_number(0, 1),
  top_k = check_number(0, 1e6, true),
  n = check_number(1, 128, true),
  max_tokens = check_number(1, 2 ^ 31 - 1, true),
  max_completion_tokens = check_number(1, 2 ^ 31 - 1, true),
  presence_penalty = check_number(-2, 2),
  frequency_penalty = check_number(-2, 2),
  seed = check_number(-2 ^ 53, 2 ^ 53, true),
  stop = check_stop,
  tools = check_kind("table", "an array"),
  user = check_kind("string", "a string"),
}
local ORDER = {}                      -- of the answers, not of pairs()
for name in pairs(FIELDS) do ORDER[#ORDER + 1] = name end
table.sort(ORDER)


-- Whoever reads the first of two equal keys would route otherwise than the
-- one who reads the last; so they must agree. cjson keeps the last. `place`
-- is where the first one's value stands.
local function same_first(text, place, value)
  if place.type == 0 then return value == nil end
  local from, to = tonumber(place.start) + 1, tonumber(place.stop)
  if place.type == QUOTE and text:sub(from + 1, to - 1) == value
     and not value:find("\\", 1, true) then
    return true                       -- without an escape it says itself
  end
  local first = text:sub(from, to)
  return first == "null" and value == nil or json.decode(first) == value
end


local function not_parsed(why)
  return { message = "We could not parse the JSON body of your request: "
                     .. why .. "." }
end


local function not_json(text)
  if C.drover_json_members(text, #text, TWICE, 2, places, scan_err) == 0 then
    return nil
  end
  if not text:find("%S") then return { message = "The body is empty." } end
  return not_parsed((ffi.string(scan_err.text):gsub("^not JSON: ", "")))
end


-- What the decoder refuses though it is JSON: half of a surrogate pair.
local function not_decoded(why)
  local place = why:match("character (%d+)$")
  return not_parsed("an escape stands for no character" .. (place
    and format(", at byte %d", place - 1) or ""))
end


-- text -> request, or nil and { message, param, code }.
function _M.read(text)
  local problem = not_json(text)
  if problem then return nil, problem end
  local request, why = json.decode(text)
  if why then return nil, not_decoded(why) end
  if type(request) ~= "table" or request == json.null
     or text:byte() ~= OBJECT and not text:find("^%s*{") then
    return nil, { message = "The JSON body must be an object." }
  end
  if request.model == nil then return nil, missing("model") end
  if request.messages == nil then return nil, missing("messages") end
  for i = 1, #ORDER do
    local name = ORDER[i]
    local value = request[name]
    problem = value ~= nil and FIELDS[name](value, name)
    if problem then return nil, problem end
  end
  if not same_first(text, places[0], request.model)
     or not same_first(text, places[1], request.stream) then
    return nil, { message = "The JSON body names 'model' or 'stream' twice." }
  end
  return request
end


-- The x-request-id of a caller, when it is fit to be repeated.
function _M.request_id(given)
  if type(given) == "string" and #given >= 1 and #given <= 128
     and given:find("^[%w%._:/+=-]+$") then
    return given
  end
end


-- Seconds that a caller waits, of its x-request-timeout-ms; or nil, and what
-- is wrong where there is one that cannot be read.
function _M.timeout(given)
  if given == nil then return nil end
  local ms = given:find("^%d+$") and tonumber(given) or 0
  if ms >= 1 then return ms / 1000 end
  return nil, wrong_value("x-request-timeout-ms",
                          "must be a whole number of milliseconds, 1 or more")
end


-- The list that /v1/models answers.
function _M.models(names, created)
  local list = {}
  for i, name in ipairs(names) do list[i] = _M.model(name, created) end
  return '{"object":"list","data":[' .. concat(list, ",") .. "]}"
end


function _M.model(name, created)
  return json.encode({ id = name, object = "model", created = created,
                       owned_by = "drover" })
end


return _M
