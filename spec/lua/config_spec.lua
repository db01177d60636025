-- What drover.new takes and refuses; no message holds a key.
local drover = require "drover"


local function refusal(conf)
  local ok, why = pcall(drover.new, conf)
  assert.is_false(ok)
  return (why:gsub("^[^:]*:%d+: ", ""))
end


local function with(node)
  return { nodes = { { url = "http://127.0.0.1:1" }, node } }
end


describe("drover.new()", function()
  local rows = {
    { { nodes = {}, polcy = 1 }, "polcy: unknown field" },
    { { nodes = 5 }, "nodes: must be a table" },
    { { nodes = {}, limits = { rpm = 0 } }, "limits.rpm: must be 1 to" },
    { { nodes = {}, limits = { rpm = 1.5 } }, "limits.rpm: must be a whole" },
    { { nodes = {}, limits = { rpm = true } }, "limits.rpm: must be a number" },
    { { nodes = {}, limits = { tpm = "5" } }, "limits.tpm: must be a number" },
    { { nodes = {}, limits = { concurrent = false } }, "limits.concurrent: " },
    { { nodes = {}, limits = { dollars_per_day = 0 } },
      "limits.dollars_per_day: must be" },
    { { nodes = {}, limits = { wait = -1 } }, "limits.wait: must be 0 to" },
    { { nodes = {}, limits = { burst = { requests = 5 } } },
      "limits.burst.requests: goes with rpm, which is not set" },
    { { nodes = {}, limits = { rpm = 1, burst = { requests = 1441 } } },
      "limits.burst.requests: must be at most 1440 times rpm" },
    { { nodes = {}, limits = { rpm = 1, burst = { reqests = 1 } } },
      "limits.burst.reqests: unknown field" },
    { { nodes = {}, limits = { per = { tenants = {} } } },
      "limits.per.tenants: unknown field" },
    { { nodes = {}, limits = { per = { tenant = { rpm = -1 } } } },
      "limits.per.tenant.rpm: must be" },
    { { nodes = {}, limits = { per = { tenant = { wait = 1 } } } },
      "limits.per.tenant.wait: unknown field" },
    { { nodes = {}, limits = { per = { model = { named = { x = 5 } } } } },
      "limits.per.model.named[x]: must be a table" },
    { { nodes = {}, limits = { per = { model = { named = { x = {
        rmp = 5 } } } } } }, "limits.per.model.named[x].rmp: unknown field" },
    { { nodes = {}, limits = { per = { model = { named = { x = {
        burst = { tokens = 5 } } } } } } },
      "limits.per.model.named[x].burst.tokens: goes with tpm" },
    { { nodes = {}, limits = { redis = {} } }, "limits.redis.url: is missing" },
    { { nodes = {}, limits = { redis = { url = "http://a" } } },
      "limits.redis.url: must be redis://" },
    { { nodes = {}, limits = { redis = { url = "redis://a:99999" } } },
      "limits.redis.url: must be redis://" },
    { { nodes = {}, limits = { redis = { url = "redis://a", hosts = 0 } } },
      "limits.redis.hosts: must be" },
    { { nodes = {}, limits = { redis = { url = "redis://a",
        prefix = "a b" } } }, "limits.redis.prefix: letters" },
    { { nodes = {}, limits = { redis = { url = "redis://a",
        password = { env = "NO_SUCH_THING" } } } },
      "limits.redis.password: the environment has no" },
    { { nodes = {}, limits = { redis = { url = "redis://:x@a",
        password = { env = "HOME" } } } },
      "limits.redis.password: is in the url too" },
    { { nodes = { { url = "http://a:1" } }, limits = { dollars_per_day = 5 } },
      "nodes[1].price: is missing, and dollars are limited" },
    { { nodes = { { url = "http://a:1" } }, limits = { per = { tenant = {
        named = { x = { dollars_per_month = 5 } } } } } },
      "nodes[1].price: is missing" },
    { with { url = "http://a:1", limits = { dollars_per_day = 5 } },
      "nodes[2].price: is missing" },
    { { nodes = {}, limits = { concurrent = 0 } }, "limits.concurrent: must" },
    { { nodes = {}, queue = 5 }, "queue: must be a table" },
    { { nodes = {}, queue = { size = 0 } }, "queue.size: must be 1 to" },
    { { nodes = {}, queue = { hold = -1 } }, "queue.hold: must be 0 to" },
    { { nodes = {}, queue = { sise = 1 } }, "queue.sise: unknown field" },
    { { nodes = {}, hedge = {} }, "hedge: not built yet" },
    { { nodes = {}, cache = {} }, "cache: not built yet" },
    { { nodes = {}, single_flight = true }, "single_flight: not built yet" },
    { { nodes = {}, retry = { budget = 0 } }, "retry.budget: must be 0.01" },
    { { nodes = {}, retry = { budget = 2 } }, "retry.budget: must be 0.01" },
    { { nodes = {}, retry = { attempts = 0 } }, "retry.attempts: must be" },
    { { nodes = {}, retry = { ambiguous = "x" } }, "retry.ambiguous: must" },
    { { nodes = {}, retry = { min = 9, max = 1 } }, "retry.max: must be" },
    { { nodes = {}, timeout = { total = "5" } }, "timeout.total: must be a" },
    { { nodes = {}, timeout = { totl = 5 } }, "timeout.totl: unknown field" },
    { { nodes = {}, policy = "cheapest" }, "policy: cheapest: not built yet" },
    { { nodes = {}, policy = "best" }, "policy: no built-in policy best" },
    { { nodes = {}, name = ("x"):rep(64) }, "name: must be at most 63" },
    { with { url = "ftp://x" }, "nodes[2].url: " },
    { with {}, "nodes[2].url: is missing" },
    { with { url = 5 }, "nodes[2].url: must be a string" },
    { with { uri = "http://a:1" }, "nodes[2].uri: unknown field" },
    { with { url = "http://a:1", wieght = 2 }, "nodes[2].wieght: unknown" },
    { with { url = "http://a:1", weight = -1 }, "nodes[2].weight: must be" },
    { with { url = "http://a:1", models = {} }, "nodes[2].models: must not" },
    { with { url = "http://a:1", models = { 5 } }, "nodes[2].models: must" },
    { with { url = "http://a:1", price = { input = 1 } }, "nodes[2].price:" },
    { with { url = "http://a:1", limits = { rpm = 0 } },
      "nodes[2].limits.rpm: must be" },
    { with { url = "http://a:1", limits = { wait = 5 } },
      "nodes[2].limits.wait: unknown field" },
    { with { url = "http://a:1", limits = { burst = { requests = 2 } } },
      "nodes[2].limits.burst.requests: goes with rpm" },
    { with { url = "https://a" }, "nodes[2].key: an https node needs one" },
    { with { url = "https://a", key = "" }, "nodes[2].key: the key is empty" },
    { with { url = "https://a", key = "YOUR_API_KEY" }, "nodes[2].key: the" },
    { with { url = "https://a", key = "sk-xxxx" }, "nodes[2].key: the key is" },
    { with { url = "https://a", key = "a b" }, "nodes[2].key: the key is not" },
    { with { url = "https://a", key = { env = "NO_SUCH_THING" } },
      "nodes[2].key: the environment has no NO_SUCH_THING" },
    { with { url = "https://a", key = { file = "/nonexistent" } },
      "nodes[2].key: /nonexistent" },
    { with { url = "https://a", key = { fil = "x" } },
      "nodes[2].key: key.fil" },
    { with { url = "https://a", keys = { "good1234", "" } },
      "nodes[2].keys[2]: the key is empty" },
    { with { url = "https://a", key = "k1234", keys = { "k1234" } },
      "nodes[2].keys: give key or keys" },
    { { nodes = { { id = "a", url = "http://a:1" },
                  { id = "a", url = "http://b:1" } } },
      "nodes[2].id: a is there twice" },
    { with { url = "local:x.gguf", threads = 65 }, "nodes[2].threads: must" },
    { with { url = "local:x.gguf", template = "alpaca" },
      "nodes[2].template: must be one of chatml" },
    { with { url = "local:x.gguf", device = "cuda:0" }, "nodes[2].device: " },
    { with { url = "local:x.gguf", kv = "f8" }, "nodes[2].kv: " },
    { with { url = "local:x.gguf", step_ms = 0 }, "nodes[2].step_ms: " },
    { with { url = "local:x.gguf", key = "k" }, "nodes[2].key: unknown" },
  }
  for _, row in ipairs(rows) do
    it("refuses with " .. row[2], function()
      local why = refusal(row[1])
      assert.equal(row[2], why:sub(1, #row[2]), why)
    end)
  end

  it("says nothing of a key in a refusal", function()
    local secret = "s3cret\nvalue"
    local why = refusal(with { url = "https://a", key = secret })
    assert.is_nil(why:find("s3cret", 1, true))
  end)

  it("returns an error where a model file cannot be read", function()
    local router, e = drover.new { nodes = { { url = "local:none.gguf" } } }
    assert.is_nil(router)
    assert.is_true(drover.is_err(e))
    assert.equal("config", e.phase)
  end)

  it("names nodes by host and port, and each key's row", function()
    local router = drover.new { nodes = {
      { url = "http://127.0.0.1:9/v1" },
      { id = "cloud", url = "https://example.invalid",
        keys = { "aaaa1111", "bbbb2222" } },
    } }
    local ids = {}
    for i, node in ipairs(router:nodes()) do
      ids[i] = node.id
    end
    assert.same({ "127.0.0.1:9", "cloud", "cloud#2" }, ids)
    assert.is_nil(tostring(router):find("aaaa1111", 1, true))
    router:close()
  end)

  it("does not change the caller's table", function()
    local conf = { nodes = { { url = "http://127.0.0.1:9" } } }
    local router = drover.new(conf)
    assert.same({ nodes = { { url = "http://127.0.0.1:9" } } }, conf)
    router:close()
  end)
end)


describe("a request", function()
  local router
  setup(function()
    router = drover.new { nodes = { { url = "http://127.0.0.1:9" } } }
  end)
  teardown(function() router:close() end)

  local hi = { { role = "user", content = "hi" } }
  local rows = {
    { 5, nil, "request: must be a table" },
    { {}, nil, "messages: must be a list" },
    { { messages = {} }, nil, "messages: must be a list with at least" },
    { { messages = { "x" } }, nil, "messages[1]: must be a table" },
    { { messages = { { content = "x" } } }, nil, "messages[1].role: " },
    { { messages = { { role = "user" } } }, nil, "messages[1].content: " },
    { { messages = hi, model = 5 }, nil, "model: must be a string" },
    { { messages = hi, max_tokens = 0 }, nil, "max_tokens: must be" },
    { { messages = hi, max_tokens = 1.5 }, nil, "max_tokens: must be a" },
    { { messages = hi, stream = true }, nil, "stream: must not be true" },
    { { messages = hi, x = print }, nil, "x: a function is no JSON" },
    { drover.raw "{", nil, "request: not JSON" },
    { drover.raw "[1]", nil, "request: must be a JSON object" },
    { { messages = hi }, { sesion = 1 }, "opts.sesion: unknown field" },
    { { messages = hi }, { session = "s" }, "opts.session: not built yet" },
    { { messages = hi }, { priority = 1 }, "opts.priority: must be a" },
    { { messages = hi }, { priority = "high" },
      "opts.priority: must be one of interactive, default, batch" },
    { { messages = hi }, { timeout = -1 }, "opts.timeout: must be" },
    { { messages = hi }, { timeout = { x = 1 } }, "opts.timeout.x: unknown" },
    { { messages = hi }, { headers = { Authorization = "x" } },
      "opts.headers: Authorization is set by the router" },
    { { messages = hi }, { headers = { ["a b"] = "c" } }, "opts.headers: " },
    { { messages = hi }, { headers = { a = "b\r\nc: d" } }, "opts.headers: " },
  }
  for _, row in ipairs(rows) do
    it("that is wrong raises: " .. row[3], function()
      local ok, why = pcall(router.chat, router, row[1], row[2])
      assert.is_false(ok)
      assert.truthy(why:find(row[3], 1, true), why)
    end)
  end

  for _, name in ipairs { "chat", "stream", "batch", "pick", "nodes", "add",
                          "begin", "close" } do
    it("with a dot in router." .. name .. " raises in the caller's line", function()
      local _, why = pcall(function()
        local found = router[name]({ messages = hi })
        return found
      end)
      assert.matches("^spec/lua/config_spec.lua:%d+: use router:" .. name
                     .. "%(%.%.%.%) with a colon$", why)
    end)
  end

  it("that is wrong raises in the caller's line", function()
    for _, name in ipairs { "chat", "stream", "batch" } do
      local _, why = pcall(function()
        local found = router[name](router, 5)
        return found
      end)
      assert.matches("^spec/lua/config_spec.lua:%d+: requests?: must be", why)
    end
  end)
end)
