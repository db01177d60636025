-- Errors as HTTP answers.
local answer = require "drover.gateway.answer"
local err = require "drover.err"
local json = require "drover.json"


describe("gateway.answer", function()
  local statuses = {
    bad_request = 400, context_too_long = 400, content_policy = 400,
    not_found = 404, too_large = 413, quota = 429, rate_limited = 429,
    no_node = 503, overloaded = 503, resource = 503, timeout = 504,
    cancelled = 499, internal = 500, unauthorized = 502, unreachable = 502,
    tls = 502, reset = 502, truncated = 502, malformed = 502, closed = 502,
  }
  for kind, status in pairs(statuses) do
    it("answers " .. kind .. " with " .. status, function()
      local got, text, headers = answer.from_err(err.new(kind, "so it is"))
      assert.equal(status, got)
      local body = json.decode(text).error
      assert.matches("so it is", body.message:lower())
      assert.is_string(body.type)
      assert.is_string(body.code)
      assert.equal(status == 429 or status == 503,
                   headers["retry-after"] ~= nil)
    end)
  end

  it("tells clients not to retry what their request itself breaks", function()
    for _, kind in ipairs{ "bad_request", "not_found", "too_large" } do
      local _, _, headers = answer.from_err(err.new(kind))
      assert.equal("false", headers["x-should-retry"])
    end
  end)

  it("lets clients retry what was sent nowhere", function()
    for _, kind in ipairs{ "overloaded", "no_node", "rate_limited" } do
      local _, _, headers = answer.from_err(err.new(kind))
      assert.is_nil(headers["x-should-retry"])
      assert.is_number(headers["retry-after"])
    end
  end)

  it("tells clients not to retry what was sent: that was done", function()
    for kind in pairs(statuses) do
      local e = err.new(kind, nil, { attempts = { { node = "a" } } })
      local _, _, headers = answer.from_err(e)
      assert.equal("false", headers["x-should-retry"])
    end
  end)

  it("says param null and code as OpenAI spells it", function()
    local _, text = answer.from_err(err.new("not_found", "no such model"))
    assert.truthy(text:find('"param":null', 1, true))
    assert.equal("model_not_found", json.decode(text).error.code)
  end)

  it("says a refusal of ours in a sentence, its field counted from 0", function()
    local e = err.new("bad_request", "messages[2].role: must be user", {
      node = "lambkin", param = "messages[2].role", attempts = { {} } })
    local _, text = answer.from_err(e)
    local body = json.decode(text).error
    assert.equal("messages[1].role", body.param)
    assert.equal("Invalid value for 'messages[1].role': must be user.",
                 body.message)
    assert.equal(text, answer.sse(e):sub(7, -3))
  end)

  it("leaves an upstream's param as it is", function()
    local e = err.new("bad_request", "secret", {
      node = "a", param = "messages[2].role", status = 400, said = true })
    local _, text = answer.from_err(e)
    assert.equal("messages[2].role", json.decode(text).error.param)
    assert.is_nil(text:find("secret", 1, true))
  end)

  it("names a model that is not there", function()
    local e = err.new("not_found", "the model 'x' does not exist", {
      code = "model_not_found", param = "model" })
    local _, text = answer.from_err(e)
    local body = json.decode(text).error
    assert.equal("The model 'x' does not exist.", body.message)
    assert.equal("model", body.param)
    assert.equal("model_not_found", body.code)
  end)

  it("rounds retry-after up to whole seconds", function()
    local e = err.new("rate_limited", "slow down", { retry_after = 2.1 })
    local _, _, headers = answer.from_err(e)
    assert.equal(3, headers["retry-after"])
  end)

  it("ends a broken stream with an error event and no [DONE]", function()
    local text = answer.sse(err.new("reset", "gone"))
    assert.matches("^data: {.*}\n\n$", text)
    assert.is_nil(text:find("[DONE]", 1, true))
    assert.is_table(json.decode(text:sub(7)).error)
  end)
end)
