-- net/call, net/loop and the port: real calls to a real server that fails as
-- it is told. In each row one END or FAIL comes, and the bodies that the
-- server received are what we say may be billed.
local ffi = require "ffi"
local c = require "spec.support.c"
local caller = require "spec.support.caller"
local fault_server = require "spec.support.fault_server"

c.cdef[[
long mem_live(void);
void net_loop_stop(void);
int socket(int domain, int type, int protocol);
int bind(int fd, const void *at, unsigned size);
int listen(int fd, int backlog);
int connect(int fd, const void *at, unsigned size);
int getsockname(int fd, void *at, unsigned *size);
int close(int fd);
int fcntl(int fd, int command, ...);
]]

local C = c.lib
local KiB = 1024


local function open_files()
  local F_GETFD, n = 1, 0
  for fd = 0, 1023 do
    n = n + (C.fcntl(fd, F_GETFD) >= 0 and 1 or 0)
  end
  return n
end


local function hex(text)
  return (text:gsub(".", function(b) return ("%02x"):format(b:byte()) end))
end


-- A listener whose queue is full, so that a connect gets no answer.
local function listener_that_is_full()
  local STREAM, NONBLOCK, INET = 1, 2048, 2
  local at = ffi.new("unsigned char[16]", { INET, 0, 0, 0, 127, 0, 0, 1 })
  local size = ffi.new("unsigned[1]", 16)
  local fds = { C.socket(INET, STREAM, 0) }
  assert(C.bind(fds[1], at, 16) == 0 and C.listen(fds[1], 0) == 0)
  assert(C.getsockname(fds[1], at, size) == 0)
  for i = 2, 5 do
    fds[i] = C.socket(INET, STREAM + NONBLOCK, 0)
    C.connect(fds[i], at, 16)
  end
  return {
    port = at[2] * 256 + at[3],
    close = function()
      for _, fd in ipairs(fds) do C.close(fd) end
    end,
  }
end


-- { path, kind, phase, billed, opts }: how a call ends; kind nil is END.
local FAULTS = {
  { "ok" }, { "echo" }, { "interim=3" }, { "long" }, { "html" }, { "drip=0" },
  { "status=500" }, { "status=429;ra=2" }, { "redirect=1" },
  { "reset=0", "reset", "first_token", true },
  { "close=0", "reset", "first_token", true },
  { "reset=40", "reset", "first_token", true },
  { "reset=300", "reset", "stream", true },
  { "close=300", "truncated", "stream", true },
  { "close=40", "truncated", "first_token", true },
  { "short", "truncated", "stream", true },
  { "sse=3;cut", "truncated", "stream", true },
  { "junk", "malformed", "first_token", true },
  { "badchunk", "malformed", "stream", true },
  { "gzip", "malformed", "stream", true },
  { "interim=20", "malformed", "first_token", true },
  { "status=600", "malformed", "first_token", true },
  { "raw=" .. hex "HTTP/1.1 abc\r\n\r\n", "malformed", "first_token", true },
  { "raw=" .. hex "HTTP/1.1 200 OK\r\nX: a", "truncated", "first_token", true },
  { "raw=" .. hex "HTTP/1.1 103 Early\r\n\r\n", "reset", "first_token", true },
  { "lines=80;size=5000", "malformed", "first_token", true },
  { "lines=6000", "malformed", "first_token", true },
  { "lines=1;size=200000", "malformed", "first_token", true },
  { "huge=40000000", "too_large", "stream", true },
  { "huge=3000000;status=500", "too_large", "stream", true },
  { "huge=5000", "too_large", "stream", true, { body_max = 4999 } },
  { "sse=100", "too_large", "stream", true, { body_max = 5000 } },
  { "endless", "malformed", "stream", true },
  { "stall", "timeout", "first_token", true, { total = 0.05 } },
}


describe("a call", function()
  local server, port, url

  setup(function()
    server = fault_server.start()
    url = server.url .. "/f/"
  end)

  teardown(function()
    C.net_loop_stop()
    server:stop()
  end)

  before_each(function()
    port = caller.new()
  end)

  after_each(function()
    port:free()
  end)

  for _, row in ipairs(FAULTS) do
    it("to " .. row[1]:sub(1, 30) .. " ends as " .. (row[2] or "well"), function()
      local got = port:call(url .. row[1], row[5])
      assert.is_nil(port:next(0))
      if not row[2] then
        assert.equal("end", got.last.type, got.last.data)
        assert.is_truthy(got.head and got.body)
      else
        assert.equal("fail", got.last.type)
        assert.equal(row[2], ffi.string(C.drover_err_kind(got.last.code)), got.last.data)
        assert.equal(row[3], ffi.string(C.drover_phase_name(got.last.phase)))
        assert.equal(row[4], got.last.billed)
      end
      server:lines_until("body 2 /f/" .. row[1])
    end)
  end

  it("gives head, events and end of a stream in order", function()
    local got = port:call(url .. "sse=3", { stream = true, commit = true })
    assert.equal(200, got.head.status)
    assert.equal("content-type: text/event-stream\n", got.head.data)
    assert.equal(5, #got.sse)
    assert.is_truthy(got.sse[1]:find('"content":"w1 ', 1, true))
    assert.equal("[DONE]", got.sse[5])
    assert.equal("message", got[2].name)
    assert.is_nil(got.body)
    for i = 2, #got do
      assert.is_true(got[i].at >= got[i - 1].at)
    end
  end)

  it("shows the allowed headers alone", function()
    local got = port:call(url .. "status=429;ra=2")
    assert.equal(429, got.head.status)
    assert.equal("content-type: application/json\nx-request-id: req_1\nretry-after: 2\n",
                 got.head.data)
    assert.is_truthy(got.body.data:find("fault 429", 1, true))
  end)

  it("sends body and headers as they are, and no Expect", function()
    local body = ("x"):rep(3 * KiB * KiB)
    local got = port:call(url .. "echo", { body = body })
    assert.is_true(got.body.data == body)
    got = port:call(url .. "seen", { body = body, headers = "A: b\nC-D:e\nEmpty:\n" })
    local head = got.body.data
    assert.is_truthy(head:find("\r\nA: b\r\n", 1, true))
    assert.is_truthy(head:find("\r\nC-D:e\r\n", 1, true))
    assert.is_truthy(head:find("\r\nEmpty:\r\n", 1, true))
    assert.is_nil(head:find("Expect", 1, true))
    assert.is_nil(head:find("Accept-Encoding", 1, true))
    got = port:call(url .. "seen", { method = "GET" })
    assert.is_truthy(got.body.data:find("^GET /f/seen HTTP/1.1\r\n"))
    assert.is_nil(got.body.data:find("\r\nA: b", 1, true))
    assert.is_nil(got.body.data:find("Content-Length", 1, true))
  end)

  it("does not follow a redirect", function()
    local other = fault_server.start()
    local got = port:call(url .. "redirect=" .. other.port)
    assert.equal(307, got.head.status)
    assert.same({}, other:stop())
  end)

  it("is sent once though libcurl would send it again", function()
    local own = fault_server.start()  -- a connection of its own
    assert.equal("end", port:call(own.url .. "/f/die").last.type)
    local got = port:call(own.url .. "/f/die")
    assert.equal("reset", ffi.string(C.drover_err_kind(got.last.code)))
    assert.is_true(got.last.billed)
    assert.same({ "body 2 /f/die", "body 2 /f/die" }, own:stop())
  end)

  it("to nobody is unreachable and was not sent", function()
    local gone = fault_server.start()
    gone:stop()
    for _, way in ipairs{ { gone.url .. "/" }, { "http://x.invalid/" },
                          { "http://localhost/", { unix_path = "/nowhere/x.sock" } } } do
      local got = port:call(way[1], way[2])
      assert.equal(C.DROVER_EUNREACHABLE, got.last.code)
      assert.equal(C.DROVER_PHASE_CONNECT, got.last.phase)
      assert.is_false(got.last.billed)
    end
  end)

  it("that the server does not speak TLS for ends in the connect phase", function()
    local got = port:call(url:gsub("http", "https", 1) .. "ok", { connect = 0.05 })
    assert.equal(C.DROVER_ETIMEOUT, got.last.code)
    assert.equal(C.DROVER_PHASE_CONNECT, got.last.phase)
    assert.is_falsy(got.last.billed)
    assert.equal("timeout.connect of 0.05 s passed", got.last.data)
  end)

  it("that nobody accepts ends at the connect deadline", function()
    local full = listener_that_is_full()
    local got = port:call("http://127.0.0.1:" .. full.port .. "/",
                          { connect = 0.05, total = 9 })
    assert.equal("timeout.connect of 0.05 s passed", got.last.data)
    assert.is_false(got.last.billed)
    full.close()
  end)

  it("goes over a unix socket", function()
    local path = os.tmpname()
    os.remove(path)
    local other = fault_server.start(path)
    local got = port:call("http://localhost/f/ok", { unix_path = path })
    assert.equal("end", got.last.type)
    assert.same({ "body 2 /f/ok" }, other:stop())
    os.remove(path)
  end)

  it("is refused when url, header, method or number is wrong", function()
    for _, way in ipairs{
      { "http://user@h/" }, { "ftp://h/" }, { url .. "ok", { headers = "Host: x\n" } },
      { url .. "ok", { headers = "A: b\r\nC: d\n" } },
      { url .. "ok", { method = "PUT" } },
      { url .. "ok", { method = "GET", body = "x" } },
      { url .. "ok", { unix_path = "relative" } },
    } do
      local got, code = port:call(way[1], way[2])
      assert.is_nil(got)
      assert.equal(C.DROVER_EINVAL, code)
    end
    assert.is_nil(port:next(0))
  end)
end)


describe("the deadline", function()
  local server, port, url

  setup(function()
    server = fault_server.start()
    url = server.url .. "/f/"
    port = caller.new()
  end)

  teardown(function()
    port:free()
    C.net_loop_stop()
    server:stop()
  end)

  local rows = {
    { "first_token", "stall", { first_token = 0.05, total = 9 }, "first_token" },
    { "first_token", "sse=2;hold", { first_token = 0.05, idle = 9 }, "first_token" },
    { "first_token", "sse=2;ping=5", { first_token = 0.05, idle = 0.02 }, "first_token" },
    { "idle", "sse=2;hold", { first_token = 9, idle = 0.05, commit = true }, "stream" },
    { "idle", "sse=2;ping=5", { first_token = 0.2, idle = 0.05, commit = true }, "stream" },
    { "total", "sse=2;ping=5", { total = 0.05, idle = 9, commit = true }, "stream" },
    { "total", "sse=2;hold", { total = 0.05 }, "first_token" },
    { "total", "stall", { total = 0.05, first_token = 9 }, "first_token" },
    { "total", "sse=1000;gap=5", { total = 0.1, idle = 9, commit = true }, "stream" },
  }
  for _, row in ipairs(rows) do
    it(row[1] .. " is told as itself by " .. row[2], function()
      row[3].stream = true
      local got = port:call(url .. row[2], row[3])
      assert.equal(C.DROVER_ETIMEOUT, got.last.code, got.last.data)
      assert.equal(row[4], ffi.string(C.drover_phase_name(got.last.phase)))
      assert.is_truthy(got.last.data:find("timeout." .. row[1], 1, true), got.last.data)
      assert.is_true(got.last.billed)
    end)
  end

  it("idle is put off by comments, up to five times", function()
    local got = port:call(url .. "sse=2;ping=5",
                          { stream = true, commit = true, idle = 0.2, total = 9 })
    assert.is_truthy(got.last.data:find("timeout.idle", 1, true), got.last.data)
    assert.is_true(got.last.at - got[#got - 1].at >= 0.4)
  end)

  it("idle is not put off by bytes that end no event", function()
    local head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    for _, rest in ipairs{ "data: a\n\ndata: b", "data: a\n\n: endless",
                           "data: a\n\n\n\n\n" } do
      local got = port:call(url .. "raw=" .. hex(head .. rest) .. ";hold",
                            { stream = true, commit = true, idle = 0.02, total = 9 })
      assert.is_truthy(got.last.data:find("timeout.idle", 1, true), got.last.data)
      assert.same({ "a" }, got.sse)
    end
  end)

  it("idle does not run while events come", function()
    local got = port:call(url .. "sse=30;gap=5",
                          { stream = true, commit = true, idle = 2, first_token = 9 })
    assert.equal("end", got.last.type)
    assert.equal(32, #got.sse)
  end)

  it("first_token is none of a call that does not stream", function()
    local got = port:call(url .. "drip=1", { first_token = 0.01, total = 9 })
    assert.equal("end", got.last.type)
  end)

  it("idle does not run while the consumer is the slow one", function()
    local number = port:send(url .. "sse=2000;size=1000",
                             { stream = true, commit = true, hold = true, idle = 0.05 })
    local bytes, events = 0, 0
    repeat                            -- until it is paused and nothing comes
      local ev = port:next(0.2)
      bytes = bytes + (ev and #ev.data or 0)
      events = events + (ev and ev.type == "sse" and 1 or 0)
    until not ev
    assert.is_true(events < 2000)
    port:consumed(number, bytes)
    repeat
      local ev = assert(port:next())
      if ev.type == "sse" then
        events = events + 1
        port:consumed(number, #ev.data)
      end
      assert.is_not.equal("fail", ev.type, ev.data)
    until ev.type == "end"
    assert.equal(2002, events)
    port:close(number)
  end)
end)


describe("a consumer", function()
  local server, port, url

  setup(function()
    server = fault_server.start()
    url = server.url .. "/f/"
  end)

  teardown(function()
    C.net_loop_stop()
    server:stop()
  end)

  it("that closes a call hears no more of it, and the server sees it go", function()
    port = caller.new()
    for _, way in ipairs{ "stall", "sse=1;hold", "sse=100000;size=100" } do
      local number = port:send(url .. way, { stream = true, hold = true })
      if way ~= "stall" then
        assert.equal("head", port:next().type)
      end
      server:lines_until("body 2 /f/" .. way)
      port:close(number)
      assert.equal("gone /f/" .. way, server:line())
      assert.is_nil(port:next(0))
    end
    port:free()
  end)

  it("that leaves a call hears no more of it, and it ends in a moment", function()
    port = caller.new()
    local stay = "raw=" .. hex("HTTP/1.1 200 OK\r\nContent-Type: "
      .. "text/event-stream\r\n\r\ndata: [DONE]\n\n") .. ";hold"
    local number = port:send(url .. stay, { stream = true })
    assert.equal("head", port:next().type)
    assert.equal("[DONE]", port:next().data)
    port:leave(number)
    server:lines_until("gone /f/" .. stay)
    assert.is_nil(port:next(0))
    port:free()
  end)

  it("that does not read pauses its stream near 256 KiB, and no other", function()
    port = caller.new()
    local slow = port:send(url .. "sse=5000;size=1000", { stream = true, hold = true })
    local bytes = 0
    repeat
      local ev = port:next(0.2)
      bytes = bytes + (ev and #ev.data or 0)
    until not ev
    assert.is_true(bytes > 200 * KiB and bytes < 400 * KiB, bytes)
    assert.equal("end", port:call(url .. "sse=500;size=1000").last.type)
    port:consumed(slow, bytes - 140 * KiB)      -- not yet half
    assert.is_nil(port:next(0.05))
    port:consumed(slow, 20 * KiB)
    assert.equal("sse", port:next().type)
    port:close(slow)
    port:free()
  end)

  it("that closes its port closes its calls", function()
    port = caller.new()
    for _ = 1, 20 do
      assert(port:send(url .. "sse=1000;gap=1", { stream = true }))
    end
    assert.is_truthy(port:next())
    port:free()
  end)

  it("is told when the transport stops, and may begin anew", function()
    port = caller.new()
    local number = port:send(url .. "stall")
    server:lines_until("body 2 /f/stall")
    C.net_loop_stop()
    assert.equal(C.DROVER_ECLOSED, port:finish(number).last.code)
    assert.equal("end", port:call(url .. "ok").last.type)
    port:free()
  end)

  it("finds memory and descriptors as before, after a hundred calls at once", function()
    C.net_loop_stop()
    local live, files = C.mem_live(), open_files()
    port = caller.new()
    local left = {}
    for i, path in ipairs{ "ok", "sse=9", "reset=0", "stall", "huge=100000", "short" } do
      for _ = 1, 17 do
        local number = port:send(url .. path, { total = i == 4 and 0.2 or 9 })
        left[number] = true
      end
    end
    local count = 0
    while next(left) do
      local ev = port:next()
      if ev.type == "end" or ev.type == "fail" then
        assert.is_true(left[ev.call])
        left[ev.call] = nil
        count = count + 1
        port:close(ev.call)
      end
    end
    assert.equal(102, count)
    port:free()
    C.net_loop_stop()
    assert.equal(tonumber(live), tonumber(C.mem_live()))
    assert.equal(files, open_files())
  end)
end)
