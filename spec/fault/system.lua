-- What system_spec.lua runs in processes of their own: requests while the
-- system misbehaves. luajit spec/fault/system.lua NAME
local ffi = require "ffi"
local assert = require "luassert"
local child = require "spec.support.child"
local core = require "drover.core"
local drover = require "drover"
local fault_server = require "spec.support.fault_server"
local matrix = require "spec.support.matrix"

local WAYS = { "chat", "stream" }

local functions = {}


-- Good replies, both ways, in all shapes.
local function all_good(fault, seen)
  for shape = 1, 3 do
    for _, way in ipairs(WAYS) do
      matrix.prove({ row = 0, fault = fault or "ok", class = "good",
                     kind = "ok", seen = seen },
                   shape, way)
    end
  end
end


-- ---- 59, 75: under the interposer ----

function functions.short()
  all_good()
  all_good("ok;n=30", 30)
  matrix.prove({ row = 75, fault = "reset=100", class = "ambiguous",
                 kind = "reset" }, 2, "stream")
end


function functions.clock()
  local first, jumped = core.drover_clock_wall(), false
  for _ = 1, 20 do
    jumped = jumped or math.abs(core.drover_clock_wall() - first) > 1000
  end
  assert.is_true(jumped)
  all_good()
  local row = { row = 59, fault = "stall", class = "final", kind = "timeout",
                timeout = { total = 0.2 } }
  for _, way in ipairs(WAYS) do
    local result = matrix.run(row, 1, way)
    assert.equal("timeout", result.err.kind)
    assert.is_true(result.ledger[1].seconds > 0.15)
    assert.is_true(result.ledger[1].seconds < 10)
  end
  matrix.with({ fault = "status=429;ra=100" }, 1, function(router)
    matrix.ask(router, {}, "chat")
    local node = router:nodes()[1]
    assert.is_true(node.out_for > 90 and node.out_for < 101, node.out_for)
  end)
end


-- ---- 60: stopped for longer than all deadlines ----

function functions.stop()
  local row = { fault = "stall", timeout = { total = 0.4 } }
  matrix.with(row, 1, function(router)
    local tasks, kinds, sends = {}, {}, 0
    for i = 1, 20 do
      tasks[i] = drover.go(function()
        local result = matrix.ask(router, row, WAYS[i % 2 + 1])
        kinds[result.err.kind] = (kinds[result.err.kind] or 0) + 1
        sends = sends + #result.ledger
      end)
    end
    repeat
      drover.sleep(0.002)
    until matrix.server():totals().bodies == 20
    os.execute("(kill -STOP " .. ffi.C.getpid() .. "; sleep 0.6; kill -CONT "
               .. ffi.C.getpid() .. ") &")
    drover.wait(unpack(tasks))
    assert.same({ timeout = 20 }, kinds)
    assert.equal(20, sends)             -- one wave: no retry past a deadline
    assert.equal(20, matrix.server():totals().bodies)
  end)
end


-- ---- 70: no descriptors ----

ffi.cdef[[
struct spec_rlimit { uint64_t now, most; };
int setrlimit(int, const struct spec_rlimit *);
int getrlimit(int, struct spec_rlimit *);
int getpid(void);
int dup(int);
int close(int);
]]

local NOFILE = 7


-- f() while no descriptor can be opened.
local function without_descriptors(f)
  local old, few = ffi.new("struct spec_rlimit"), ffi.new("struct spec_rlimit")
  ffi.C.getrlimit(NOFILE, old)
  local top = ffi.C.dup(0)
  ffi.C.close(top)
  few.now, few.most = top, old.most
  assert(ffi.C.setrlimit(NOFILE, few) == 0)
  local ok, why = pcall(f)
  ffi.C.setrlimit(NOFILE, old)
  assert(ok, why)
end


-- The connection is closed after each answer, or it would be used again.
local CLOSE = "ok;shut;hex=" .. fault_server.hex("Connection: close\r\n")


function functions.descriptors()
  for _, way in ipairs(WAYS) do
    matrix.with({ fault = CLOSE }, 1, function(router)
      assert.is_nil(matrix.ask(router, {}, way).err)
      without_descriptors(function()
        for _ = 1, 6 do
          local e = matrix.ask(router, {}, way).err
          assert.equal("resource", e.kind, tostring(e))
          assert.is_false(e.maybe_billed)
        end
      end)
      local node = router:nodes()[1]
      assert.equal("up", node.state)      -- it was not the node's fault
      assert.equal(0, node.fails)
      assert.is_nil(matrix.ask(router, {}, way).err)
      assert.equal(2, matrix.server():totals().bodies)
    end)
  end
end


-- ---- in a network of its own ----

-- Six at once where five ports are, of which the server has one.
local function ports(way)
  child.loopback_up()
  matrix.with({ fault = "ok;delay=200" }, 1, function(router)
    local kinds, tasks = { ok = 0, resource = 0 }, {}
    for i = 1, 6 do
      tasks[i] = drover.go(function()
        local e = matrix.ask(router, {}, way).err
        local kind = e and e.kind or "ok"
        kinds[kind] = (kinds[kind] or 0) + 1
      end)
    end
    drover.wait(unpack(tasks))
    assert.equal(6, kinds.ok + kinds.resource)
    assert.is_true(kinds.ok > 0 and kinds.resource > 1)
    local node = router:nodes()[1]
    assert.equal("up", node.state)
    assert.equal(0, node.fails)
    assert.is_nil(matrix.ask(router, {}, way).err)
  end)
end


function functions.ports_chat() ports "chat" end
function functions.ports_stream() ports "stream" end


-- two.test is 127.0.0.9, where nobody listens, and 127.0.0.1.
function functions.two_addresses()
  child.loopback_up()
  for shape = 1, 3 do
    for _, way in ipairs(WAYS) do
      local row = { row = 4, class = "good", kind = "ok", url = function()
        return (matrix.url("ok"):gsub("127.0.0.1", "two.test"))
      end }
      row.reads = { state = "up", fails = 0 }
      matrix.prove(row, shape, way)
    end
  end
end


-- Names through a server that drops, or gives no address. (The resolver's
-- thread lives on for a second: few shapes.)
local function no_name(kind)
  local row = { row = 3, class = "unsent", kind = kind, phase = "connect",
                billed = false, url = "http://node.test:1/v1",
                timeout = { connect = 0.1, total = 20 } }
  matrix.prove(row, 1, "chat")
  matrix.prove(row, 2, "stream")
end


-- Row 2, in all shapes: the answer comes at once.
function functions.names_unknown()
  child.loopback_up()
  local dns = child.dns("nx")
  for shape = 1, 3 do
    for _, way in ipairs(WAYS) do
      matrix.prove({ row = 2, class = "unsent", kind = "unreachable",
        phase = "connect", billed = false, url = "http://node.test:1/v1" },
        shape, way)
    end
  end
  dns:stop()
end


function functions.names_dropped()
  child.loopback_up()
  local dns = child.dns("drop")
  no_name("timeout")
  dns:stop()
end


function functions.names_empty()
  child.loopback_up()
  local dns = child.dns("empty")
  no_name("unreachable")
  dns:stop()
end


-- The first question is answered, later ones are not: the address that was
-- good is kept while it is known.
function functions.names_flap()
  child.loopback_up()
  local dns = child.dns("once")
  local row = { url = function()
    return (matrix.url("ok;shut"):gsub("127.0.0.1", "node.test"))
  end, timeout = { connect = 2, total = 5 } }
  matrix.with(row, 1, function(router)
    for _ = 1, 5 do
      local result = matrix.ask(router, row, "chat")
      assert.is_nil(result.err, tostring(result.err))
    end
    assert.equal(5, matrix.server():totals().bodies)
  end)
  dns:stop()
end


child.main(functions)
