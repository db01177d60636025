-- A chat request's JSON: what passes, and which field is named when not.
local body = require "drover.gateway.body"

local OK = '"model":"m","messages":[{"role":"user","content":"hi"}]'


describe("gateway.body.read()", function()
  it("gives the request as a table", function()
    local request = assert(body.read("{" .. OK .. ',"stream":true}'))
    assert.equal("m", request.model)
    assert.is_true(request.stream)
    assert.equal("hi", request.messages[1].content)
  end)

  it("takes content in parts, a tool's call without content, a null", function()
    assert(body.read('{"model":"m","messages":[{"role":"user","content":'
                     .. '[{"type":"text","text":"x"}]}]}'))
    assert(body.read('{"model":"m","messages":[{"role":"assistant","content":'
                     .. 'null,"tool_calls":[]}]}'))
    assert(body.read("{" .. OK .. ',"stop":null,"stream":null}'))
  end)

  local wrong = {
    { "{", nil, "parse the JSON body .* a string is missing, at byte 1%.$" },
    { "", nil, "The body is empty" },
    { " \n", nil, "The body is empty" },
    { "[]", nil, "must be an object" },
    { "null", nil, "must be an object" },
    { '{"model":1e999}', nil, nil },
    { '{"model":"\\ud800"}', nil, "stands for no character, at byte 10%.$" },
    { '{"model":"m","messages":[' .. ("{},"):rep(4096) .. "{}]}", "messages",
      "has 4097 entries, at most 4096" },
    { ("["):rep(200) .. ("]"):rep(200), nil, "parse the JSON" },
    { '{"messages":[]}', "model", "Missing required" },
    { '{"model":"","messages":[]}', "messages", nil },
    { '{"model":"m"}', "messages", "Missing required" },
    { '{"model":7,"messages":[{"role":"user","content":""}]}', "model",
      "got an integer" },
    { '{"model":"m","messages":"hi"}', "messages", "got a string" },
    { '{"model":"m","messages":[]}', "messages", "must not be empty" },
    { '{"model":"m","messages":["x"]}', "messages[0]", "got a string" },
    { '{"model":"m","messages":[{"role":"user"}]}', "messages[0].content",
      "Missing" },
    { '{"model":"m","messages":[{"content":"x"}]}', "messages[0].role",
      "Missing" },
    { '{"model":"m","messages":[{"role":"user","content":5}]}',
      "messages[0].content", "got an integer" },
    { "{" .. OK .. ',"temperature":"hot"}', "temperature", "got a string" },
    { "{" .. OK .. ',"temperature":3}', "temperature", "from 0 to 2" },
    { "{" .. OK .. ',"max_tokens":1.5}', "max_tokens", "an integer" },
    { "{" .. OK .. ',"max_tokens":0}', "max_tokens", "from 1 to 2147483647" },
    { "{" .. OK .. ',"stream":"yes"}', "stream", "a boolean" },
    { "{" .. OK .. ',"stream_options":{"include_usage":1}}',
      "stream_options.include_usage", "a boolean" },
    { "{" .. OK .. ',"stop":[1]}', "stop[0]", "a string" },
    { "{" .. OK .. ',"model":"n"}', nil, "twice" },
  }
  for _, row in ipairs(wrong) do
    it("refuses " .. row[1]:sub(1, 60), function()
      local request, problem = body.read(row[1])
      assert.is_nil(request)
      if row[2] then assert.equal(row[2], problem.param) end
      if row[3] then assert.matches(row[3], problem.message) end
    end)
  end
end)


describe("gateway.body.request_id()", function()
  it("repeats a sane one and nothing else", function()
    assert.equal("abc-1.2", body.request_id("abc-1.2"))
    for _, bad in ipairs{ "", "a b", "a\r\nx: y", ("x"):rep(129), "é" } do
      assert.is_nil(body.request_id(bad))
    end
    assert.is_nil(body.request_id(nil))
  end)
end)


describe("gateway.body.timeout()", function()
  it("reads whole milliseconds, and names the header otherwise", function()
    assert.equal(1.5, body.timeout("1500"))
    assert.equal(0.001, body.timeout("1"))
    assert.is_true(body.timeout(("9"):rep(400)) > 1e9)
    local seconds, problem = body.timeout(nil)
    assert.is_nil(seconds)
    assert.is_nil(problem)
    for _, bad in ipairs{ "", "0", "-5", "1.5", "1e3", "0x10", "5, 6", "5s",
                          "inf", " 5" } do
      seconds, problem = body.timeout(bad)
      assert.is_nil(seconds)
      assert.equal("x-request-timeout-ms", problem.param)
      assert.truthy(problem.message:find("'x-request-timeout-ms'", 1, true))
    end
  end)
end)
