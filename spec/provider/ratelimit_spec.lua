-- What headers say of a node's own limits.
local ratelimit = require "drover.provider.ratelimit"

local DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


describe("ratelimit.read()", function()
  it("reads OpenAI's", function()
    assert.same({
      requests_limit = 60, requests_left = 59, requests_reset = 1,
      tokens_limit = 150000, tokens_left = 149984, tokens_reset = 360,
    }, ratelimit.read {
      ["x-ratelimit-limit-requests"] = "60",
      ["x-ratelimit-remaining-requests"] = "59",
      ["x-ratelimit-reset-requests"] = "1s",
      ["x-ratelimit-limit-tokens"] = "150000",
      ["x-ratelimit-remaining-tokens"] = "149984",
      ["x-ratelimit-reset-tokens"] = "6m0s",
    })
  end)

  it("reads Anthropic's, of whose tokens the tightest count", function()
    local headers = {
      date = DATE,
      ["anthropic-ratelimit-requests-limit"] = "50",
      ["anthropic-ratelimit-requests-remaining"] = "0",
      ["anthropic-ratelimit-requests-reset"] = "1994-11-06T08:49:49Z",
      ["anthropic-ratelimit-input-tokens-limit"] = "40000",
      ["anthropic-ratelimit-input-tokens-remaining"] = "39000",
      ["anthropic-ratelimit-input-tokens-reset"] = "1994-11-06T08:49:38Z",
      ["anthropic-ratelimit-output-tokens-limit"] = "8000",
      ["anthropic-ratelimit-output-tokens-remaining"] = "100",
      ["anthropic-ratelimit-output-tokens-reset"] = "1994-11-06T08:50:37Z",
    }
    local got = ratelimit.read(headers, 0)
    assert.same({
      requests_limit = 50, requests_left = 0, requests_reset = 12,
      tokens_limit = 8000, tokens_left = 100, tokens_reset = 60,
    }, got)
    headers["anthropic-ratelimit-tokens-remaining"] = "7"
    got = ratelimit.read(headers, 0)
    assert.equal(7, got.tokens_left)
    assert.is_nil(got.tokens_limit)
  end)

  it("takes what it understands, and nothing where nothing is left to say",
     function()
    assert.same({ requests_left = 5 }, ratelimit.read {
      ["x-ratelimit-remaining-requests"] = "5",
      ["x-ratelimit-reset-requests"] = "soon",
      ["x-ratelimit-limit-requests"] = "-1",
      ["x-ratelimit-remaining-tokens"] = "inf",
    })
    assert.is_nil(ratelimit.read {})
    assert.is_nil(ratelimit.read { ["x-ratelimit-limit-requests"] = "5" })
    assert.is_nil(ratelimit.read { ["x-ratelimit-remaining-tokens"] = "" })
  end)

  it("knows no time of day without a clock", function()
    local headers = {
      ["anthropic-ratelimit-requests-remaining"] = "1",
      ["anthropic-ratelimit-requests-reset"] = "1994-11-06T08:49:49Z",
    }
    assert.same({ requests_left = 1 }, ratelimit.read(headers))
    assert.equal(0, ratelimit.read(headers, 2e9).requests_reset)
  end)
end)
