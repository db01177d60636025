-- base/process: zones by name, and what a fork changes.
local ffi = require "ffi"
local c = require "spec.support.c"

c.cdef[[
int process_pid(void);
int process_zone_add(const char *name, void *map, size_t size);
void *process_zone_find(const char *name, size_t *size, int *maker);
void process_zone_drop(void *map);
void *process_transport(void);
void process_transport_set(void *transport);
int getpid(void);
int fork(void);
int waitpid(int pid, int *status, int options);
void _exit(int status);
]]

local C = c.lib
local maps = ffi.new("char[64]")


-- What `check` says in a forked child, as true or false.
local function in_child(check)
  local pid = ffi.C.fork()
  if pid == 0 then
    local ok, right = pcall(check)
    ffi.C._exit(ok and right and 0 or 1)
  end
  local status = ffi.new("int[1]")
  assert.equal(pid, ffi.C.waitpid(pid, status, 0))
  return status[0] == 0
end


describe("process_pid()", function()
  it("is this process's, in a child the child's", function()
    assert.equal(ffi.C.getpid(), C.process_pid())
    assert.is_true(in_child(function()
      return C.process_pid() == ffi.C.getpid()
    end))
  end)
end)


describe("process_zone_find()", function()
  after_each(function()
    for i = 0, 63 do
      C.process_zone_drop(maps + i)
    end
  end)

  it("finds what was added, with its size and maker", function()
    assert.equal(0, C.process_zone_add("spec-a", maps, 10))
    assert.equal(0, C.process_zone_add("spec-b", maps + 1, 20))
    local size, maker = ffi.new("size_t[1]"), ffi.new("int[1]")
    assert.is_true(C.process_zone_find("spec-b", size, maker) == maps + 1)
    assert.equal(20, tonumber(size[0]))
    assert.equal(ffi.C.getpid(), maker[0])
    assert.is_true(C.process_zone_find("spec-a", nil, nil) == maps)
    assert.is_true(C.process_zone_find("spec", nil, nil) == nil)
  end)

  it("finds in a child what the parent made, and says who made it", function()
    C.process_zone_add("spec-a", maps, 10)
    local parent = ffi.C.getpid()
    assert.is_true(in_child(function()
      local maker = ffi.new("int[1]")
      return C.process_zone_find("spec-a", nil, maker) == maps
             and maker[0] == parent
    end))
  end)

  it("forgets what was dropped", function()
    C.process_zone_add("spec-a", maps, 10)
    C.process_zone_drop(maps)
    assert.is_true(C.process_zone_find("spec-a", nil, nil) == nil)
  end)

  it("refuses a name that is too long, and more than it has room for", function()
    assert.equal(C.DROVER_EINVAL, C.process_zone_add(("x"):rep(64), maps, 1))
    assert.equal(0, C.process_zone_add(("x"):rep(63), maps, 1))
    local rc
    for i = 1, 32 do
      rc = C.process_zone_add("spec-" .. i, maps + i, 1)
    end
    assert.equal(C.DROVER_ERESOURCE, rc)
  end)
end)


describe("process_transport()", function()
  after_each(function() C.process_transport_set(nil) end)

  it("is not the child's", function()
    C.process_transport_set(maps)
    assert.is_true(C.process_transport() == maps)
    assert.is_true(in_child(function()
      return C.process_transport() == nil
    end))
  end)
end)
