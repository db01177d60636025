-- What an error answer means: one order of questions over code, type,
-- header class, phrase and status, the same for all OpenAI-like dialects.
-- Pure. First hit wins; a digit in a message is never a status.
--
-- SPDX-License-Identifier: MIT
local json = require "drover.json"
local retry_after = require "drover.provider.retry_after"

local BODY_MAX = 65536
local MESSAGE_MAX = 512
local TEXT_MAX = 4096           -- of a message, that phrases are sought in
local TOO_EARLY = 425           -- it will take the request, but not yet

local _M = {}

local of_key = { unauthorized = true, quota = true }
local retryable = { rate_limited = true, overloaded = true, timeout = true }


local function set(words)
  local t = {}
  for word in words:gmatch("%S+") do
    t[word] = true
  end
  return t
end


-- Each row: kind; codes, types and states that say so; beginnings of them;
-- classes (plain) of x-amzn-errortype; phrases (patterns over lower case);
-- statuses; `also`, a further question. `billed`: whoever says so may have
-- done the work; the others say that they did not begin.
local rows = {
  {
    "quota",
    words = set [[insufficient_quota credit_balance_exhausted billing_error
                  billing_hard_limit_reached enforced_spend_limit_reached]],
    patterns = { "_spend_limit_exceeded$", "_usage_limit_exceeded$" },
    phrases = { "credit balance is too low", "insufficient balance" },
    also = function(f)
      return f.day_quota or f.status == 402 and not f.waits
    end,
  },
  {
    "context_too_long",
    words = set [[context_length_exceeded TOO_MANY_TOKENS
                  exceed_context_size_error too_many_prompt_tokens]],
    phrases = {
      "maximum context length", "prompt is too long", "prompt too long",
      "exceeds? the maximum number of tokens allowed",
      "exceeds? the available context size", "exceeds? the context window",
      "exceed context limit", "longer than the model's context length",
      "input is too long", "input tokens exceed", "too many tokens",
      "too many input tokens", "exceed model maximum",
      "current length is .* while limit is",
      "max_tokens must be at least 1, got %-",
    },
  },
  {
    "content_policy",
    words = set [[content_filter content_policy_violation invalid_prompt
                  moderation_blocked ResponsibleAIPolicyViolation]],
    phrases = {
      "flagged as potentially violating",
      "rejected as a result of our safety system",
      "rejected as a result of the safety system",
    },
    also = function(f) return f.status == 403 and f.reasons end,
  },
  {
    "unauthorized",
    words = set [[API_KEY_INVALID invalid_api_key 401 authentication_error
                  permission_error]],
    classes = { "Token", "UnrecognizedClient", "AccessDenied" },
    phrases = { "incorrect api key", "api key not valid" },
    statuses = { [401] = true, [403] = true },
  },
  {
    "not_found",
    words = set "model_not_found DeploymentNotFound not_found_error NOT_FOUND",
    phrases = { "model identifier is invalid",
                "does not exist or you do not have access" },
    statuses = { [404] = true, [405] = true },
  },
  {
    "too_large",
    words = set "request_too_large",
    statuses = { [413] = true },
    also = function(f)
      return f.text:find("request too large", 1, true) ~= nil
    end,
  },
  {
    "no_node",
    phrases = { "no available model provider" },
  },
  {
    "overloaded",
    words = set "overloaded_error engine_overloaded UNAVAILABLE",
    patterns = { "^service_unavailable" },
    classes = { "ServiceUnavailable", "ModelNotReady", "ModelStreamError" },
    phrases = { "capacity exceeded", "model is overloaded",
                "model is currently overloaded", "high demand" },
    statuses = { [529] = true, [498] = true, [503] = true },
  },
  {
    "rate_limited",
    words = set [[tokens requests rate_limited RESOURCE_EXHAUSTED]],
    patterns = { "^rate_limit" },
    classes = { "Throttling" },
    statuses = { [429] = true },
    also = function(f) return f.status == 402 end,
  },
  {
    "timeout", billed = true,
    words = set "DEADLINE_EXCEEDED",
    classes = { "ModelTimeout" },
    statuses = { [408] = true, [504] = true, [524] = true },
  },
  {
    "overloaded", billed = true,
    words = set "api_error server_error INTERNAL",
    also = function(f) return f.status >= 500 and f.status < 600 end,
  },
  {
    "bad_request",
    also = function(f) return f.status >= 400 and f.status < 500 end,
  },
}


local function scalar(x)
  local kind = type(x)
  return kind == "string" and x or kind == "number" and string.format("%d", x)
         or nil
end


local function text_of(x)
  if type(x) == "string" then
    return x
  end
  return type(x) == "table" and (scalar(x.message) or json.encode(x)) or nil
end


-- Details that hide inside lists and sub-tables.
local function read_details(f, e)
  local function add(word)
    f.words[#f.words + 1] = scalar(word)
  end
  local details = type(e.details) == "table" and e.details or {}
  add(details.error_code)
  for _, one in ipairs(details) do
    if type(one) == "table" then
      add(one.reason)
      f.delay = f.delay or one.retryDelay
      for _, v in ipairs(type(one.violations) == "table" and one.violations
                         or {}) do
        local id = type(v) == "table" and scalar(v.quotaId)
        f.day_quota = f.day_quota or id and id:find("PerDay") ~= nil
      end
    end
  end
  local meta = type(e.metadata) == "table" and e.metadata or {}
  f.reasons = meta.reasons ~= nil
  f.limit_source = meta.limit_source ~= nil
  if type(e.innererror) == "table" then
    add(e.innererror.code)
  end
end


-- The fields of an error body of any of the eight shapes.
local function fields_of(body)
  local f = { words = {} }
  local value = #body <= BODY_MAX and json.decode(body) or nil
  if type(value) ~= "table" then
    f.message = nil
    f.text = body:sub(1, TEXT_MAX):lower()
    return f
  end
  f.parsed = value
  local top = value[1] and type(value[1]) == "table" and value[1] or value
  local e = type(top.error) == "table" and top.error or top
  f.message = text_of(top.error) or text_of(e.message) or text_of(top.detail)
  if e ~= top or type(top.error) ~= "string" then
    f.message = text_of(e.message) or f.message
  end
  f.code = scalar(e.code) or scalar(top.code)
  f.type = scalar(e.type)
  f.param = scalar(e.param)
  for _, word in ipairs { f.code or false, f.type or false,
                          scalar(e.status) or false,
                          scalar(e.error_type) or false } do
    f.words[#f.words + 1] = word or nil
  end
  f.inner_status = tonumber(e.status_code) or tonumber(e.code)
                   or tonumber(e.status)
  read_details(f, e)
  f.text = (f.message or ""):sub(1, TEXT_MAX):lower()
  return f
end


local function any_word(f, row)
  for _, word in ipairs(f.words) do
    if row.words and row.words[word] then
      return true
    end
    for _, pattern in ipairs(row.patterns or {}) do
      if word:find(pattern) then
        return true
      end
    end
  end
  return false
end


local function matches(f, row)
  if any_word(f, row) then
    return true
  end
  for _, class in ipairs(row.classes or {}) do
    if f.class:find(class, 1, true) then
      return true
    end
  end
  for _, phrase in ipairs(row.phrases or {}) do
    if f.text:find(phrase) then
      return true
    end
  end
  return row.statuses and row.statuses[f.status]
         or row.also and row.also(f) or false
end


-- The kind, and whether the work may have been done. A status that HTTP does
-- not have, or a success that says an error, is malformed.
local function kind_of(f)
  for _, row in ipairs(rows) do
    if matches(f, row) then
      return row[1], row.billed or false
    end
  end
  return "malformed", f.status < 300
end


-- The status that an answer of 2xx with an error member stands for.
local function true_status(status, f)
  if status < 200 or status >= 400 then
    return status
  end
  local inner = f.inner_status
  return inner and inner >= 400 and inner < 600 and inner or 500
end


-- What the answer means: { kind, message, code, type, param, status,
-- retryable, retry_after, maybe_billed }. `headers` by lower-case name; `now`
-- in seconds since 1970, for replies without a Date; may be nil.
function _M.read(status, headers, body, now)
  local f = fields_of(body)
  local parsed = type(f.parsed) == "table"
  local has_error = parsed and (f.parsed.error ~= nil or f.parsed[1] ~= nil)
  local out = {
    code = f.code, type = f.type, param = f.param, status = status,
    message = f.message and f.message:sub(1, MESSAGE_MAX) or nil,
  }
  if status < 300 and not has_error then
    out.kind, out.retryable, out.maybe_billed = "malformed", false, true
    return out
  end
  f.status = true_status(status, f)
  f.class = headers["x-amzn-errortype"] or ""
  f.waits = headers["retry-after"] ~= nil and f.limit_source
  out.kind, out.maybe_billed = kind_of(f)
  out.retryable = retryable[out.kind] or f.status == TOO_EARLY
  if out.retryable then
    out.retry_after = retry_after.read(headers, f.delay, f.message, now)
  elseif of_key[out.kind] then
    out.retry_after = retry_after.plain(headers, now)
  end
  if (headers["x-should-retry"] or ""):find("^false") then
    out.retryable = false       -- the server knows best
  end
  return out
end


return _M
