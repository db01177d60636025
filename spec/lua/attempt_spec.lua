-- One attempt over real sockets: what goes out with it, and what it is
-- charged with.
local pool = require "spec.support.pool"
local testing = require "drover.testing"

local over, cleanup, request = pool.over, pool.cleanup, pool.request
local says = pool.says

local DONE = { prompt_tokens = 5, completion_tokens = 2, total_tokens = 7 }


describe("each attempt", function()
  after_each(cleanup)

  it("tells how long we wait, and is known as the same request", function()
    over({ { testing.error(503, "full") }, { testing.reply "ok" } })
    for _ = 1, 2 do
      assert(pool.router:chat(request(), { timeout = 30 }))
    end
    local first, second = pool.servers[1]:requests(), pool.servers[2]:requests()
    assert.equal(2, #second)
    local seen = {}
    for i = 1, 2 do
      local a, b = first[i].headers, second[i].headers
      assert.matches("^drover%-%x+%-%d+$", a["idempotency-key"])
      assert.equal(a["idempotency-key"], b["idempotency-key"])
      assert.is_nil(seen[a["idempotency-key"]])
      seen[a["idempotency-key"]] = true
      local left, later = tonumber(a["x-request-timeout-ms"]),
                          tonumber(b["x-request-timeout-ms"])
      assert.is_true(later > 0 and later <= left and left <= 30000)
    end
  end)

  it("leaves a caller's own words for that to stand", function()
    over({ { testing.reply "ok" } })
    assert(pool.router:chat(request(), { headers = {
      ["Idempotency-Key"] = "mine", ["X-Request-Timeout-Ms"] = "7" } }))
    local headers = pool.servers[1]:requests()[1].headers
    assert.equal("mine", headers["idempotency-key"])
    assert.equal("7", headers["x-request-timeout-ms"])
  end)
end)


describe("what an attempt is charged with", function()
  after_each(cleanup)

  it("is the node's usage", function()
    over({ { says("hello", DONE) } })
    local reply = assert(pool.router:chat(request()))
    assert.is_nil(reply.drover.estimated)
    assert.is_nil(reply.drover.attempts[1].estimated)
    assert.equal(7, reply.drover.cost)
    assert.equal(2, pool.router:nodes()[1].output_tokens)
  end)

  for name, usage in pairs { none = false, zero = { prompt_tokens = 0,
                                                    completion_tokens = 0 },
                             absurd = { prompt_tokens = 2 ^ 63,
                                        completion_tokens = -1 } } do
    it("is estimated where the usage is " .. name, function()
      over({ { says(("x"):rep(35), usage or nil) } })
      local reply = assert(pool.router:chat(request()))
      assert.is_true(reply.drover.estimated)
      assert.is_true(reply.drover.attempts[1].estimated)
      local node = pool.router:nodes()[1]
      assert.equal(10, node.output_tokens)
      assert.is_true(node.input_tokens > 0)
      assert.equal(node.input_tokens + 10, reply.drover.cost)
    end)
  end

  it("is the prompt and the text that came where a stream is cut", function()
    local reply = testing.stream { ("x"):rep(35), "y" }
    reply.cut = 2
    over({ { reply } })
    local _, e = pool.router:stream(request()):join()
    assert.equal("truncated", e.kind)
    assert.is_true(e.attempts[1].estimated)
    assert.equal(10, pool.router:nodes()[1].output_tokens)
    assert.is_true(pool.router:nodes()[1].input_tokens > 0)
  end)

  it("is what the limit of tokens keeps of its booking", function()
    local function ask()
      local asked = request()
      asked.max_tokens = 900
      return pool.router:chat(asked)
    end
    over({ { says("hello", DONE), testing.error(503, "full"),
             testing.error(500, "broken"), says(("x"):rep(3150)) } }, {
      limits = { tpm = 60, burst = { tokens = 1000 } },
      retry = { attempts = 1 } })
    assert(ask())                       -- 7 tokens
    for _, kind in ipairs { "overloaded", "overloaded" } do
      local _, e = ask()                -- none, and the prompt's
      assert.equal(kind, e.kind)
    end
    assert(ask())                       -- 900 and the prompt's
    local _, e = ask()
    assert.equal("rate_limited", e.kind)
    assert.equal(0, #e.attempts)
  end)

  it("is nothing where the node refused, and the prompt where it may not have",
     function()
    over({ { testing.error(503, "full") }, { testing.error(500, "broken") } })
    local _, e = pool.router:chat(request())
    local nodes = pool.router:nodes()
    assert.equal(0, nodes[1].input_tokens)
    assert.is_true(nodes[2].input_tokens > 0)
    assert.equal(0, nodes[2].output_tokens)
    assert.is_nil(e.attempts[1].estimated)
    assert.is_true(e.attempts[2].estimated)
    assert.is_true(e.maybe_billed)
  end)
end)


describe("a stream with a quirk", function()
  after_each(cleanup)

  it("is whole, and counted", function()
    local bare = testing.stream { "a" }
    bare.cut = 3                        -- its finish reason, no end mark
    local unfinished = { sse = { { choices = { { delta = { content = "a" } } } },
                                 "[DONE]" } }
    over({ { testing.stream { "a" }, bare, unfinished } })
    for i = 0, 2 do
      local reply = assert(pool.router:stream(request()):join())
      assert.equal("stop", reply.choices[1].finish_reason)
      assert.equal(i, pool.metric("drover_stream_quirks_total") or 0)
    end
  end)
end)
