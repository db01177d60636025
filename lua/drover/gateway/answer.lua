-- What an error looks like over HTTP: status, headers and a body in OpenAI's
-- shape. Knows no server.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"

local _M = {}

_M.STATUS = {
  bad_request = 400, context_too_long = 400, content_policy = 400,
  not_found = 404, too_large = 413, quota = 429, rate_limited = 429,
  no_node = 503, overloaded = 503, resource = 503, timeout = 504,
  cancelled = 499, internal = 500,
}                                     -- all else is the upstream's: 502

local CODES = {
  context_too_long = "context_length_exceeded", not_found = "model_not_found",
  content_policy = "content_policy_violation",
  rate_limited = "rate_limit_exceeded", quota = "insufficient_quota",
}
local RETRY_AFTER = 1                 -- seconds, when nobody knows better


local function type_of(status)
  if status == 429 then return "rate_limit_error" end
  return status < 500 and "invalid_request_error" or "server_error"
end


-- The body of an error; `param` and `code` may be nil.
function _M.body(status, message, param, code)
  return json.encode({ error = {
    message = message,
    type = type_of(status),
    param = param or json.null,
    code = code or json.null,
  } })
end


local function retry_after(err, status)
  if status ~= 429 and status ~= 503 then return nil end
  local seconds = tonumber(err.retry_after) or RETRY_AFTER
  return math.max(1, math.min(3600, math.ceil(seconds)))
end


-- Lists count from 1 in Lua and from 0 over HTTP.
local function from_zero(field)
  return (field:gsub("%[(%d+)%]", function(i)
    return "[" .. tonumber(i) - 1 .. "]"
  end))
end


-- What an error says to a client, and the field it is about. Of a request
-- that was refused here: a sentence; else what logs say.
local function words(err, status)
  if err.status or status >= 500 or status == 429 then
    return tostring(err), err.param
  end
  local message, param = err.message, err.param
  local why = param and message:match("^[^%s:]+: (.*)")
  if why then
    param = from_zero(param)
    return "Invalid value for '" .. param .. "': " .. why .. ".", param
  end
  return message:sub(1, 1):upper() .. message:sub(2) .. ".", param
end


-- "false" where a client's own retry would be of no use: the request itself
-- is at fault, or we have sent it already and done the retries. nil leaves
-- the client to its own rules: nothing was sent, and later there may be room.
local function should_retry(err, status)
  if #err.attempts > 0 or status < 500 and status ~= 429 then
    return "false"
  end
end


-- err -> status, body, headers. `err` is a drover error.
function _M.from_err(err)
  local status = _M.STATUS[err.kind] or 502
  local code = CODES[err.kind]
  if type(err.code) == "string" and status < 500 then code = err.code end
  local message, param = words(err, status)
  return status, _M.body(status, message, param, code or err.kind), {
    ["x-should-retry"] = should_retry(err, status),
    ["retry-after"] = retry_after(err, status),
  }
end


-- A stream that fails after its content: the last event, and no [DONE].
function _M.sse(err)
  local status = _M.STATUS[err.kind] or 502
  local code = CODES[err.kind] or err.kind
  local message, param = words(err, status)
  return "data: " .. _M.body(status, message, param, code) .. "\n\n"
end


return _M
