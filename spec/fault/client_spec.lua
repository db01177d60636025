-- Rows 66 to 69 of the fault matrix: callers that leave, that read slowly, and
-- that send what is no request. Rows 61, 64 and 65 (workers that die, reloads)
-- are in spec/nginx.
local drover = require "drover"
local matrix = require "spec.support.matrix"
local nginx = require "spec.support.nginx"
local fault_server = require "spec.support.fault_server"


describe("a caller that", function()
  teardown(matrix.stop)

  -- `gone` of the server's log, once it has seen the client leave.
  local function let_go()
    return nginx.until_true(function()
      drover.sleep(0)
      return matrix.server():totals().gone == 1
    end, 5)
  end

  for events = 0, 5 do
    it("row 66: leaves a stream after " .. events .. " events", function()
      local row = { fault = "ok;n=6;gap=15" }
      matrix.with(row, 1, function(router)
        local stream = assert(router:stream(matrix.request(row)))
        local next_event, state = stream:events()
        for _ = 1, events do
          next_event(state)
        end
        stream:cancel()
        stream:cancel()
        assert.is_true(let_go())
        local _, e = stream:join()
        assert.equal("cancelled", e.kind)
        assert.is_true(e.maybe_billed)
        assert.equal("n1 cancelled", matrix.ledger(e.attempts))
        local log = matrix.server():log()
        assert.equal(1, log.bodies)
        assert.is_true(log.requests[1].events <= events + 3)
        assert.matches('outcome="cancelled"} 1', router:metrics())
      end)
    end)
  end

  it("row 66: leaves before the first event", function()
    local row = { fault = "stall" }
    matrix.with(row, 3, function(router)
      local flight = assert(router:begin(matrix.request(row)))
      local task = drover.go(function()
        return select(2, flight:reply())
      end)
      repeat
        drover.sleep(0.002)
      until matrix.server():totals().bodies == 1
      flight:cancel()
      local e = drover.wait(task)
      assert.equal("cancelled", e.kind)
      assert.is_true(let_go())
      assert.equal("n1 cancelled", matrix.ledger(e.attempts))
    end)
  end)

  it("row 66: leaves after the end changes nothing", function()
    local row = { fault = "ok" }
    matrix.with(row, 1, function(router)
      local stream = assert(router:stream(matrix.request(row)))
      local reply = assert(stream:join())
      stream:cancel()
      assert.equal("n1 ok", matrix.ledger(reply.drover.attempts))
      assert.equal(0, matrix.server():totals().gone)
    end)
  end)

  -- What two sockets and our 256 KiB hold, and no more; the deadline goes on.
  it("row 67: does not read is paused, and ends when its time is over",
     function()
    local row = { fault = "ok;n=100000;size=1000",
                  timeout = { connect = 5, first_token = 5, idle = 5,
                              total = 0.5 } }
    matrix.with(row, 1, function(router)
      local stream = assert(router:stream(matrix.request(row)))
      local sent
      repeat
        local before = sent
        drover.sleep(0.05)
        sent = matrix.server():totals().bytes_out
      until sent == before
      assert.is_true(sent < 16 * 2^20, sent)
      assert.is_true(let_go())
      local reply, e = stream:join()
      assert.is_nil(reply)
      assert.equal("timeout", e.kind)
      assert.equal("stream", e.phase)
    end)
  end)
end)


local ASK = '"messages":[{"role":"user","content":"hi"}]'


describe("a gateway's caller that", function()
  local server, upstream, port

  setup(function()
    upstream = fault_server.start{ "--quiet" }
    server = nginx.serve(([[return { workers = 1, max_body = 4194304,
      router = { nodes = { { id = "up", url = "%s/f/ok/v1",
                             models = { "m" } },
                           { id = "whole", url = "%s/f/whole/v1",
                             models = { "w" } } } } }]]):format(upstream.url,
                                                                upstream.url))
    port = server.url:match(":(%d+)$")
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
  end)

  -- Bytes as they are; what came back.
  local function raw(bytes)
    local dir = nginx.folder()
    nginx.write(dir .. "/bytes", bytes)
    return nginx.shell(("timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/%s; "
      .. "cat %s/bytes >&3; timeout 0.5 cat <&3' 2>&1"):format(port, dir))
  end

  local HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
  local BODY = '{"model":"m",' .. ASK .. "}"
  local SIZE = "Content-Length: " .. #BODY .. "\r\n"
  local CHUNKED = ("%x\r\n%s\r\n0\r\n\r\n"):format(#BODY, BODY)

  it("asks for a stream gets one, where the node sends it whole", function()
    local status, text = nginx.post(server.url .. "/v1/chat/completions",
                                    '{"model":"w","stream":true,' .. ASK .. "}")
    assert.equal(200, status)
    assert.matches('^data: {.*"content":".*"finish_reason":"stop".*\n\n'
                   .. "data: %[DONE%]\n\n$", text)
    upstream:reset()
  end)

  it("row 68: asks properly is answered", function()
    assert.matches("^HTTP/1.1 200", raw(HEAD .. SIZE .. "\r\n" .. BODY))
    assert.matches("^HTTP/1.1 200", raw(HEAD
      .. "Transfer-Encoding: chunked\r\n\r\n" .. CHUNKED))
    assert.equal(2, upstream:reset().bodies + 2)
  end)

  local smuggled = {
    ["both lengths"] = HEAD .. SIZE .. "Transfer-Encoding: chunked\r\n\r\n"
                       .. CHUNKED,
    ["two lengths"] = HEAD .. SIZE .. "Content-Length: 1\r\n\r\n" .. BODY,
    ["a bad length"] = HEAD .. "Content-Length: -5\r\n\r\n" .. BODY,
    ["an odd coding"] = HEAD .. "Transfer-Encoding: xchunked\r\n\r\n"
                        .. CHUNKED,
    ["a bad chunk"] = HEAD .. "Transfer-Encoding: chunked\r\n\r\nzz\r\n"
                      .. BODY,
    ["a NUL in its head"] = HEAD .. "X-A: a\0b\r\n" .. SIZE .. "\r\n" .. BODY,
    ["a bad method"] = "P\1ST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                       .. SIZE .. "\r\n" .. BODY,
    ["no host"] = "POST /v1/chat/completions HTTP/1.1\r\n" .. SIZE .. "\r\n"
                  .. BODY,
    ["a head of 100 KiB"] = HEAD .. "X-A: " .. ("a"):rep(102400) .. "\r\n"
                            .. SIZE .. "\r\n" .. BODY,
  }
  for name, bytes in pairs(smuggled) do
    it("row 68: sends " .. name .. " is refused", function()
      upstream:reset()
      local text = raw(bytes)
      assert.matches("^HTTP/1.1 [45]%d%d ", text)
      assert.is_nil(text:find("HTTP/1.1 200", 1, true), text)
      assert.equal(0, upstream:totals().bodies)
    end)
  end

  -- A folded header is one header's value to nginx, or a bad one: never two
  -- requests, and never passed on.
  it("row 68: folds a header smuggles nothing", function()
    upstream:reset()
    raw(HEAD .. "X-A: a\r\n X-Evil: b\r\n" .. SIZE .. "\r\n" .. BODY)
    local log = upstream:log()
    assert.is_true(log.bodies <= 1)
    for _, request in ipairs(log.requests) do
      assert.is_nil(request.head:lower():find("evil", 1, true))
    end
  end)

  local function deep(n)
    return ("["):rep(n) .. ("]"):rep(n)
  end

  local bodies = {
    ["10,000 nested arrays"] = '{"model":"m","x":' .. deep(10000) .. "," .. ASK
                               .. "}",
    ["129 nested arrays"] = '{"model":"m","x":' .. deep(129) .. "," .. ASK
                            .. "}",
    ["two models"] = '{"model":"m","model":"n",' .. ASK .. "}",
    ["two streams"] = '{"stream":true,"model":"m","stream":false,' .. ASK
                      .. "}",
    ["a number without end"] = '{"model":"m","temperature":1e999,' .. ASK
                               .. "}",
    ["a word that is no number"] = '{"model":"m","temperature":nan,' .. ASK
                                   .. "}",
    ["a byte order mark"] = "\239\187\191" .. BODY,
    ["invalid UTF-8"] = '{"model":"m","messages":[{"role":"user","content":"'
                        .. '\255\254"}]}',
    ["half a code point"] = '{"model":"m","messages":[{"role":"user",'
                            .. '"content":"\226\130"}]}',
    ["a control character"] = '{"model":"m","messages":[{"role":"user",'
                              .. '"content":"a\1b"}]}',
    ["text behind it"] = BODY .. "x",
    ["nothing"] = "",
    ["half of itself"] = BODY:sub(1, 30),
    ["a key that is none"] = '{model:"m",' .. ASK .. "}",
  }
  for name, body in pairs(bodies) do
    for _, stream in ipairs{ "", '"stream":true,' } do
      it(("row 69: sends %s is told so%s"):format(name,
           stream == "" and "" or ", stream"), function()
        upstream:reset()
        local status, text = nginx.post(server.url .. "/v1/chat/completions",
                                        (body:gsub("^{", "{" .. stream, 1)))
        assert.equal(400, status, text)
        assert.matches('^{"error":', text)
        assert.equal(0, upstream:totals().bodies)
      end)
    end
  end

  it("row 69: sends 50 MB is told so", function()
    upstream:reset()
    local status = nginx.post(server.url .. "/v1/chat/completions",
      '{"model":"m","messages":[{"role":"user","content":"'
      .. ("x"):rep(50000000) .. '"}]}')
    assert.equal(413, status)
    assert.equal(0, upstream:totals().bodies)
  end)

  -- What JSON allows and texts cannot be: it arrives as it came, or not.
  it("row 69: sends lone surrogates breaks nothing", function()
    upstream:reset()
    local status = nginx.post(server.url .. "/v1/chat/completions",
      '{"model":"m","messages":[{"role":"user","content":"\\ud800 \\udc00"}]}')
    assert.is_true(status == 200 or status == 400)
    assert.equal(status == 200 and 1 or 0, upstream:totals().bodies)
  end)

  it("rows 68, 69: leaves the gateway whole", function()
    assert.matches("^HTTP/1.1 200", raw(HEAD .. SIZE .. "\r\n" .. BODY))
    assert.equal(0, nginx.metric(server.url, "drover_inflight"))
    assert.is_nil(server:log():find("%[alert%]"), server:log())
  end)
end)
