-- How long a server asks us to wait, in all the ways that servers say it.
local retry_after = require "drover.provider.retry_after"

local DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
local NOW = retry_after.date(DATE)
local TOO_LONG = 1e9


local function after(value, date)
  return { ["retry-after"] = value, date = date }
end


local function assert_near(wanted, got)
  if wanted == nil then
    assert.is_nil(got)
  else
    assert.is_number(got)
    assert.is_true(math.abs(wanted - got) < 1e-6, got)
  end
end


describe("retry_after.read()", function()
  -- headers, seconds, the body's delay, its message
  local rows = {
    { after "2", 2 }, { after "1.5", 1.5 }, { after "0", 0 },
    { after "120", 120 }, { after "0.001", 0.001 }, { after "007", 7 },
    { after "-1" }, { after "+1" }, { after "inf" }, { after "nan" },
    { after "0x10" }, { after "1e3" }, { after "1e309" }, { after "" },
    { after " " }, { after "." }, { after ".5" }, { after "1.2.3" },
    { after "soon" }, { after "1 s" }, { after " 3 ", 3 }, { after "3 , 4 ", 4 },
    { after(("9"):rep(400)), TOO_LONG }, { after(("9"):rep(8192)) },
    { after "99999999999999999999", TOO_LONG },
    { after "18446744073709551616", TOO_LONG },
    { after "4294967297", TOO_LONG },
    { after "1\n5", 5 }, { after "5\n1", 5 }, { after "5, 1", 5 },
    { after "x\n3", 3 }, { after "-1\n-2" },
    { after("7\nSun, 06 Nov 1994 08:49:47 GMT", DATE), 10 },
    { after("Sun, 06 Nov 1994 08:49:47 GMT", DATE), 10 },
    { after("Sunday, 06-Nov-94 08:49:47 GMT", DATE), 10 },
    { after("Sun Nov  6 08:49:47 1994", DATE), 10 },
    { after("Sun, 06 Nov 1994 08:49:07 GMT", DATE), 0 },
    { after("Sun, 06 Nov 2094 08:49:37 GMT", DATE), TOO_LONG },
    { after("Sun, 06 Nov 1994 25:49:07 GMT", DATE) },
    { after("Sun, 06 Foo 1994 08:49:07 GMT", DATE) },
    { after("Sun, 36 Nov 1994 08:49:07 GMT", DATE) },
    { after("Sun, 06 Nov 994 08:49:07 GMT", DATE) },
    -- a server's clock that is an hour off is its own Date's as well
    { after("Sun, 06 Nov 1994 09:49:47 GMT", "Sun, 06 Nov 1994 09:49:37 GMT"),
      10 },
    { after("Sun, 06 Nov 1994 07:49:47 GMT", "Sun, 06 Nov 1994 07:49:37 GMT"),
      10 },
    { after("Sun, 06 Nov 1994 08:49:52 GMT"), 15 },             -- our clock
    { after("Sun, 06 Nov 1994 08:49:52 GMT", "junk"), 15 },
    { { ["retry-after-ms"] = "1500" }, 1.5 },
    { { ["retry-after-ms"] = "0", ["retry-after"] = "1" }, 1 },
    { { ["retry-after-ms"] = "x", ["retry-after"] = "1" }, 1 },
    { { ["retry-after-ms"] = "2500", ["retry-after"] = "x" }, 2.5 },
    { { ["x-ms-retry-after-ms"] = "20" }, 0.02 },
    { { ["retry-after-ms"] = ("9"):rep(30) }, TOO_LONG / 1000 },
    { { ["x-ratelimit-remaining-requests"] = "0",
        ["x-ratelimit-reset-requests"] = "6m0s",
        ["x-ratelimit-remaining-tokens"] = "5",
        ["x-ratelimit-reset-tokens"] = "1h" }, 360 },
    { { ["x-ratelimit-remaining-tokens"] = "0",
        ["x-ratelimit-reset-tokens"] = "20ms" }, 0.02 },
    { { ["anthropic-ratelimit-tokens-remaining"] = "0",
        ["anthropic-ratelimit-tokens-reset"] = "1994-11-06T08:50:07Z",
        date = DATE }, 30 },
    { {}, 34.4, "34.4s" }, { {}, 1.5, 1.5 }, { {}, nil, -1 }, { {}, nil, {} },
    { {}, 9.816, nil, "Please try again in 9.816s. Visit …" },
    { {}, 0.132, nil, "try again in 132ms" },
    { {}, 26, nil, "Please retry after 26 seconds." },
    { {}, nil, nil, "try again in a while" }, { {} },
  }
  for i, row in ipairs(rows) do
    it("reads spelling " .. i, function()
      assert_near(row[2], retry_after.read(row[1], row[3], row[4], NOW))
    end)
  end

  it("knows no date without any clock", function()
    assert.is_nil(retry_after.read(after(DATE)))
  end)
end)


describe("durations and times", function()
  for text, seconds in pairs {
    ["6m0s"] = 360, ["20ms"] = 0.02, ["1h2m3s"] = 3723, ["1.5s"] = 1.5,
    ["1d"] = 86400, ["500us"] = 0.0005, [""] = false, ["s"] = false,
    ["5"] = false, ["5x"] = false, ["-5s"] = false, ["5s "] = false,
    ["inf s"] = false, [("1s"):rep(40)] = false,
    ["99999999999999999999h"] = TOO_LONG,
  } do
    it("reads " .. text:sub(1, 12), function()
      assert_near(seconds or nil, retry_after.duration(text))
    end)
  end

  for text, after_now in pairs {
    ["1994-11-06T08:49:37Z"] = 0, ["1994-11-06T08:49:38.25Z"] = 1.25,
    ["1994-11-06t09:49:37+01:00"] = 0, ["1994-11-06 08:19:37-00:30"] = 0,
    ["1994-11-06T08:49:37"] = false, ["1994-13-06T08:49:37Z"] = false,
    ["1994-11-06T08:49Z"] = false, ["1994-11-06T08:49:37+1"] = false,
    ["1994-11-06T08:49:37.1.2Z"] = false,
  } do
    it("reads " .. text, function()
      local at = retry_after.time(text)
      assert_near(after_now or nil, at and at - NOW)
    end)
  end

  for text, seconds in pairs {
    ["12"] = 12, ["0.5"] = 0.5, ["6m0s"] = 360, ["784111787"] = 784111787,
    ["1994-11-06T08:49:40Z"] = 3, [""] = false, ["-3"] = false,
    ["soon"] = false,
  } do
    it("resets at " .. text, function()
      assert_near(seconds or nil, retry_after.reset(text, NOW))
    end)
  end

  it("takes a large number of a reset as a time", function()
    assert.equal(10, retry_after.reset("1767225610", 1767225600))
    assert.equal(10, retry_after.reset("1767225610000", 1767225600))
    assert.equal(0, retry_after.reset("1767225590", 1767225600))
    assert.is_nil(retry_after.reset("1767225610"))
  end)
end)
