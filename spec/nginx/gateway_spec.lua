-- What a caller of `drover serve` gets, from a real nginx in front of
-- bench/upstream.
local json = require "drover.json"
local nginx = require "spec.support.nginx"

local ASK = '"messages":[{"role":"user","content":"hi"}]'
local CHAT = '{"model":"bench",' .. ASK .. "}"
local STREAM = '{"model":"bench","stream":true,' .. ASK .. "}"

-- Models by which a request chooses its trouble.
local CONFIG = [[
local function node(id, steps, more)
  local n = { id = id, url = "%s" .. steps .. "/v1", models = { id } }
  for k, v in pairs(more or {}) do n[k] = v end
  return n
end
return {
  workers = 2, max_body = 65536,
  router = {
    retry = { attempts = 1 },
    timeout = { total = 5, first_token = 1, idle = 1 },
    nodes = {
      node("bench", "/chunks-20/gap-1"),
      node("broken", "/status-500"), node("busy", "/status-429"),
      node("shut", "/close"), node("hang", "/hang"),
      node("cut", "/gap-1/cut-3"), node("error", "/gap-1/error-3"),
      node("key", "/status-401"), node("stall", "/gap-3000"),
      { id = "nobody", url = "http://127.0.0.1:%d/v1", models = { "nobody" } },
    },
  },
}
]]


local function model(name, stream)
  return ((stream and STREAM or CHAT):gsub("bench", name, 1))
end


-- The data of each event.
local function events(text)
  local list = {}
  for data in text:gmatch("data: ([^\n]*)\n\n") do list[#list + 1] = data end
  return list
end


describe("drover serve", function()
  local server, upstream, chat

  setup(function()
    upstream = nginx.upstream()
    server = nginx.serve(CONFIG:format(upstream.url, nginx.port()))
    chat = server.url .. "/v1/chat/completions"
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  local function error_of(text)
    local body = assert(json.decode(text), text).error
    assert.is_string(body.message)
    assert.is_string(body.type)
    assert.truthy(text:find('"param":', 1, true))
    assert.truthy(text:find('"code":', 1, true))
    return body
  end

  it("passes a reply as it came", function()
    local status, text, head = nginx.post(chat, CHAT)
    assert.equal(200, status, text)
    assert.equal(1000, #text)
    assert.equal("chatcmpl-bench", json.decode(text).id)
    assert.matches("[Cc]ontent%-[Tt]ype: application/json", head)
    assert.matches("x%-request%-id: req_%x+", head)
  end)

  it("waits no longer than the caller's x-request-timeout-ms", function()
    local status, text = nginx.post(chat, model("hang"),
                                    "-H 'x-request-timeout-ms: 50'")
    assert.equal(504, status)
    assert.truthy(error_of(text).message:find("timeout.total of 0.05 s", 1,
                                              true), text)
    assert.equal(200, nginx.post(chat, CHAT,
                                 "-H 'x-request-timeout-ms: 99999999'"))
    for _, bad in ipairs { "soon", "0", "-1", "1.5" } do
      status, text = nginx.post(chat, CHAT,
                                "-H 'x-request-timeout-ms: " .. bad .. "'")
      assert.equal(400, status)
      assert.equal("x-request-timeout-ms", error_of(text).param)
    end
  end)

  it("blames no node for a caller who does not wait", function()
    for _ = 1, 7 do                     -- five failures would be enough
      assert.equal(504, (nginx.post(chat, model("hang"),
                                    "-H 'x-request-timeout-ms: 20'")))
    end
    assert.equal(200, (nginx.post(chat, CHAT)))
  end)

  it("repeats the caller's x-request-id", function()
    local _, _, head = nginx.post(chat, CHAT, "-H 'x-request-id: mine-7'")
    assert.matches("x%-request%-id: mine%-7", head)
  end)

  it("asks the upstream what it was asked", function()
    nginx.post(chat, '{"model":"bench","x":[],"y":1.50,"z":null,' .. ASK .. "}")
    local _, text = nginx.get(upstream.url .. "/last")
    assert.truthy(text:find('"x":[],"y":1.50,"z":null', 1, true), text)
  end)

  it("is found without /v1 and with a slash at the end", function()
    assert.equal(200, (nginx.post(server.url .. "/chat/completions", CHAT)))
    assert.equal(200, (nginx.post(chat .. "/", CHAT)))
    assert.equal(200, (nginx.get(server.url .. "/v1/models/")))
  end)

  it("streams chunk by chunk and ends with [DONE]", function()
    local status, text, head = nginx.post(chat, STREAM)
    assert.equal(200, status, text)
    assert.matches("text/event%-stream; charset=utf%-8", head)
    assert.matches("no%-cache", head)
    assert.matches("x%-accel%-buffering: no", head)
    local list = events(text)
    assert.equal("[DONE]", list[#list])
    assert.equal(22, #list)
    for i = 1, 20 do
      assert.truthy(list[i]:find('"content":"' .. i - 1 .. "@", 1, true))
    end
    assert.is_nil(text:find("usage", 1, true))
  end)

  it("gives usage at the end where it was asked for", function()
    local _, text = nginx.post(chat, (STREAM:gsub("}$",
      ',"stream_options":{"include_usage":true}}')))
    local list = events(text)
    assert.equal("[DONE]", list[#list])
    local last = json.decode(list[#list - 1])
    assert.equal(29, last.usage.total_tokens)
    assert.same({}, last.choices)
    for i = 1, #list - 2 do
      assert.truthy(list[i]:find('"usage":null', 1, true), list[i])
    end
  end)

  it("lists the models", function()
    local status, text = nginx.get(server.url .. "/v1/models")
    assert.equal(200, status)
    local list = json.decode(text)
    assert.equal("list", list.object)
    assert.equal(10, #list.data)
    local one = json.decode(select(2, nginx.get(server.url
                                                .. "/v1/models/bench")))
    assert.equal("bench", one.id)
    assert.equal("model", one.object)
    status, text = nginx.get(server.url .. "/v1/models/none")
    assert.equal(404, status)
    assert.equal("model_not_found", error_of(text).code)
  end)

  it("is healthy, counts, and shows its nodes on loopback", function()
    assert.equal(200, (nginx.get(server.url .. "/health")))
    local _, text = nginx.get(server.url .. "/metrics")
    assert.matches("drover_attempts_total{node=\"bench\",kind=\"ok\"} %d", text)
    local _, nodes = nginx.get(server.url .. "/drover/nodes")
    assert.equal("bench", json.decode(nodes).nodes[1].id)
  end)

  local refusals = {
    { "bad JSON", '{"model":', 400 },
    { "no object", "[]", 400 },
    { "a wrong type", '{"model":"bench","messages":"hi"}', 400, "messages" },
    { "no model", "{" .. ASK .. "}", 400, "model" },
    { "an unknown model", model("none"), 404, "model", "model_not_found" },
    { "an unknown model in a stream", model("none", true), 404, nil,
      "model_not_found" },
    { "a body that is too large", '{"x":"' .. ("y"):rep(70000) .. '"}', 413 },
    { "an upstream's 500", model("broken"), 503, nil, "overloaded" },
    { "an upstream's 429", model("busy"), 429 },
    { "an upstream's 401", model("key"), 502 },
    { "a connection that closes", model("shut"), 502, nil, "reset" },
    { "nobody at the address", model("nobody"), 502, nil, "unreachable" },
    { "an upstream that is silent", model("hang", true), 504, nil, "timeout" },
  }
  for _, row in ipairs(refusals) do
    it("answers " .. row[1] .. " with " .. row[3], function()
      local status, text, head = nginx.post(chat, row[2])
      assert.equal(row[3], status, text)
      local body = error_of(text)
      if row[4] then assert.equal(row[4], body.param) end
      if row[5] then assert.equal(row[5], body.code) end
      assert.matches("x%-should%-retry: false", head)
      assert.equal(status == 429 or status == 503,
                   head:lower():find("retry%-after:") ~= nil)
      assert.matches("x%-request%-id: ", head)
    end)
  end

  it("answers 400 where the request line is none", function()
    local status, text = nginx.get(server.url .. "/health", "-X 'A B'")
    assert.equal(400, status)
    assert.equal("invalid_request_error", error_of(text).type)
  end)

  it("answers paths and methods that it does not have", function()
    local status, text = nginx.get(server.url .. "/nope")
    assert.equal(404, status)
    error_of(text)
    status, text = nginx.get(chat)
    assert.equal(405, status)
    error_of(text)
  end)

  for _, name in ipairs{ "cut", "error", "stall" } do
    it("ends a stream (" .. name .. ") with an error and no [DONE]", function()
      local status, text = nginx.post(chat, model(name, true))
      assert.equal(200, status)
      local list = events(text)
      local last = json.decode(list[#list])
      assert.is_table(last.error, list[#list])
      assert.is_string(last.error.message)
      assert.is_nil(text:find("[DONE]", 1, true))
      assert.truthy(list[1]:find('"content":"0@', 1, true))
    end)
  end

  it("keeps nothing in flight", function()
    assert.is_true(nginx.until_true(function()
      return nginx.metric(server.url, "drover_inflight") == 0
    end, 5))
  end)
end)


describe("drover serve with keys", function()
  local server, upstream

  setup(function()
    upstream = nginx.upstream()
    server = nginx.serve(string.format([[return { workers = 1,
      keys = { { key = "sk-ann-123456", name = "ann" } },
      router = { nodes = { { id = "up", url = "%s/v1" } } } }]], upstream.url))
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  it("lets in who has one", function()
    assert.equal(200, (nginx.post(server.url .. "/v1/chat/completions", CHAT,
      "-H 'authorization: Bearer sk-ann-123456'")))
  end)

  for _, header in ipairs{ "x: y", "authorization: Bearer sk-ann-123457",
                           "authorization: Bearer ", "authorization: Basic x",
                           "authorization: Bearer sk-ann-12345" } do
    it("answers 401 to " .. header, function()
      local status, text = nginx.post(server.url .. "/v1/chat/completions",
                                      CHAT, "-H '" .. header .. "'")
      assert.equal(401, status)
      assert.equal("invalid_api_key", json.decode(text).error.code)
      assert.equal(401, (nginx.get(server.url .. "/v1/models")))
      assert.is_nil(text:find("sk-ann", 1, true))
    end)
  end

  it("lets anybody ask for health and metrics", function()
    assert.equal(200, (nginx.get(server.url .. "/health")))
    assert.equal(200, (nginx.get(server.url .. "/metrics")))
  end)

  it("never tells the upstream a caller's key", function()
    local _, text = nginx.get(upstream.url .. "/last")
    assert.is_nil(text:find("sk-ann", 1, true))
  end)
end)


describe("drover serve without an upstream", function()
  it("answers 503 on /health once its only node is out", function()
    local server = nginx.serve(string.format([[return { workers = 1,
      router = { retry = { attempts = 1 },
        nodes = { { id = "up", url = "http://127.0.0.1:%d/v1" } } } }]],
      nginx.port()))
    local out = nginx.until_true(function()
      nginx.post(server.url .. "/v1/chat/completions", CHAT)
      return (nginx.get(server.url .. "/health")) == 503
    end, 3)
    local status, text, head = nginx.post(server.url .. "/v1/chat/completions",
                                          CHAT)
    server:stop()
    assert.is_true(out)
    assert.equal(503, status, text)
    assert.equal("no_node", json.decode(text).error.code)
    assert.matches("retry%-after: %d+", head)
  end)
end)
