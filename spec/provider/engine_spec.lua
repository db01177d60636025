-- Local nodes: OpenAI's request in, the same events and the same reply out.
local bundled = require "drover.bundled"
local drover = require "drover"
local engine = require "drover.provider.engine"
local json = require "drover.json"

local question = { { role = "user", content = "What is the capital of Norway?" } }


local function encode(request)
  request.messages = request.messages or question
  return engine.encode { request = request, max_tokens = request.max_tokens }
end


describe("the local model's dialect", function()
  it("takes the parameters of sampling", function()
    local g = encode { max_tokens = 9, temperature = 0.5, top_p = 0.9,
                       top_k = 40, seed = 7, stop = "\n" }
    assert.same({ messages = question, max_tokens = 9, temperature = 0.5,
                  top_p = 0.9, top_k = 40, seed = 7, stop = { "\n" } }, g)
  end)

  it("is greedy where nothing is said", function()
    local g = encode {}
    assert.equal(0, g.temperature)
    assert.equal(0, g.max_tokens)
  end)

  it("joins the texts of parts, and calls a developer system", function()
    local g = encode { messages = { { role = "developer", content = {
      { type = "text", text = "a" }, { type = "text", text = "b" } } } } }
    assert.same({ { role = "system", content = "ab" } }, g.messages)
  end)

  local refused = {
    { { tools = { {} } }, "tools:" }, { { logprobs = 1 }, "logprobs:" },
    { { top_logprobs = 2 }, "top_logprobs:" },
    { { logprobs = true, top_logprobs = 21 }, "top_logprobs:" },
    { { response_format = { type = "grammar" } }, "response_format:" },
    { { response_format = { type = "json_schema" } },
      "response_format.json_schema.schema:" },
    { { n = 129 }, "n:" }, { { n = 1.5 }, "n:" }, { { stop = { "" } }, "stop:" },
    { { top_k = -1 }, "top_k:" }, { { logit_bias = 3 }, "logit_bias:" },
    { { logit_bias = { a = 1 } }, "logit_bias:" },
    { { logit_bias = { ["1"] = 101 } }, "logit_bias:" },
    { { min_p = 2 }, "min_p:" }, { { presence_penalty = "x" }, "presence_penalty:" },
    { { frequency_penalty = -3 }, "frequency_penalty:" },
    { { repetition_penalty = 0 }, "repetition_penalty:" },
    { { stop_token_ids = { 1.5 } }, "stop_token_ids:" },
    { { messages = { { role = "user", content = { { type = "image_url" } } } } },
      "messages[1].content:" },
    { { messages = { { role = "tool", content = "x" } } },
      "messages[1].role:" },
    { { messages = { { role = "assistant", tool_calls = { {} } } } },
      "messages[1].tool_calls:" },
    { { messages = { question[1], { role = "alien", content = "x" } } },
      "messages[2].role:" },
    { { top_p = 0 }, "top_p:" },
  }
  for _, row in ipairs(refused) do
    it("refuses " .. row[2], function()
      local g, why = encode(row[1])
      assert.is_nil(g)
      assert.equal(row[2], why:sub(1, #row[2]))
    end)
  end

  it("takes all that changes a draw, and the shape of what is drawn", function()
    local g = assert(encode {
      min_p = 0.1, repetition_penalty = 1.1, presence_penalty = 0.5,
      frequency_penalty = -0.5, logit_bias = { ["7"] = -100, ["3"] = 5 },
      logprobs = true, top_logprobs = 3, n = 2, stop_token_ids = { 4, 5 },
      response_format = { type = "json_schema", json_schema = {
        name = "x", strict = true, schema = { type = "object" } } },
    })
    assert.same({ 0.1, 1.1, 0.5, -0.5, 1, 3, 2 },
                { g.min_p, g.repetition, g.presence, g.frequency, g.logprobs,
                  g.top_logprobs, g.n })
    assert.same({ { 3, 5 }, { 7, -100 } }, g.bias)
    assert.same({ 4, 5 }, g.stop_ids)
    assert.equal('{"type":"object"}', g.schema)
  end)

  it("cuts a schema out of the text that it came in", function()
    local text = '{"response_format":{"type":"json_schema","json_schema":'
      .. '{"schema":{"properties":{"z":{},"a":{}}}}}}'
    local request = json.decode(text)
    request.messages = question
    local g = assert(engine.encode {
      request = request, body = require("drover.body").of_text(text) })
    assert.equal('{"properties":{"z":{},"a":{}}}', g.schema)
  end)

  it("takes what asks for nothing", function()
    assert.truthy(encode { tools = json.array {}, logprobs = false,
                           presence_penalty = 0, tool_choice = "none",
                           logit_bias = {}, n = 1, top_logprobs = 0,
                           response_format = { type = "text" } })
  end)
end)


describe("a local node", function()
  local router

  setup(function()
    router = assert(drover.new {
      nodes = { { url = "local:" .. bundled.path() } },
    })
  end)
  teardown(function() router:close() end)

  it("is named, and takes the model, as its file is called", function()
    assert.same({ "lambkin" }, router:models())
    assert.equal("lambkin", router:nodes()[1].id)
  end)

  it("names the field that it refuses", function()
    local _, e = router:chat { messages = { { role = "alien",
                                              content = "x" } } }
    assert.equal("bad_request", e.kind)
    assert.equal("messages[1].role", e.param)
    _, e = router:chat { messages = question, max_tokens = 1e9 }
    assert.equal("context_too_long", e.kind)
    assert.equal("messages", e.param)
    assert.matches("maximum context length", e.message)
  end)

  it("answers in the OpenAI shape", function()
    local reply = assert(router:chat { model = "lambkin",
                                       messages = question })
    local choice = reply.choices[1]
    assert.equal("The capital of Norway is Oslo.", choice.message.content)
    assert.equal("stop", choice.finish_reason)
    assert.equal("chat.completion", reply.object)
    assert.equal("lambkin", reply.model)
    assert.truthy(reply.id:find("^chatcmpl%-"))
    local usage = reply.usage
    assert.equal(usage.total_tokens,
                 usage.prompt_tokens + usage.completion_tokens)
  end)

  it("streams chunks that a client can read", function()
    local stream = assert(router:stream {
      messages = question, stream_options = { include_usage = true },
    })
    local texts, chunks = {}, {}
    for event in stream:events() do
      texts[#texts + 1] = event.text
      chunks[#chunks + 1] = assert(json.decode(event.raw))
    end
    assert.equal("The capital of Norway is Oslo.", table.concat(texts))
    assert.equal("assistant", chunks[1].choices[1].delta.role)
    assert.equal("stop", chunks[#chunks - 1].choices[1].finish_reason)
    assert.same({}, chunks[#chunks].choices)
    assert.is_true(chunks[#chunks].usage.completion_tokens > 5)
    for _, chunk in ipairs(chunks) do
      assert.equal(chunks[1].id, chunk.id)
    end
    assert.is_true(stream:join().drover.first_token_seconds > 0)
  end)

  it("answers as a schema says, its properties in the text's order", function()
    local schema = '{"type":"object","properties":{"town":{"enum":["Oslo",'
      .. '"Rome"]},"big":{"type":"boolean"},"a":{"type":"integer"}},'
      .. '"required":["a","town","big"],"additionalProperties":false}'
    local reply = assert(router:chat(drover.raw('{"model":"lambkin","messages":'
      .. json.encode(question) .. ',"temperature":1,"seed":5,"max_tokens":100,'
      .. '"response_format":{"type":"json_schema","json_schema":{"name":"t",'
      .. '"schema":' .. schema .. "}}}")))
    local text = reply.choices[1].message.content
    local town, big = text:find('"town"', 1, true), text:find('"big"', 1, true)
    assert.is_true(town < big and big < text:find('"a"', 1, true))
    assert.is_truthy(json.decode(text))
    assert.equal("stop", reply.choices[1].finish_reason)
  end)

  it("names the path of a schema that it refuses", function()
    local _, e = router:chat { messages = question, response_format = {
      type = "json_schema", json_schema = { schema = {
        type = "object", properties = { when = { type = "string",
                                                 format = "date" } } } } } }
    assert.equal("bad_request", e.kind)
    assert.equal("response_format", e.param)
    assert.matches("schema.properties.when.format", e.message, 1, true)
  end)

  it("names a token that the vocabulary has not", function()
    local _, e = router:chat { messages = question,
                               logit_bias = { ["1000000"] = 1 } }
    assert.equal("bad_request", e.kind)
    assert.matches("logit_bias", e.message)
  end)

  it("gives n choices, in a reply and in a stream", function()
    local request = { messages = question, n = 3, temperature = 4, seed = 2,
                      max_tokens = 12 }
    local reply = assert(router:chat(request))
    assert.equal(3, #reply.choices)
    local stream = assert(router:stream(request))
    local texts, roles, ends = {}, 0, 0
    for event in stream:events() do
      local choice = json.decode(event.raw).choices[1]
      if choice then
        assert.equal(event.index, choice.index)
        roles = roles + (choice.delta.role and 1 or 0)
        ends = ends + (choice.finish_reason and 1 or 0)
        texts[event.index] = (texts[event.index] or "") .. (event.text or "")
      end
    end
    assert.same({ 3, 3 }, { roles, ends })
    for i, choice in ipairs(reply.choices) do
      assert.equal(i - 1, choice.index)
      assert.equal(texts[i - 1], choice.message.content)
      assert.is_truthy(choice.finish_reason)
    end
    assert.not_equal(texts[0], texts[1])
    assert.is_true(reply.usage.completion_tokens > 20)
  end)

  it("tells log-probabilities in a reply and in a stream", function()
    local request = { messages = question, logprobs = true, top_logprobs = 2 }
    local reply = assert(router:chat(request))
    local content = reply.choices[1].logprobs.content
    local text, best = {}, true
    for i, entry in ipairs(content) do
      text[i] = string.char(unpack(entry.bytes))
      best = best and entry.logprob == entry.top_logprobs[1].logprob
      assert.is_true(entry.logprob <= 0 and #entry.top_logprobs == 2)
    end
    assert.is_true(best)                         -- it is greedy
    assert.equal(reply.choices[1].message.content, table.concat(text))
    local seen = 0
    for event in assert(router:stream(request)):events() do
      local lists = json.decode(event.raw).choices
      local told = lists[1] and lists[1].logprobs
      seen = seen + (told and #told.content or 0)
    end
    assert.equal(#content, seen)
    assert.is_truthy(json.encode(reply):find('"logprobs":{"content":[{', 1, true))
  end)

  it("stops at max_tokens, and says so", function()
    local reply = assert(router:chat { messages = question, max_tokens = 2 })
    assert.equal("length", reply.choices[1].finish_reason)
    assert.equal(2, reply.usage.completion_tokens)
  end)

  it("refuses what it does not take, and what is too long", function()
    local _, e = router:chat { messages = question, tools = { {} } }
    assert.equal("bad_request", e.kind)
    assert.equal("tools", e.param)
    _, e = router:chat { messages = {
      { role = "user", content = ("word "):rep(4000) } } }
    assert.equal("context_too_long", e.kind)
    assert.equal(0, router:stats().inflight)
  end)

  it("can be cancelled", function()
    local stream = router:stream { messages = { { role = "user",
      content = "Tell me a short story about a brave fox in the forest." } } }
    stream:cancel()
    assert.equal("cancelled", stream.err.kind)
    assert.equal(0, router:stats().inflight)
  end)
end)
