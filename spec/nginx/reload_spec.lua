-- Reloads: running streams end whole, old workers leave, state stays.
local nginx = require "spec.support.nginx"

local HUP, QUIT, TERM = 1, 3, 15
local STREAMS, CHUNKS = 50, 150
local BODY = '{"model":"m","stream":true,"messages":[{"role":"user",'
             .. '"content":"hi"}]}'

local CONFIG = [[return { workers = 2, router = {
  nodes = { { id = "up", url = "%s/v1", capacity = 100 } } } }]]


-- What each stream must say, but for the clock in each chunk.
local function expected()
  local shape = 'data: {"id":"chatcmpl-bench","object":'
    .. '"chat.completion.chunk","created":1700000000,"model":"bench",'
    .. '"choices":[%s]}\n\n'
  local out = {}
  for i = 0, CHUNKS - 1 do
    out[#out + 1] = shape:format('{"index":0,"delta":{"content":"' .. i
                                 .. '@ "},"finish_reason":null}')
  end
  out[#out + 1] = shape:format('{"index":0,"delta":{},"finish_reason":"stop"}')
  return table.concat(out) .. "data: [DONE]\n\n"
end


describe("a reload", function()
  local server, upstream, dir

  setup(function()
    upstream = nginx.upstream("--gap 10 --chunks " .. CHUNKS)
    server = nginx.serve(CONFIG:format(upstream.url))
    dir = nginx.folder()
    nginx.write(dir .. "/body", BODY)
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  local function start_streams()
    local words = {}
    for i = 1, STREAMS do
      words[i] = string.format("-o %s/s%d %s/v1/chat/completions", dir, i,
                               server.url)
    end
    return nginx.start("curl -sS -N --max-time 60 --parallel "
      .. "--parallel-immediate --parallel-max 50 -H \"connection: close\" "
      .. "--data-binary @" .. dir .. "/body " .. table.concat(words, " "))
  end

  -- 50 streams, all begun; then `signal` to the master.
  local function signal_while_running(signal)
    local curl = start_streams()
    local running = nginx.until_true(function()
      return nginx.metric(server.url, "drover_inflight{node=\"up\"}") >= STREAMS
    end, 10)
    assert.is_true(running, curl:log())
    nginx.signal(server.pid, signal)
    nginx.until_true(function() return not curl:alive() end, 60)
  end

  -- The same; each must end whole.
  local function ends_whole(signal)
    signal_while_running(signal)
    local wanted = expected()
    for i = 1, STREAMS do
      local text = nginx.read(dir .. "/s" .. i):gsub("@%d+", "@")
      assert.is_true(text == wanted, "stream " .. i .. ": " .. text:sub(-200))
    end
  end

  it("row 64: lets 50 running streams end whole, then old workers leave", function()
    local old = server:workers()
    ends_whole(HUP)
    local left = nginx.until_true(function()
      for _, pid in ipairs(server:workers()) do
        for _, was in ipairs(old) do
          if pid == was then return nil end
        end
      end
      return true
    end, 10)
    assert.is_true(left)
  end)

  it("keeps the counters", function()
    assert.equal(STREAMS, nginx.metric(server.url,
      "drover_attempts_total{node=\"up\",kind=\"ok\"}"))
    assert.equal(0, nginx.metric(server.url, "drover_inflight"))
  end)

  it("writes no alert and no error", function()
    assert.is_nil(server:log():find("%[alert%]"), server:log())
    assert.is_nil(server:log():find("%[error%]"), server:log())
  end)

  it("keeps the old configuration when the new one is wrong", function()
    for text, why in pairs{
      ["5"] = "router: must be a table",
      ["{ limits = { rpm = 0 } }"] = "router.limits.rpm: must be 1 to",
    } do
      nginx.write(server.dir .. "/gateway.lua", "return { router = " .. text
                                                .. ", workers = 1 }")
      nginx.signal(server.pid, HUP)
      local said = nginx.until_true(function()
        return server:log():find("/gateway.lua: " .. why, 1, true)
      end, 5)
      assert.truthy(said, server:log())
      assert.equal(200, (nginx.get(server.url .. "/health")))
    end
  end)

  it("lets 50 running streams end whole when told to quit", function()
    ends_whole(QUIT)
    assert.truthy(nginx.until_true(function()
      return not server:alive()
    end, 10))
    assert.is_nil(server:log():find("%[alert%]"), server:log())
  end)

  it("stops at once under 50 running streams, and no worker crashes", function()
    server = nginx.serve(CONFIG:format(upstream.url))
    signal_while_running(TERM)
    assert.truthy(nginx.until_true(function()
      return not server:alive()
    end, 10))
    assert.is_nil(server:log():find("exited on signal"), server:log())
  end)
end)
