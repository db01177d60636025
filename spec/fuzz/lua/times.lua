-- Durations, numbers, HTTP dates, RFC 3339, Retry-After in all its forms and
-- the rate-limit headers, each beside a second, slower reading.
local broken = require "spec.fuzz.lua.broken"
local ratelimit = require "drover.provider.ratelimit"
local retry_after = require "drover.provider.retry_after"

local NOW = 1767225600
local MAX = 1e9

local NUMBERS = { "0", "1", "12", "1.5", "0.05", "300", "86400", "1.", "007",
                  "99999999999999999999", ("9"):rep(400), "1767225700",
                  "1767225700123" }
local DURATIONS = { "1s", "6m0s", "132ms", "1h2m", "20us", "1d", "0.5h", "3m",
                    "1.5s", "5", "s", "9999999d" }
local DATES = { "Thu, 01 Jan 2026 00:00:10 GMT", "Thursday, 01-Jan-26 00:01:00 "
  .. "GMT", "Thu Jan  1 00:00:30 2026", "Sun, 06 Nov 1994 08:49:37 GMT",
  "Wed, 31 Dec 2025 23:59:59 GMT", "Fri, 29 Feb 2028 12:00:00 GMT" }
local TIMES = { "2026-01-01T00:00:00Z", "2026-01-01T01:02:03.25+01:00",
                "2025-12-31t23:59:59z", "2026-06-30 12:00:00-07:30" }
local NAMES = { "retry-after", "retry-after-ms", "x-ms-retry-after-ms", "date",
  "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
  "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens",
  "x-ratelimit-reset-tokens", "anthropic-ratelimit-requests-remaining",
  "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-tokens-limit",
  "anthropic-ratelimit-input-tokens-remaining",
  "anthropic-ratelimit-input-tokens-reset" }

local _M = {}


local function value(chance)
  local text = chance:choose { NUMBERS, DURATIONS, DATES, TIMES }
  text = chance:choose(text)
  if chance:one_in(6) then
    text = text .. chance:choose { ", ", "\n", "," } .. chance:choose(NUMBERS)
  end
  if chance:one_in(6) then
    text = broken.words(chance, DURATIONS, 5)
  end
  return broken.text(chance, text)
end


function _M.make(chance)
  local headers = {}
  for _ = 1, 1 + chance:below(5) do
    headers[chance:choose(NAMES)] = value(chance)
  end
  return { text = value(chance), headers = headers,
           now = not chance:one_in(5) and NOW or nil,
           message = chance:one_in(3) and "please try again in "
                     .. value(chance) or nil,
           delay = chance:one_in(3) and broken.value(chance, 0) or nil }
end


-- ---- the slow readings ----

-- Digits, at most one point, digit by digit.
local function slow_number(text)
  local points, whole = 0, 0
  if #text == 0 or #text > 1024 or not text:sub(1, 1):find("%d") then
    return nil
  end
  for i = 1, #text do
    local c = text:sub(i, i)
    if c == "." then
      points = points + 1
    elseif not c:find("%d") then
      return nil
    elseif points == 0 then
      whole = math.min(whole * 10 + tonumber(c), 1e300)
    end
  end
  return points <= 1 and whole or nil
end


local LENGTHS = { d = 86400, h = 3600, m = 60, s = 1, ms = 1e-3, us = 1e-6 }


local function slow_duration(text)
  local sum, rest = 0, text
  if text == "" or #text > 32 then
    return nil
  end
  while rest ~= "" do
    local digits = rest:match("^[%d%.]+")
    local unit = digits and rest:sub(#digits + 1):match("^%a+")
    if not unit or not LENGTHS[unit] or not slow_number(digits) then
      return nil
    end
    sum = sum + tonumber(digits) * LENGTHS[unit]
    rest = rest:sub(#digits + #unit + 1)
  end
  return math.min(sum, MAX)
end


-- The date of a moment, by walking over years and months.
local function date_of(seconds)
  local days, year, month = math.floor(seconds / 86400), 1970, 1
  local function leap() return year % 4 == 0 and (year % 100 ~= 0
                               or year % 400 == 0) end
  while days >= (leap() and 366 or 365) do
    days = days - (leap() and 366 or 365)
    year = year + 1
  end
  local lengths = { 31, leap() and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31,
                    30, 31 }
  while days >= lengths[month] do
    days = days - lengths[month]
    month = month + 1
  end
  return year, month, days + 1
end


local function check_date(text)
  local at = retry_after.date(text)
  if not at or at < 0 then return end
  assert(at == math.floor(at) and at < 3e11, "date out of range")
  local year, _, day = date_of(at)
  local said = text:match("(%d%d%d%d)")
  -- The 30th of February is some day of March: then the day differs.
  if said and text:find("%f[%d]0?" .. day .. "%f[%D]") then
    assert(math.abs(year - tonumber(said)) <= 1, "year " .. year)
  end
  local h, m, s = text:match("(%d%d):(%d%d):(%d%d)")
  if tonumber(s) < 60 then
    assert(at % 86400 == h * 3600 + m * 60 + s, "time of day")
  end
end


local function in_range(seconds, what)
  assert(seconds == nil or type(seconds) == "number" and seconds >= 0
         and seconds == seconds and seconds <= 1e12, what .. " out of range: "
         .. tostring(seconds))
end


function _M.check(input)
  local number, slow = retry_after.number(input.text), slow_number(input.text)
  assert((number ~= nil) == (slow ~= nil), "number is one or not")
  if number then
    assert(math.floor(number) == math.min(math.floor(slow), MAX)
           or math.abs(number - slow) <= 1 + slow * 1e-9, "number")
  end
  local got, want = retry_after.duration(input.text), slow_duration(input.text)
  assert((got ~= nil) == (want ~= nil), "duration is one or not: "
         .. tostring(got) .. " " .. tostring(want))
  assert(not got or math.abs(got - want) <= 1e-9 * math.max(1, want),
         "duration " .. tostring(got) .. " " .. tostring(want))
  check_date(input.text)
  retry_after.time(input.text)
  in_range(retry_after.reset(input.text, input.now), "reset")
  in_range(retry_after.plain(input.headers, input.now), "plain")
  in_range(retry_after.read(input.headers, input.delay, input.message,
                            input.now), "read")
  local said = ratelimit.read(input.headers, input.now)
  for name, n in pairs(said or {}) do
    in_range(n, name)
  end
end


return _M
