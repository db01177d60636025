-- Clients that go away: the upstream is let go at once, the ticket settled.
local nginx = require "spec.support.nginx"

local CONFIG = [[return { workers = 1, router = {
  nodes = { { id = "up", url = "%s/v1", models = { "m" } },
            { id = "slow", url = "%s/hang/v1", models = { "slow" } } } } }]]


describe("a client that goes away", function()
  local server, upstream

  setup(function()
    upstream = nginx.upstream()
    server = nginx.serve(CONFIG:format(upstream.url, upstream.url))
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  -- Ask, leave after a while, see what that left behind.
  local function leave(body)
    local _, gone = upstream:counts()
    local cancelled = nginx.metric(server.url,
                                   "drover_requests_total{node=\"up\"")
    nginx.post(server.url .. "/v1/chat/completions", body, "--max-time 0.3")
    local let_go = nginx.until_true(function()
      return select(2, upstream:counts()) == gone + 1
    end, 3)
    local settled = nginx.until_true(function()
      return nginx.metric(server.url, "drover_inflight") == 0
    end, 3)
    assert.is_true(let_go)
    assert.is_true(settled)
    return cancelled
  end

  local function count(kind)
    local _, text = nginx.get(server.url .. "/metrics")
    local sum = 0
    for value in text:gmatch("drover_attempts_total{[^}]*kind=\"" .. kind
                             .. "\"} (%d+)") do
      sum = sum + tonumber(value)
    end
    return sum
  end

  it("row 66: in mid-stream cancels the upstream's stream", function()
    local before = count("cancelled")
    leave('{"model":"m","stream":true,"messages":[{"role":"user",'
          .. '"content":"hi"}]}')
    assert.equal(before + 1, count("cancelled"))
  end)

  it("row 66: before the first token cancels the request", function()
    local before = count("cancelled")
    leave('{"model":"slow","stream":true,"messages":[{"role":"user",'
          .. '"content":"hi"}]}')
    assert.equal(before + 1, count("cancelled"))
  end)

  it("row 66: before the reply cancels the request", function()
    local before = count("cancelled")
    leave('{"model":"slow","messages":[{"role":"user","content":"hi"}]}')
    assert.equal(before + 1, count("cancelled"))
  end)

  -- Bash closes the socket right behind the write: nginx often finds both in
  -- one look at the kernel.
  it("row 66: in the breath in which it asks cancels the request", function()
    local body = '{"model":"slow","messages":[{"role":"user","content":"x"}]}'
    local port = server.url:match(":(%d+)$")
    local function cancelled()
      local _, text = nginx.get(server.url .. "/metrics")
      local sum = 0
      for value in text:gmatch("drover_requests_total{[^}]*"
                               .. "outcome=\"cancelled\"} (%d+)") do
        sum = sum + tonumber(value)
      end
      return sum
    end
    local before = cancelled()
    nginx.shell(("bash -c 'for i in $(seq 20); do exec 3<>/dev/tcp/127.0.0.1/%s;"
      .. " printf \"POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\n"
      .. "Content-Length: %d\\r\\n\\r\\n%%s\" \"$0\" >&3; exec 3>&-; done' '%s'")
      :format(port, #body, body))
    assert.is_true(nginx.until_true(function()
      return cancelled() == before + 20
    end, 3))
    assert.equal(0, nginx.metric(server.url, "drover_inflight"))
  end)

  it("leaves no error in the log", function()
    assert.is_nil(server:log():find("%[error%]"), server:log())
    assert.is_nil(server:log():find("%[alert%]"), server:log())
  end)
end)
