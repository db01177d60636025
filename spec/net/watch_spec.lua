-- net/watch: what epoll has after each step, seen by epoll itself.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
struct net_watch { int epoll; void *sockets; size_t room; };
void net_watch_init(struct net_watch *w, int epoll);
void net_watch_deinit(struct net_watch *w);
void net_watch_opened(struct net_watch *w, int fd);
void net_watch_closing(struct net_watch *w, int fd);
int net_watch_set(struct net_watch *w, int fd, uint32_t events);
int net_watch_wanted(struct net_watch *w, int fd);
struct spec_epoll_event { uint32_t events; int32_t fd, rest; };
int epoll_create1(int flags);
int epoll_wait(int epoll, struct spec_epoll_event *events, int max, int ms);
int eventfd(unsigned count, int flags);
int close(int fd);
]]

local C, os = c.lib, ffi.C
local IN, OUT = 1, 4


describe("the sockets that epoll looks at", function()
  local epoll, fd, watch


  -- What epoll says of `fd` now (always readable and writable); 0: nothing.
  local function seen()
    local events = ffi.new("struct spec_epoll_event[4]")
    return os.epoll_wait(epoll, events, 4, 0) == 1 and events[0].events or 0
  end


  before_each(function()
    epoll, fd = os.epoll_create1(0), os.eventfd(1, 0)
    watch = ffi.new("struct net_watch")
    C.net_watch_init(watch, epoll)
  end)


  after_each(function()
    C.net_watch_deinit(watch)
    os.close(fd)
    os.close(epoll)
  end)


  it("looks for what was asked last", function()
    C.net_watch_opened(watch, fd)
    for _, events in ipairs { IN, OUT, IN + OUT, IN } do
      assert.equal(0, C.net_watch_set(watch, fd, events))
      assert.equal(events, seen())
      assert.equal(1, C.net_watch_wanted(watch, fd))
    end
  end)


  it("keeps a socket of ours that nobody waits for, until it speaks", function()
    C.net_watch_opened(watch, fd)
    C.net_watch_set(watch, fd, IN)
    C.net_watch_set(watch, fd, 0)
    assert.equal(IN, seen())
    assert.equal(0, C.net_watch_wanted(watch, fd))
    assert.equal(0, seen())
    assert.equal(0, C.net_watch_set(watch, fd, IN))
    assert.equal(IN, seen())
  end)


  it("lets go at once of a socket that is not ours", function()
    C.net_watch_set(watch, fd, IN)
    assert.equal(IN, seen())
    C.net_watch_set(watch, fd, 0)
    assert.equal(0, seen())
    assert.equal(0, C.net_watch_set(watch, fd, IN))
    assert.equal(IN, seen())
  end)


  it("knows nothing of a number that was closed and given again", function()
    for _, ours in ipairs { true, false, true } do
      if ours then
        C.net_watch_opened(watch, fd)
      end
      assert.equal(0, C.net_watch_set(watch, fd, IN))
      assert.equal(IN, seen())
      C.net_watch_set(watch, fd, 0)
      if ours then
        C.net_watch_closing(watch, fd)
      end
      os.close(fd)
      assert.equal(fd, os.eventfd(1, 0))
    end
    assert.equal(0, seen())
  end)


  it("takes any number", function()
    assert.equal(0, C.net_watch_set(watch, 5000, 0))
    assert.equal(-1, C.net_watch_set(watch, 5000, IN))
    C.net_watch_opened(watch, -1)
    C.net_watch_closing(watch, 9999)
  end)
end)
