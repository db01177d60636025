-- The completion port: its wake-up by eventfd and by socket, and forked
-- children, which must not touch what is the parent's.
local ffi = require "ffi"
local c = require "spec.support.c"
local caller = require "spec.support.caller"
local fault_server = require "spec.support.fault_server"

c.cdef[[
void net_loop_stop(void);
void *process_transport(void);
int fork(void);
int waitpid(int pid, int *status, int options);
void _exit(int status);
int socket(int domain, int type, int protocol);
int connect(int fd, const void *at, unsigned size);
long recv(int fd, void *buf, size_t size, int flags);
int close(int fd);
struct spec_unix { unsigned short family; char path[108]; };
struct spec_pollfd { int fd; short events, revents; };
int poll(struct spec_pollfd *fds, unsigned long count, int ms);
]]

local C = c.lib
local STREAM, DONTWAIT, POLLIN = 1, 64, 1
local err = ffi.new("drover_err")


local function readable(fd, ms)
  local p = ffi.new("struct spec_pollfd", fd, POLLIN)
  return C.poll(p, 1, ms) == 1
end


local function connect(path)
  local fd = C.socket(1, STREAM, 0)
  local at = ffi.new("struct spec_unix", 1, path)
  assert(C.connect(fd, at, ffi.sizeof(at)) == 0, "connect")
  return fd
end


describe("a port", function()
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

  it("is readable when there is news, and no more once that is taken", function()
    local fd = C.drover_port_fd(port.port)
    assert.is_false(readable(fd, 0))
    local number = port:send(url .. "ok")
    assert.is_true(readable(fd, 20000))
    port:finish(number)
    assert.is_nil(port:next(0))
    C.drover_port_wait(port.port, 0.05)        -- the last wake-up may be late
    port:next(0)
    assert.is_false(readable(fd, 0))
  end)

  it("waits no longer than it is told, and is woken by a poke", function()
    assert.equal(0, C.drover_port_wait(port.port, 0))
    assert.equal(0, C.drover_port_wait(port.port, 0.01))
    C.drover_port_poke(port.port)
    assert.equal(1, C.drover_port_wait(port.port, -1))
    assert.is_nil(port:next(0))
    assert.equal(0, C.drover_port_wait(port.port, 0))
  end)

  it("gives at least a byte for news on a worker's socket", function()
    local path = ffi.new("char[128]")
    assert.equal(0, C.drover_port_listen(port.port, "/tmp", path, 128, err))
    local name = ffi.string(path)
    local mode = io.popen("stat -c %a " .. name)
    assert.equal("600", mode:read("*l"))
    mode:close()
    local fd = connect(name)
    assert.equal(0, C.drover_port_accept(port.port, err))
    assert.is_nil(io.open(name))
    local bytes = ffi.new("char[64]")
    C.recv(fd, bytes, 64, 0)                   -- what accept itself sends
    local number = port:send(url .. "sse=50")
    assert.is_true(readable(fd, 20000))
    assert.is_true(tonumber(C.recv(fd, bytes, 64, DONTWAIT)) >= 1)
    local last                                 -- news comes here, and here alone
    repeat
      last = port:next(0)
      if not last then
        assert.is_true(readable(fd, 20000))
        C.recv(fd, bytes, 64, DONTWAIT)
      end
    until last and last.type == "end"
    port:close(number)
    C.drover_port_poke(port.port)
    assert.is_true(readable(fd, 20000))
    C.close(fd)
    C.drover_port_poke(port.port)              -- nobody reads: no harm
  end)

  it("listens anew when its reader is gone, or nobody came", function()
    local path = ffi.new("char[128]")
    local bytes = ffi.new("char[64]")
    assert.equal(0, C.drover_port_listen(port.port, "/tmp", path, 128, err))
    local left = ffi.string(path)              -- nobody comes to this one
    for _ = 1, 3 do
      assert.equal(0, C.drover_port_listen(port.port, "/tmp", path, 128, err))
      assert.is_nil(io.open(left))
      local fd = connect(ffi.string(path))
      assert.equal(0, C.drover_port_accept(port.port, err))
      assert.is_true(readable(fd, 20000))      -- what accept itself sends
      C.recv(fd, bytes, 64, DONTWAIT)
      C.drover_port_poke(port.port)
      assert.is_true(readable(fd, 20000))
      C.close(fd)
    end
  end)

  it("does not accept when it does not listen or nobody came", function()
    local path = ffi.new("char[128]")
    assert.equal(C.DROVER_EINVAL, C.drover_port_accept(port.port, err))
    assert.equal(C.DROVER_ERESOURCE,
                 C.drover_port_listen(port.port, "/nowhere", path, 128, err))
    assert.equal(C.DROVER_EINVAL, C.drover_port_listen(port.port, "/tmp", path, 4, err))
  end)

  it("of a parent is refused in a child, which starts a transport of its own", function()
    local number = port:send(url .. "sse=3;hold", { stream = true })
    assert.equal("head", port:next().type)
    local parents = C.process_transport()
    assert.is_true(parents ~= nil)
    local pid = C.fork()
    if pid == 0 then
      local right = C.process_transport() == nil
                    and select(2, port:send(url .. "ok")) == C.DROVER_EINVAL
      port:free()
      local own = caller.new()
      right = right and own:call(url .. "ok").last.type == "end"
              and C.process_transport() ~= parents
      own:free()
      C.net_loop_stop()
      C._exit(right and 0 or 1)
    end
    local status = ffi.new("int[1]")
    C.waitpid(pid, status, 0)
    assert.equal(0, status[0])
    for _ = 1, 3 do                            -- the parent's stream is unharmed
      assert.equal("sse", port:next().type)
    end
    port:close(number)
    assert.equal("end", port:call(url .. "ok").last.type)
  end)

  it("wants a number for each call", function()
    local out = ffi.new("drover_call *[1]")
    local config = ffi.new("drover_call_config", { method = "GET", url = url .. "ok" })
    assert.equal(C.DROVER_EINVAL, C.drover_call_http(out, port.port, config, err))
  end)
end)


describe("drover_exec", function()
  it("joins the transport and leaves no descriptor of ours to the program", function()
    local server = fault_server.start()
    local pid = C.fork()
    if pid == 0 then
      local port = caller.new()
      port:call(server.url .. "/f/ok")
      port:send(server.url .. "/f/stall")
      local words = { "env", "-u", "LD_PRELOAD", "sh", "-c",
                      "! ls -l /proc/$$/fd | grep -qE 'eventfd|eventpoll'" }
      local argv = ffi.new("char *[8]")
      for i, word in ipairs(words) do
        words[i] = ffi.new("char[128]", word)
        argv[i - 1] = words[i]
      end
      C.drover_exec(argv, err)
      C._exit(99)
    end
    local status = ffi.new("int[1]")
    C.waitpid(pid, status, 0)
    assert.equal(0, status[0])
    server:stop()
  end)

  it("says what it could not run, and the transport can begin anew", function()
    local argv = ffi.new("char *[2]")
    local name = ffi.new("char[32]", "/nowhere/no-such-program")
    argv[0] = name
    assert.equal(C.DROVER_ENOTFOUND, C.drover_exec(argv, err))
    assert.is_truthy(ffi.string(err.text):find("no-such-program", 1, true))
  end)
end)
