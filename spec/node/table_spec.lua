local ffi = require "ffi"
local c = require "spec.support.c"
local router = require "spec.support.router"
local C = c.lib

c.cdef[[ uint64_t member_self(void); ]]

local text = ffi.new("drover_node_text")


local function read(r, row)
  assert.equal(0, C.drover_node_read(r, row, text))
  return ffi.string(text.id), ffi.string(text.url), ffi.string(text.spec)
end


-- A ticket on a row that stays open.
local function hold(r, row)
  local p = router.pick()
  C.drover_pick_begin(r, p, 1, 0)
  assert(C.drover_pick_claim(r, p, row, router.err) == 0)
  return p
end


describe("the table of nodes", function()
  local r

  before_each(function() r = assert(router.open{ nodes_max = 4 }) end)
  after_each(function() router.close(r) end)

  it("numbers rows from 1 and finds them by label", function()
    assert.equal(1, router.add(r, { id = "a" }))
    assert.equal(2, router.add(r, { id = "b" }))
    assert.equal(2, C.drover_node_count(r))
    assert.equal(2, C.drover_node_find(r, "b"))
    assert.equal(C.DROVER_ENOTFOUND, C.drover_node_find(r, "c"))
    assert.equal(C.DROVER_ENOTFOUND, C.drover_node_read(r, 3, text))
    assert.equal(C.DROVER_ENOTFOUND, C.drover_node_read(r, 0, text))
  end)

  it("keeps a node's texts", function()
    router.add(r, { id = "a", url = "http://x/v1", spec = '{"id":"a"}' })
    assert.same({ "a", "http://x/v1", '{"id":"a"}' }, { read(r, 1) })
  end)

  it("shows what the configuration says", function()
    router.add(r, { id = "a", capacity = 7, tier = 2, weight = 3,
                    price_input = 1.5, memory_gb = 40 })
    local row = C.drover_nodes(r)[1]
    assert.same({ 7, 2, 3, 1.5, 40 }, { row.capacity, row.tier, row.weight,
                                        row.price_input, row.memory_gb })
    assert.is_true(row.price_output ~= row.price_output)
    assert.equal(C.DROVER_UP, row.state)
  end)

  it("takes up the row of the same url and key, with what it knows", function()
    router.add(r, { id = "a", url = "http://x", key = "k" })
    router.hit(r, 1, 1, { first_token_ms = 77 })
    assert.equal(1, router.add(r, { id = "a", url = "http://x", key = "k",
                                    capacity = 3 }))
    assert.equal(77, C.drover_nodes(r)[1].first_token_ms)
    assert.equal(3, C.drover_nodes(r)[1].capacity)
    assert.equal(2, router.add(r, { id = "b", url = "http://x", key = "l" }))
  end)

  it("raises the version when the texts change, not else", function()
    router.add(r, { id = "a", spec = "{}" })
    read(r, 1)
    local version = text.version
    router.add(r, { id = "a", spec = "{}" })
    assert.equal(version, C.drover_nodes(r)[1].version)
    router.add(r, { id = "a", spec = "{ }" })
    assert.is_true(C.drover_nodes(r)[1].version > version)
    read(r, 1)
    assert.equal(C.drover_nodes(r)[1].version, text.version)
  end)

  it("refuses a label that another node has", function()
    router.add(r, { id = "a", url = "http://x" })
    local row, code, why = router.add(r, { id = "a", url = "http://y" })
    assert.is_nil(row)
    assert.equal(C.DROVER_EINVAL, code)
    assert.matches('"a" belongs to another node', why)
  end)

  for _, bad in ipairs{
    { "id", { id = "" } }, { "id", { id = ("x"):rep(64) } },
    { "id", { id = "a\n" } }, { "url", { id = "a", url = ("u"):rep(512) } },
    { "longer", { id = "a", spec = (" "):rep(4096) } },
    { "capacity", { id = "a", capacity = 0 } },
    { "weight", { id = "a", weight = -1 } },
    { "weight", { id = "a", weight = 0 / 0 } },
  } do
    it("refuses a bad " .. bad[1], function()
      local row, code, why = router.add(r, bad[2])
      assert.is_nil(row)
      assert.equal(C.DROVER_EINVAL, code)
      assert.matches(bad[1], why)
      assert.equal(0, C.drover_node_count(r))
    end)
  end

  it("is full when all rows are in use, and says so", function()
    for i = 1, 4 do
      router.add(r, { id = "n" .. i })
    end
    local row, code, why = router.add(r, { id = "n5" })
    assert.is_nil(row)
    assert.equal(C.DROVER_ERESOURCE, code)
    assert.matches("full: 4 nodes", why)
  end)

  it("takes no request for a removed node and gives its row away", function()
    router.add(r, { id = "a" })
    assert.equal(0, C.drover_node_remove(r, "a"))
    assert.equal(C.DROVER_REMOVED, C.drover_nodes(r)[1].state)
    assert.equal(C.DROVER_ENOTFOUND, C.drover_node_remove(r, "a"))
    local version = C.drover_nodes(r)[1].version
    assert.equal(1, router.add(r, { id = "b" }))
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[1].state)
    assert.is_true(C.drover_nodes(r)[1].version > version)
    assert.equal("b", (read(r, 1)))
  end)

  it("keeps a removed row while a request is in flight on it", function()
    router.add(r, { id = "a" })
    local p = hold(r, 1)
    C.drover_node_remove(r, "a")
    assert.equal(2, router.add(r, { id = "b" }))
    assert.equal("a", (read(r, 1)))
    assert.equal(0, C.drover_ticket_done(r, p, router.outcome(), 2))
    assert.equal(1, router.add(r, { id = "c" }))
  end)

  it("gives a removed node its row and state back", function()
    router.add(r, { id = "a" })
    router.hit(r, 1, 1, { first_token_ms = 77 })
    C.drover_node_remove(r, "a")
    assert.equal(1, router.add(r, { id = "a" }))
    assert.equal(77, C.drover_nodes(r)[1].first_token_ms)
    assert.equal(C.DROVER_UP, C.drover_nodes(r)[1].state)
  end)

  it("drains and fills again", function()
    router.add(r, { id = "a" })
    assert.equal(0, C.drover_node_drain(r, "a", 1))
    assert.equal(C.DROVER_DRAINING, C.drover_nodes(r)[1].state)
    assert.is_nil(router.turn(r, 1))
    C.drover_node_drain(r, "a", 0)
    assert.equal(1, router.turn(r, 1))
    assert.equal(C.DROVER_ENOTFOUND, C.drover_node_drain(r, "z", 1))
  end)

  it("is written by all processes and seen by all", function()
    assert.equal(1, router.child(function()
      return router.add(r, { id = "a" })
    end))
    assert.equal(1, C.drover_node_find(r, "a"))
    router.child(function() router.hit(r, 1, 1, { first_token_ms = 5 }) end)
    assert.equal(5, C.drover_nodes(r)[1].first_token_ms)
  end)

  it("takes its models at every moment of being added again", function()
    local models = {}
    for i = 1, 64 do
      models[i] = "m" .. i
    end
    local config, keep = router.node{ id = "a", models = models }
    local row = C.drover_node_add(r, config, 1, router.err)
    local pick = ffi.new("drover_pick", { model = C.drover_hash("m64", 3) })
    local pid, status = ffi.C.fork(), ffi.new("int[1]")
    if pid == 0 then
      for _ = 1, 5000 do
        C.drover_node_add(r, config, 1, router.err)
      end
      ffi.C._exit(0)
    end
    local refused, rounds = 0, 0
    repeat
      for _ = 1, 1000 do
        refused = refused + 1 - C.drover_pick_may(r, pick, row)
      end
      rounds = rounds + 1
    until ffi.C.waitpid(pid, status, 1) ~= 0 or rounds == 5000
    assert.equal(0, refused)
    assert.truthy(keep)
  end)

  it("forgives a writer that died holding a row", function()
    router.add(r, { id = "a" })
    local own = router.own(r, 1, 4)
    router.child(function() own.writer = C.member_self() end)
    assert.is_true(own.writer ~= 0)
    assert.equal(1, router.add(r, { id = "a", capacity = 9 }))
    assert.equal(9, C.drover_nodes(r)[1].capacity)
    assert.is_true(own.writer == 0)
  end)

  it("keeps one row when two rows came to hold one node", function()
    router.add(r, { id = "a" })
    router.add(r, { id = "b" })
    local first, second = router.own(r, 1, 4), router.own(r, 2, 4)
    second.identity = first.identity
    assert.equal(1, router.add(r, { id = "a" }))
    assert.equal(C.DROVER_REMOVED, C.drover_nodes(r)[2].state)
    assert.is_true(second.identity ~= first.identity)
  end)
end)


describe("a configuration's nodes", function()
  local r

  local function apply(generation, ids)
    if C.drover_router_apply_begin(r, generation) == 0 then
      return false
    end
    for _, id in ipairs(ids) do
      assert(router.add(r, { id = id, generation = generation }))
    end
    C.drover_router_apply_end(r, generation, router.settings(0), 1)
    return true
  end

  local function ids()
    local list = {}
    for i = 1, C.drover_node_count(r) do
      if C.drover_nodes(r)[i].state ~= C.DROVER_REMOVED then
        list[#list + 1] = read(r, i)
      end
    end
    return table.concat(list, " ")
  end

  before_each(function() r = assert(router.open()) end)
  after_each(function() router.close(r) end)

  it("are numbered by the zone", function()
    assert.equal(1, C.drover_router_generation(r))
    assert.equal(2, C.drover_router_generation(r))
  end)

  it("replace those of the one before, and leave those added by hand", function()
    assert.is_true(apply(1, { "a", "b" }))
    router.add(r, { id = "hand" })
    assert.is_true(apply(2, { "b", "c" }))
    assert.equal("b hand c", ids())
  end)

  it("are applied once, and never over a later one", function()
    apply(2, { "a" })
    assert.is_false(apply(2, { "b" }))
    assert.is_false(apply(1, { "b" }))
    local row, code = router.add(r, { id = "b", generation = 1 })
    assert.is_nil(row)
    assert.equal(C.DROVER_ECLOSED, code)
    assert.equal("a", ids())
  end)

  it("are finished by another process when the first died", function()
    router.child(function()
      C.drover_router_apply_begin(r, 1)
      router.add(r, { id = "a", generation = 1 })
    end)
    assert.is_true(apply(1, { "a", "b" }))
    assert.equal("a b", ids())
  end)

  it("end with one row each when two apply at once", function()
    assert.equal(1, C.drover_router_apply_begin(r, 1))
    router.child(function() apply(1, { "a", "b" }) end)
    router.add(r, { id = "a", generation = 1 })
    router.add(r, { id = "b", generation = 1 })
    C.drover_router_apply_end(r, 1, router.settings(0), 1)
    assert.equal("a b", ids())
  end)

  it("may change a node's key under its label", function()
    apply(1, { "a" })
    C.drover_router_apply_begin(r, 2)
    assert(router.add(r, { id = "a", key = "new", generation = 2 }))
    C.drover_router_apply_end(r, 2, router.settings(0), 1)
    assert.equal("a", ids())
    assert.equal(2, C.drover_node_find(r, "a"))
  end)

  it("set the limit of the router", function()
    apply(1, { "a" })
    C.drover_router_apply_begin(r, 2)
    router.add(r, { id = "a", generation = 2 })
    C.drover_router_apply_end(r, 2, router.settings(1), 1)
    local first, second = router.pick(), router.pick()
    assert.equal(0, C.drover_pick_node(r, first, 1, 0, router.err))
    assert.equal(C.DROVER_EOVERLOADED,
                 C.drover_pick_node(r, second, 1, 0, router.err))
    assert.matches("1 requests", ffi.string(router.err.text))
  end)
end)
