-- How long a server asks us to wait: eight spellings, one number of seconds.
-- Pure. Saturating, no strtod: "inf", "nan" and hex are no numbers, and a
-- number past any double is "too long", never an absent one.
--
-- SPDX-License-Identifier: MIT
local floor, max, min = math.floor, math.max, math.min

local _M = {}

local TOO_LONG = 1e9            -- seconds; more says no more
local TEXT_MAX = 1024           -- bytes of one value; longer ones say nothing
local EPOCH = 1e9               -- a reset past this is a time, not a duration

local months = { jan = 1, feb = 2, mar = 3, apr = 4, may = 5, jun = 6,
                 jul = 7, aug = 8, sep = 9, oct = 10, nov = 11, dec = 12 }
local units = { d = 86400, h = 3600, m = 60, s = 1, ms = 0.001, us = 1e-6 }


-- "12", "1.5" -> a number; nil for all else.
function _M.number(text)
  if #text > TEXT_MAX or not text:find("^%d+%.?%d*$") then
    return nil
  end
  return min(tonumber(text), TOO_LONG)
end


-- "6m0s", "132ms", "1h2m" -> seconds, or nil.
function _M.duration(text)
  local sum, at = 0, 1
  while at <= #text and #text <= 32 do
    local digits, unit, after = text:match("^(%d+%.?%d*)(%a+)()", at)
    if not digits or not units[unit] then
      return nil
    end
    sum = sum + tonumber(digits) * units[unit]
    at = after
  end
  return at > 1 and at > #text and min(sum, TOO_LONG) or nil
end


-- Days since 1970-01-01 of a date of the Gregorian calendar.
local function days(y, m, d)
  y = m <= 2 and y - 1 or y
  local era = floor(y / 400)
  local yoe = y - era * 400
  local doy = floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5) + d - 1
  local doe = yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + doy
  return era * 146097 + doe - 719468
end


-- Seconds since 1970 of texts of digits, or nil.
local function moment(y, month, d, h, mi, s)
  y, d, h, mi, s = tonumber(y), tonumber(d), tonumber(h), tonumber(mi),
                   tonumber(s)
  if not month or month < 1 or month > 12 or d < 1 or d > 31 or h > 23
     or mi > 59 or s >= 61 then
    return nil
  end
  return days(y, month, d) * 86400 + h * 3600 + mi * 60 + s
end


local CLOCK = "(%d%d):(%d%d):(%d%d)"
local LONG = "^%a+, (%d%d?)[ -](%a%a%a)[ -](%d+) " .. CLOCK .. " GMT$"
local ASCTIME = "^%a+ (%a%a%a) +(%d%d?) " .. CLOCK .. " (%d%d%d%d)$"


-- An HTTP date (IMF-fixdate, RFC 850, asctime) -> seconds since 1970.
function _M.date(text)
  if #text > 64 then
    return nil
  end
  local d, mon, y, h, mi, s = text:match(LONG)
  if not d then
    mon, d, h, mi, s, y = text:match(ASCTIME)
  end
  if not mon or #y ~= 2 and #y ~= 4 then
    return nil
  end
  if #y == 2 then
    y = tonumber(y) + (tonumber(y) < 70 and 2000 or 1900)
  end
  return moment(y, months[mon:lower()], d, h, mi, s)
end


-- A time as RFC 3339 writes it -> seconds since 1970.
function _M.time(text)
  if #text > 64 then
    return nil
  end
  local y, mo, d, h, mi, s, zone =
    text:match("^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):"
               .. "(%d%d%.?%d*)([Zz+-][%d:]*)$")
  local at = y and moment(y, tonumber(mo), d, h, mi, s)
  if not at or zone:upper() == "Z" then
    return at or nil
  end
  local sign, hours, minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
  if not sign then
    return nil
  end
  local off = hours * 3600 + minutes * 60
  return at - (sign == "+" and off or -off)
end


-- Until when a bucket is empty ("20ms", "6m0s", "12", "2026-01-01T00:00:00Z",
-- 1767225600): seconds from `from` on (seconds since 1970; may be nil).
function _M.reset(text, from)
  local seconds = _M.duration(text)
  if seconds then
    return seconds
  end
  local at = _M.time(text)
  if not at and text:find("^%d+$") and #text <= 14 then
    local n = tonumber(text)
    if n < EPOCH then
      return n
    end
    at = n >= EPOCH * 1000 and n / 1000 or n
  end
  if not at then
    return _M.number(text)
  end
  return from and max(0, at - from) or nil
end


-- When a reply was sent: its own Date, so that neither clock need be right;
-- else `now`, ours.
function _M.sent(headers, now)
  return headers.date and _M.date(headers.date) or now
end


-- The longest of what one header says: it may stand there more than once,
-- and a proxy may have joined the lines by commas.
local function of_header(value, from)
  local longest
  for line in value:gmatch("[^\n]+") do
    local at = _M.date(line)
    if at then
      longest = from and max(longest or 0, at - from) or longest
    elseif #line <= TEXT_MAX then
      for one in line:gmatch("[^,]+") do
        one = one:match("^%s*(.-)%s*$")
        longest = max(longest or -1, _M.number(one) or -1)
      end
    end
  end
  return longest and longest >= 0 and min(longest, TOO_LONG) or nil
end


local function of_ms(value)
  local ms = value and of_header(value)
  return ms and ms / 1000 or nil
end


-- "34.4s", 1.5, or nil.
local function of_body(value)
  if type(value) == "number" then
    return value >= 0 and min(value, TOO_LONG) or nil
  end
  return type(value) == "string" and (_M.duration(value) or _M.number(value))
         or nil
end


local function of_text(message)
  local said = message:match("[Tt]ry again in ([%d.dhmsu]+)")
  local seconds = said and _M.duration((said:gsub("%.$", "")))
  if not seconds then
    said = message:match("[Rr]etry after (%d+) second")
    seconds = said and _M.number(said)
  end
  return seconds
end


-- The reset of a bucket of which nothing is left: the longest.
local function of_buckets(headers, from)
  local longest
  for name, value in pairs(headers) do
    local bucket = value == "0" and name:find("ratelimit-", 1, true)
                   and name:gsub("remaining", "reset", 1)
    local reset = bucket and bucket ~= name and headers[bucket]
    local seconds = reset and _M.reset(reset, from)
    if seconds and seconds > (longest or 0) then
      longest = seconds
    end
  end
  return longest
end


-- Seconds by the headers that are made for it, or nil. `headers` by lower-case
-- name, lines of one name joined by LF; `now` in seconds since 1970, may be
-- nil.
function _M.plain(headers, now)
  local plain = headers["retry-after"]
                and of_header(headers["retry-after"], _M.sent(headers, now))
  local ms = of_ms(headers["retry-after-ms"])
             or of_ms(headers["x-ms-retry-after-ms"])
  return (ms or plain) and max(ms or 0, plain or 0)
end


-- The same by all that a reply says: `delay` of its body, `message` its text
-- (both may be nil), and its buckets.
function _M.read(headers, delay, message, now)
  return _M.plain(headers, now) or of_body(delay)
         or message and of_text(message)
         or of_buckets(headers, _M.sent(headers, now))
end


return _M
