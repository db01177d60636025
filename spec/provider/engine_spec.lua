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
    { { tools = { {} } }, "tools:" }, { { logprobs = true }, "logprobs:" },
    { { response_format = { type = "json_object" } }, "response_format:" },
    { { n = 2 }, "n:" }, { { stop = { "" } }, "stop:" },
    { { top_k = -1 }, "top_k:" }, { { logit_bias = {} }, "logit_bias:" },
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

  it("takes what asks for nothing", function()
    assert.truthy(encode { tools = json.array {}, logprobs = false,
                           presence_penalty = 0, tool_choice = "none",
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
