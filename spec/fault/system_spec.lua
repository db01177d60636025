-- Rows 2, 3, 4, 59, 60, 62, 63 and 70 to 75 of the fault matrix: what the system
-- does to us. What needs a process of its own is in system.lua.
local ffi = require "ffi"
local c = require "spec.support.c"
local child = require "spec.support.child"
local matrix = require "spec.support.matrix"
local nginx = require "spec.support.nginx"
local zone = require "spec.support.router"

c.cdef[[
void mem_fail_at(long nth, int on);
long mem_asked(void);
long mem_live(void);
]]

local C = c.lib
local SCRIPT = "spec/fault/system.lua"
local PORTS = "echo 40000 40004 > /proc/sys/net/ipv4/ip_local_port_range"


describe("a system that", function()
  teardown(matrix.stop)

  it("row 59: jumps its wall clock changes nothing", function()
    child.run(SCRIPT, "clock", { env = "FAULT_SYSTEM=clock LD_PRELOAD="
                                       .. child.interposer() })
  end)

  it("row 60: stops us ends all that is late at once", function()
    child.run(SCRIPT, "stop")
  end)

  it("row 70: has no descriptors is not the node's fault", function()
    child.run(SCRIPT, "descriptors")
  end)

  it("row 75: reads and writes a byte, or is interrupted, is not seen",
     function()
    child.run(SCRIPT, "short", { env = "FAULT_SYSTEM=short LD_PRELOAD="
                                       .. child.interposer() })
  end)
end)


-- In namespaces of user, network and mounts: /etc/hosts and resolv.conf are
-- ours there, and the ports few.
describe("a network that", function()
  local function mounted(file, text)
    local dir = nginx.folder()
    nginx.write(dir .. "/file", text)
    return "mount --bind " .. dir .. "/file /etc/" .. file
  end

  local resolv = mounted("resolv.conf",
    "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

  local rows = {
    { "row 2: knows no such name", "names_unknown", resolv },
    { "row 3: drops questions about names", "names_dropped", resolv },
    { "row 3: has no address for a name", "names_empty", resolv },
    { "row 3: answers for a name only once", "names_flap", resolv },
    { "row 4: has one of two addresses dead", "two_addresses",
      mounted("hosts", "127.0.0.9 two.test\n127.0.0.1 two.test\n") },
    { "row 71: has no ports left, chat", "ports_chat", PORTS },
    { "row 71: has no ports left, stream", "ports_stream", PORTS },
  }
  for _, row in ipairs(rows) do
    it(row[1], function()
      if not child.namespaces() then
        pending("no namespaces here (unshare -rnm)")
        return
      end
      child.run(SCRIPT, row[2], { before = row[3], unshare = true })
    end)
  end
end)


describe("memory that", function()
  teardown(matrix.stop)

  -- Every allocation of a whole request, failing once and from there on.
  for _, way in ipairs{ "chat", "stream" } do
    for on = 0, 1 do
      it(("row 72: runs out %s is an error or none at all, %s"):format(
         on == 0 and "once" or "for good", way), function()
        local row = { fault = "ok", retry = { attempts = 1 } }
        matrix.with(row, 1, function(router)
          assert.is_nil(matrix.ask(router, row, way).err)
          local nth, asked = 0
          local live = tonumber(C.mem_live())
          repeat
            nth = nth + 1
            C.mem_fail_at(nth, on)
            local e = matrix.ask(router, row, way).err
            asked = tonumber(C.mem_asked())
            C.mem_fail_at(0, 0)
            if e then
              assert.equal("resource", e.kind, tostring(e))
            end
            matrix.assert_settled(router)
            C.drover_node_clear(router.handle, "n1", C.drover_clock())
          until asked < nth
          assert.is_true(nth > 5)
          assert.is_nil(matrix.ask(router, row, way).err)
          assert.is_true(tonumber(C.mem_live()) <= live + 8)
        end)
      end)
    end
  end
end)


-- C never calls Lua: there is nothing to jump out of.
describe("the library's door", function()
  it("row 73: takes no function of Lua's", function()
    local text = require("drover.cdef").text:gsub("/%*.-%*/", "")
    assert.is_nil(text:find("%(%s*%*"))
    local casts = nginx.shell("grep -rlE 'ffi.cast\\(\"[^\"]*\\(\\*' lua")
    assert.equal("", casts)
  end)

  it("row 73: goes on where a policy of Lua's raises or has no memory",
     function()
    local row = { fault = "ok" }
    matrix.with(row, 3, function(router)
      local n = 0
      assert(router:policy(function(nodes)
        n = n + 1
        if n > 100 then
          error(n % 2 == 0 and "not enough memory" or { n })
        end
        return nodes.count > 0 and nodes.count or nil
      end))
      n = 101
      for _ = 1, 4 do
        assert.is_nil(matrix.ask(router, row, "chat").err)
      end
      assert.is_true(router:stats().policy_errors >= 4)
    end)
  end)
end)


describe("shared memory", function()
  -- Each store that a killed process may be cut off behind is walked by
  -- spec/kill; here: what such a process held comes back by itself.
  it("row 62: of a process that died in the middle is put right", function()
    local r = zone.with(2, { name = "fault.dead", shared = true,
                             node = { capacity = 3 } })
    local status = zone.child(function()
      local mine = assert(zone.open{ name = "fault.dead", shared = true,
                                     create = false })
      for i = 1, 4 do
        local p = zone.pick()
        assert(C.drover_pick_node(mine, p, 1, 0.5, zone.err) == 0)
        if i % 2 == 0 then
          C.drover_ticket_sent(mine, p)
        end
      end
      ffi.C.kill(ffi.C.getpid(), 9)
    end)
    assert.equal(-9, status)
    assert.equal(4, C.drover_inflight(r, 0))
    C.drover_tick(r, 2)
    C.drover_tick(r, 2.25)
    assert.equal(0, C.drover_inflight(r, 0))
    local text = zone.expose(r)
    local lost = 0
    for i = 1, 2 do
      lost = lost + (zone.series(text, 'drover_attempts_total{node="n' .. i
                                       .. '",kind="lost"}') or 0)
    end
    assert.equal(2, lost)
    zone.close(r)
  end)

  it("row 63: of another layout is refused, and a new one is made", function()
    c.cdef[[
      struct zone { uint64_t magic, stamp, size, id, salt, count, offset[12]; };
      int zone_find(struct zone **out, const char *name, uint64_t stamp,
                    int *maker, drover_err *err);
    ]]
    local r = zone.with(1, { name = "fault.layout", shared = true })
    local found = ffi.new("struct zone *[1]")
    local rc = C.zone_find(found, "fault.layout", 12345, ffi.new("int[1]"),
                           zone.err)
    assert.equal(C.DROVER_EFORMAT, rc)
    local _, code, why = zone.open{ name = "fault.layout", shared = true,
                                    create = false, members_max = 7 }
    assert.is_nil(code, why)          -- the same build: sizes are the zone's
    local other = zone.with(1, { name = "fault.layout2", shared = true })
    zone.close(other)
    zone.close(r)
  end)
end)


describe("a disk that is full", function()
  it("row 74: stops no request", function()
    local upstream = nginx.upstream("--gap 1")
    local server = nginx.serve(([[return { workers = 1, router = {
      nodes = { { id = "up", url = "%s/v1" } } } }]]):format(upstream.url),
      "--access-log", "/dev/full")
    local body = '{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    for i = 1, 20 do
      local status, text = nginx.post(server.url .. "/v1/chat/completions",
        i % 2 == 0 and body or body:gsub("}$", ',"stream":true}'))
      assert.equal(200, status, text)
    end
    assert.equal(20, nginx.metric(server.url, "drover_attempts_total"))
    server:stop()
    upstream:stop()
  end)
end)
