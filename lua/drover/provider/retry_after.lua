-- How long a server asks us to wait: seven spellings, one number of seconds.
-- Saturating, no strtod: "inf", "nan" and hex are no numbers.
--
-- SPDX-License-Identifier: MIT
local _M = {}

local months = { jan = 1, feb = 2, mar = 3, apr = 4, may = 5, jun = 6,
                 jul = 7, aug = 8, sep = 9, oct = 10, nov = 11, dec = 12 }
local units = { h = 3600, m = 60, s = 1, ms = 0.001, us = 1e-6 }


-- "12", "1.5" -> seconds; nil for all else.
local function number(text)
  if #text > 32 or not text:find("^%d+%.?%d*$") then
    return nil
  end
  return tonumber(text)
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
  return at > 1 and at > #text and sum or nil
end


-- Days since 1970-01-01 of a date of the Gregorian calendar.
local function days(y, m, d)
  y = m <= 2 and y - 1 or y
  local era = math.floor(y / 400)
  local yoe = y - era * 400
  local doy = math.floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5) + d - 1
  local doe = yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy
  return era * 146097 + doe - 719468
end


-- An HTTP date (IMF-fixdate, RFC 850, asctime) -> seconds since 1970.
function _M.date(text)
  local d, mon, y, h, mi, s =
    text:match("^%a+, (%d+)[ -](%a+)[ -](%d+) (%d+):(%d+):(%d+) GMT$")
  if not d then
    mon, d, h, mi, s, y =
      text:match("^%a+ (%a+) +(%d+) (%d+):(%d+):(%d+) (%d%d%d%d)$")
  end
  local month = mon and months[mon:lower()]
  if not month then
    return nil
  end
  y = tonumber(y)
  y = #tostring(y) <= 2 and y + (y < 70 and 2000 or 1900) or y
  return days(y, month, tonumber(d)) * 86400 + h * 3600 + mi * 60 + s
end


local function of_header(value, headers)
  local seconds = number(value)
  if seconds then
    return seconds
  end
  local at, from = _M.date(value), headers.date and _M.date(headers.date)
  return at and from and math.max(0, at - from) or nil
end


-- "34.4s", 1.5, or nil.
local function of_body(value)
  if type(value) == "number" then
    return value >= 0 and value or nil
  end
  return type(value) == "string" and (_M.duration(value) or number(value))
end


-- x-ratelimit-reset-* of a bucket of which nothing is left: the longest.
local function of_buckets(headers)
  local longest
  for name, value in pairs(headers) do
    local bucket = name:match("^x%-ratelimit%-remaining%-(.*)")
    local reset = bucket and value == "0"
                  and headers["x-ratelimit-reset-" .. bucket]
    local seconds = reset and (_M.duration(reset) or number(reset))
    if seconds and seconds > (longest or 0) then
      longest = seconds
    end
  end
  return longest
end


-- Seconds, or nil when nobody says. `headers` by lower-case name; `delay` of
-- the body, `message` its text.
function _M.read(headers, delay, message)
  local ms = headers["retry-after-ms"] and number(headers["retry-after-ms"])
  local plain = headers["retry-after"] and of_header(headers["retry-after"],
                                                     headers)
  if ms or plain then
    return math.max(ms and ms / 1000 or 0, plain or 0)
  end
  local seconds = of_body(delay)
  if seconds then
    return seconds
  end
  local said = message and message:match("[Tt]ry again in ([%d.hms]+)")
  seconds = said and _M.duration(said:gsub("%.$", ""))
  return seconds or of_buckets(headers)
end


return _M
