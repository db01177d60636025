local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"

local C = c.lib
local NOBODY = 65534

c.cdef[[
struct net_bell;
struct net_ring {
  void (*retain)(void *user);
  void (*ring)(void *user);
  void (*release)(void *user);
};
int net_bell_new(struct net_bell **out, drover_err *err);
void net_bell_free(struct net_bell *b);
uint64_t net_bell_id(const struct net_bell *b);
int net_bell_add(struct net_bell *b, const struct net_ring *ring, void *user,
                 uint64_t *token, drover_err *err);
void *net_bell_drop(struct net_bell *b, uint64_t token);
void net_bell_take(struct net_bell *b);
int net_bell_send(int *fd, uint64_t id, uint64_t token);
]]
if not pcall(function() return ffi.C.setuid end) then
  ffi.cdef[[ int setuid(unsigned); int close(int); ]]
end

local heard                         -- what the callbacks saw, as one string

local function note(word)
  return function(user)
    heard = heard .. word .. tostring(ffi.cast("int *", user)[0]) .. " "
  end
end

local ring = ffi.new("struct net_ring", note "+", note "ring", note "-")


describe("a bell", function()
  local bell
  local fd = ffi.new("int[1]", -1)

  before_each(function()
    local out = ffi.new("struct net_bell *[1]")
    assert.equal(0, C.net_bell_new(out, router.err))
    bell, heard = out[0], ""
  end)

  after_each(function()
    C.net_bell_free(bell)
    if fd[0] >= 0 then
      ffi.C.close(fd[0])
      fd[0] = -1
    end
  end)

  local function add(user)
    local token = ffi.new("uint64_t[1]")
    assert.equal(0, C.net_bell_add(bell, ring, user, token, router.err))
    return token[0]
  end

  local function send(token, id)
    return C.net_bell_send(fd, id or C.net_bell_id(bell), token)
  end

  local function take()
    C.net_bell_take(bell)           -- calls back: not from compiled code
  end
  jit.off(take)

  it("rings whom the token names, held while it is rung", function()
    local one, two = ffi.new("int[1]", 1), ffi.new("int[1]", 2)
    local first, second = add(one), add(two)
    assert.equal(1, send(second))
    assert.equal(1, send(first))
    assert.equal(1, send(second))
    take()
    assert.equal("+2 ring2 -2 +1 ring1 -1 +2 ring2 -2 ", heard)
  end)

  it("rings nobody for a token that was dropped, or its place's next", function()
    local one, two = ffi.new("int[1]", 1), ffi.new("int[1]", 2)
    local first = add(one)
    assert.equal(ffi.cast("void *", one), C.net_bell_drop(bell, first))
    assert.is_true(C.net_bell_drop(bell, first) == nil)
    local second = add(two)
    assert.equal(first % 2 ^ 32, second % 2 ^ 32)       -- the same place
    send(first)
    send(0)
    send(2 ^ 40)
    take()
    assert.equal("", heard)
  end)

  it("has room for more than it began with", function()
    local users, tokens = {}, {}
    for i = 1, 100 do
      users[i] = ffi.new("int[1]", i)
      tokens[i] = add(users[i])
    end
    for _, i in ipairs { 1, 50, 100 } do
      send(tokens[i])
    end
    take()
    assert.equal("+1 ring1 -1 +50 ring50 -50 +100 ring100 -100 ", heard)
  end)

  it("says when nobody has the number, and waits for nothing", function()
    local token = add(ffi.new("int[1]", 1))
    assert.equal(0, send(token, 12345))
    local sent = 0
    repeat                          -- until its buffer is full
      sent = sent + 1
    until send(token) == 0 or sent > 1e5
    assert.is_true(sent > 1 and sent <= 1e5)
  end)

  it("does not hear processes of other users", function()
    local one = ffi.new("int[1]", 1)
    local token = add(one)
    if ffi.C.setuid(0) ~= 0 then
      return pending("only root can be somebody else")
    end
    local status = router.child(function()
      return ffi.C.setuid(NOBODY) == 0 and send(token) == 1 and 0 or 1
    end)
    assert.equal(0, status)
    take()
    assert.equal("", heard)
    send(token)
    take()
    assert.equal("+1 ring1 -1 ", heard)
  end)
end)
