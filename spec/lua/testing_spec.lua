-- What drover.testing gives to people's specs.
local drover = require "drover"
local testing = require "drover.testing"


describe("testing.clock()", function()
  it("stands still until it is told", function()
    local clock = testing.clock(5)
    clock.advance(2)
    clock.sleep(3)
    assert.equal(10, clock.now())
    assert.equal(3, clock.slept)
  end)
end)


describe("testing.server()", function()
  local server, router
  local ask = { model = "m", messages = { { role = "user", content = "hi" } } }

  local function over(replies, conf)
    server = testing.server(replies)
    conf = conf or { retry = { attempts = 1 } }
    conf.nodes = { { id = "n", url = server.url } }
    router = drover.new(conf)
  end

  after_each(function()
    if server then
      router:close()
      server:stop()
    end
  end)

  it("names an option that it has not", function()
    for field, opts in pairs { ["opts%.lifetme: unknown"] = { lifetme = 1 },
                               ["opts%.lifetime: must"] = { lifetime = "1" },
                               ["opts: must be a table"] = 5 } do
      local ok, why = pcall(testing.server, { testing.reply("a") }, opts)
      assert.is_false(ok)
      assert.matches("testing%.server: " .. field, why)
    end
  end)

  it("streams a list of texts, and no text", function()
    local ok, why = pcall(testing.stream, "abc")
    assert.is_false(ok)
    assert.matches("testing%.stream: a list of texts is wanted, got string", why)
  end)

  it("names the reply that is none", function()
    for _, bad in ipairs { "hello", { stauts = 200 }, { status = "200" } } do
      local ok, why = pcall(testing.server, { testing.reply("a"), bad })
      assert.is_false(ok)
      assert.matches("replies%[2%]: ", why)
    end
  end)

  it("answers in turn, the last one again and again", function()
    over { testing.reply("a"), testing.reply("b") }
    local texts = {}
    for i = 1, 3 do
      texts[i] = router:chat(ask).choices[1].message.content
    end
    assert.same({ "a", "b", "b" }, texts)
    assert.same({ 1, 2, 3 }, { server:requests()[1].number,
      server:requests()[2].number, server:requests()[3].number })
  end)

  it("gives errors with their headers", function()
    over { testing.error(429, "slow", { code = "rate_limit_exceeded",
                                        headers = { ["retry-after"] = "7" } }) }
    local _, e = router:chat(ask)
    assert.equal("rate_limited", e.kind)
    assert.equal(7, e.retry_after)
    assert.equal("rate_limit_exceeded", e.code)
  end)

  it("tells which connections a cancel closed", function()
    local slow = testing.stream { "a", "b", "c", "d" }
    slow.pause = 0.05
    over { slow, testing.reply("x") }
    local stream = router:stream(ask)
    stream:cancel()
    assert(router:chat(ask))
    local during
    for _ = 1, 200 do                   -- until the server has seen it
      during = select(2, server:closed())
      if during > 0 then
        break
      end
      drover.sleep(0.005)
    end
    assert.equal(1, during)
  end)

  it("wants a list of replies", function()
    server = nil
    assert.has_error(function() testing.server {} end)
  end)
end)
