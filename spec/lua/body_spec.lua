-- The text of a request, made from a table or patched by byte span.
local body = require "drover.body"
local json = require "drover.json"


describe("a request's text", function()
  it("takes each node's name of the model", function()
    local of = body.of_table({ model = "m", temperature = 1 }, false)
    assert.equal('{"model":"m","temperature":1}', body.text(of))
    assert.equal('{"model":"theirs","temperature":1}', body.text(of, "theirs"))
  end)

  it("asks for usage where it streams, and changes no table", function()
    local request = { model = "m", stream_options = { x = 1 } }
    local of = body.of_table(request, true)
    assert.same({ model = "m", stream = true,
                  stream_options = { x = 1, include_usage = true } },
                json.decode(body.text(of)))
    assert.same({ model = "m", stream_options = { x = 1 } }, request)
  end)

  local rows = {
    '{"model":"m","messages":[]}',
    '{ "messages" : [ ] , "model" : "m" }',
    '{"model":"m","stream":false,"messages":[]}',
    '{"stream":true,"model":"m","messages":[],"stream_options":null}',
    '{"model":"m","stream_options":{},"messages":[]}',
    '{"model":"m","stream_options":{"include_usage":false},"messages":[]}',
    '{"stream_options":{"x":1},"messages":[],"model":"m"}',
    '{"messages":[],"stream_options":{"include_usage":true},"model":"m"}',
  }
  for i, text in ipairs(rows) do
    it("is patched into a stream with usage, case " .. i, function()
      local got = json.decode(body.text(body.of_text(text, true), "n"))
      assert.equal("n", got.model)
      assert.is_true(got.stream)
      assert.is_true(got.stream_options.include_usage)
      assert.same({}, got.messages)
    end)
  end

  it("passes byte by byte where nothing is to change", function()
    local text = '{"model": "m", "x": 1.0e3, "y": {}, "z": [] }'
    assert.equal(text, body.text(body.of_text(text, false)))
    assert.equal((text:gsub('"m"', '"other"')),
                 body.text(body.of_text(text, false), "other"))
  end)

  it("has no model where the caller's had none", function()
    assert.equal('{"x":1}',
                 body.text(body.of_text('{"x":1}', false), "m"))
    assert.equal('{"model":"m"}', body.text(body.of_table({ model = "m" })))
  end)
end)
