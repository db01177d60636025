-- What a status says by itself, and what the body and the headers say about
-- it. What providers really answer is in openai_spec.lua.
local classify = require "drover.provider.classify"
local json = require "drover.json"


local function read(status, fields, headers)
  return classify.read(status, headers or {},
                       fields and json.encode { error = fields } or "")
end


describe("classify.read()", function()
  -- status, kind, retryable, maybe billed
  local rows = {
    { 400, "bad_request" }, { 401, "unauthorized" }, { 402, "quota" },
    { 403, "unauthorized" }, { 404, "not_found" }, { 405, "not_found" },
    { 408, "timeout", true, true }, { 409, "bad_request" },
    { 413, "too_large" }, { 418, "bad_request" }, { 422, "bad_request" },
    { 423, "bad_request" }, { 425, "bad_request", true },
    { 429, "rate_limited", true }, { 451, "bad_request" },
    { 498, "overloaded", true }, { 499, "bad_request" },
    { 500, "overloaded", true, true }, { 501, "overloaded", true, true },
    { 502, "overloaded", true, true }, { 503, "overloaded", true },
    { 504, "timeout", true, true }, { 520, "overloaded", true, true },
    { 524, "timeout", true, true }, { 529, "overloaded", true },
    { 599, "overloaded", true, true }, { 600, "malformed" },
    { 999, "malformed" }, { 204, "malformed", false, true },
  }
  for _, row in ipairs(rows) do
    it("says " .. row[2] .. " of a bare " .. row[1], function()
      local got = read(row[1])
      assert.equal(row[2], got.kind)
      assert.equal(row[3] or false, got.retryable)
      assert.equal(row[4] or false, got.maybe_billed)
    end)
  end

  it("reads the code before the status, inside a success too", function()
    local got = read(200, { code = 503, message = "x" })
    assert.same({ "overloaded", true, false },
                { got.kind, got.retryable, got.maybe_billed })
    got = read(200, { code = 429 })
    assert.same({ "rate_limited", true, false },
                { got.kind, got.retryable, got.maybe_billed })
    got = read(200, { message = "x" })
    assert.same({ "overloaded", true, true },
                { got.kind, got.retryable, got.maybe_billed })
    got = read(200, { type = "overloaded_error" })
    assert.same({ "overloaded", true, false },
                { got.kind, got.retryable, got.maybe_billed })
    assert.equal("quota", read(429, { code = "insufficient_quota" }).kind)
    assert.equal("quota", read(429, {
      type = "rate_limit_error",
      details = { error_code = "enforced_spend_limit_reached" } }).kind)
    assert.equal("context_too_long",
                 read(400, { code = "context_length_exceeded" }).kind)
  end)

  it("takes a time that a header says of a key, and no bucket's", function()
    local headers = { ["x-ratelimit-remaining-requests"] = "0",
                      ["x-ratelimit-reset-requests"] = "6m0s" }
    assert.is_nil(read(402, nil, headers).retry_after)
    headers["retry-after"] = "7200"
    assert.equal(7200, read(402, nil, headers).retry_after)
    assert.equal(7200, read(401, nil, headers).retry_after)
    assert.is_nil(read(400, nil, headers).retry_after)
  end)

  it("never says that what was refused may be billed", function()
    for _, status in ipairs { 400, 401, 402, 403, 404, 413, 429, 503, 529 } do
      assert.is_false(read(status, { message = "x" }).maybe_billed)
    end
    assert.is_false(read(500, { code = "context_length_exceeded" })
                    .maybe_billed)
  end)

  it("does not retry where the server says so, but tells how long to wait",
     function()
    local got = read(429, nil, { ["x-should-retry"] = "false",
                                 ["retry-after"] = "7" })
    assert.same({ "rate_limited", false, 7 },
                { got.kind, got.retryable, got.retry_after })
    assert.is_true(read(503, nil, { ["x-should-retry"] = "true" }).retryable)
    assert.is_false(read(400, nil, { ["x-should-retry"] = "true" }).retryable)
  end)

  it("reads a long message in a bound of time", function()
    local long = ("current length is "):rep(3000)
    assert.equal("bad_request", read(400, { message = long }).kind)
  end)
end)
