-- The few calls of the system that the fake server and its parent need, for
-- LuaJIT on Linux; and the command line, which asks whether a port is free.
-- The library itself opens no socket here.
--
-- SPDX-License-Identifier: MIT
local bit = require "bit"
local ffi = require "ffi"

if not pcall(ffi.typeof, "struct drover_test_address") then
  ffi.cdef [[
    struct drover_test_address {
      uint16_t family, port;
      uint32_t host;
      char     zero[8];
    };
    struct drover_test_pollfd { int fd; short events, revents; };
    struct drover_test_linger { int on, seconds; };
    int socket(int, int, int);
    int setsockopt(int, int, int, const void *, uint32_t);
    int bind(int, const struct drover_test_address *, uint32_t);
    int listen(int, int);
    int getsockname(int, struct drover_test_address *, uint32_t *);
    int accept4(int, void *, uint32_t *, int);
    long recv(int, void *, size_t, int);
    long send(int, const void *, size_t, int);
    int poll(struct drover_test_pollfd *, unsigned long, int);
    int close(int);
    int kill(int, int);
    int getpid(void);
    struct drover_test_time { long s, ns; };
    int clock_gettime(int, struct drover_test_time *);
  ]]
end

local C = ffi.C

local _M = { C = C, POLLIN = 1, POLLOUT = 4 }

local AF_INET, SOCK_STREAM = 2, 1
local NONBLOCK_CLOEXEC = bit.bor(0x800, 0x80000)
local NOSIGNAL = 0x4000
local SOL_SOCKET, SO_REUSEADDR, SO_LINGER = 1, 2, 13
local IPPROTO_TCP, TCP_NODELAY = 6, 1
local EAGAIN, SIGTERM = 11, 15
local LOOPBACK = "\127\0\0\1"

local time = ffi.new("struct drover_test_time")
local chunk = ffi.new("char[65536]")


function _M.now()
  C.clock_gettime(1, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end


-- The two bytes of a port changed over.
local function swapped(port)
  return bit.bor(bit.lshift(bit.band(port, 0xff), 8), bit.rshift(port, 8))
end


-- A socket that is bound to an IPv4 address, given as four bytes, and a port
-- (0: the kernel chooses); and the address. nil and errno where it cannot be.
function _M.bind(host, port)
  local fd = C.socket(AF_INET, bit.bor(SOCK_STREAM, NONBLOCK_CLOEXEC), 0)
  local on = ffi.new("int[1]", 1)
  C.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, on, ffi.sizeof(on))
  local address = ffi.new("struct drover_test_address")
  address.family, address.port = AF_INET, swapped(port)
  ffi.copy(ffi.cast("char *", address) + 4, host, 4)
  if fd >= 0 and C.bind(fd, address, ffi.sizeof(address)) == 0 then
    return fd, address
  end
  local why = ffi.errno()
  C.close(fd)
  return nil, why
end


-- A listening socket on loopback and the port that the kernel chose.
function _M.listen()
  local fd, address = _M.bind(LOOPBACK, 0)
  local size = ffi.new("uint32_t[1]", ffi.sizeof("struct drover_test_address"))
  assert(fd and C.listen(fd, 128) == 0
         and C.getsockname(fd, address, size) == 0, "no loopback socket")
  return fd, swapped(address.port)
end


-- A new connection's descriptor, or nil.
function _M.accept(fd)
  local one = C.accept4(fd, nil, nil, NONBLOCK_CLOEXEC)
  if one < 0 then
    return nil
  end
  local on = ffi.new("int[1]", 1)
  C.setsockopt(one, IPPROTO_TCP, TCP_NODELAY, on, ffi.sizeof(on))
  return one
end


-- Bytes that have come: a string, "" when there are none yet, nil at the end.
function _M.read(fd)
  local size = tonumber(C.recv(fd, chunk, 65536, 0))
  if size > 0 then
    return ffi.string(chunk, size)
  end
  return size < 0 and ffi.errno() == EAGAIN and "" or nil
end


-- How many bytes the kernel took, or nil when the peer is gone.
function _M.write(fd, text)
  local size = tonumber(C.send(fd, text, #text, NOSIGNAL))
  if size >= 0 then
    return size
  end
  return ffi.errno() == EAGAIN and 0 or nil
end


-- Close; `reset` sends RST instead of FIN.
function _M.close(fd, reset)
  if reset then
    local linger = ffi.new("struct drover_test_linger", 1, 0)
    C.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, ffi.sizeof(linger))
  end
  C.close(fd)
end


-- Is there such a process?
function _M.alive(pid)
  return C.kill(pid, 0) == 0
end


function _M.terminate(pid)
  C.kill(pid, SIGTERM)
end


return _M
