-- The gateway's configuration file: what it may say, and what it may not do.
local config = require "drover.gateway.config"

local NODES = "router = { nodes = { { url = 'http://127.0.0.1:1/v1' } } }"


local function read(fields)
  return config.parse("return { " .. fields .. " }", "gw.lua")
end


describe("gateway.config", function()
  it("listens on loopback and asks for 256 at once by default", function()
    local settings = assert(read(NODES))
    assert.equal("127.0.0.1:8000", settings.listen)
    assert.equal(256, settings.router.limits.concurrent)
    assert.is_nil(settings.workers)
  end)

  it("keeps a concurrency that the file names", function()
    local settings = assert(read(
      "router = { nodes = {}, limits = { concurrent = 7 } }"))
    assert.equal(7, settings.router.limits.concurrent)
  end)

  it("has one worker where a node is local", function()
    local settings = assert(read(
      "router = { nodes = { { url = 'local:a.gguf' } } }"))
    assert.equal(1, settings.workers)
  end)

  it("has one worker where the bundled model is the node", function()
    assert.equal(1, assert(read("router = {}")).workers)
    local settings, why = read("router = {}, workers = 2")
    assert.is_nil(settings)
    assert.matches("workers: must be 1", why)
  end)

  for given, wanted in pairs{
    ["'127.0.0.1:80'"] = "127.0.0.1:80", ["8000"] = "127.0.0.1:8000",
    ["':8000'"] = "0.0.0.0:8000", ["'[::1]:8000'"] = "[::1]:8000",
    ["'unix:/run/d.sock'"] = "unix:/run/d.sock",
  } do
    it("understands listen = " .. given, function()
      assert.equal(wanted, assert(read(NODES .. ", listen = " .. given)).listen)
    end)
  end

  local wrong = {
    { "listen = '1.2.3.4:99999'", "listen: " },
    { "listen = 'a b:80'", "listen: " },
    { "listen = '127.0.0.1:80; evil'", "listen: " },
    { "workers = 0", "workers: must be" },
    { "workers = 1.5", "workers: must be" },
    { "mode = 'proxy'", "mode: .*not built" },
    { "mode = 'x'", "mode: must be" },
    { "lisen = 1", "lisen: is no field" },
    { "keys = {}", "keys: must be a list" },
    { "keys = { 'secret' }", "keys%[1%]: must be a table" },
    { "keys = { { key = 'short' } }", "keys%[1%]%.key: must be" },
    { "keys = { { key = '12345678', nam = 'x' } }", "keys%[1%]%.nam: is no" },
    { "keys = { { key = '12345678', priority = 'high' } }",
      "keys%[1%]%.priority: must be one of interactive" },
    { "keys = { { key = { env = 'DROVER_NO_SUCH' } } }",
      "keys%[1%]%.key: " },
    { "keys = { { key = { path = 'x' } } }", "keys%[1%]%.key: " },
    { "keys = { { key = { file = '/dev/null' } } }", "keys%[1%]%.key: " },
    { "keys = { { key = '12345678', name = 'a', limits = 5 } }",
      "keys%[1%]%.limits: must be a table" },
    { "keys = { { key = '12345678', limits = {} } }",
      "keys%[1%]%.name: is missing" },
    { "keys = { { key = '12345678', name = 'a', limits = { rmp = 1 } } }",
      "keys%[1%]%.limits%.rmp: unknown field" },
    { "keys = { { key = '12345678', name = 'a', limits = { rpm = 1 } }, "
      .. "{ key = '87654321', name = 'a', limits = { rpm = 1 } } }",
      "keys%[2%]%.limits: a has limits already" },
    { "keys = { { key = '12345678' }, { key = '12345678' } }",
      "keys%[2%]%.key: is that of keys%[1%]" },
    { "max_body = 1", "max_body: must be" },
  }
  for _, row in ipairs(wrong) do
    it("names what is wrong with " .. row[1], function()
      local settings, why = read(NODES .. ", " .. row[1])
      assert.is_nil(settings)
      assert.matches("gw%.lua: " .. row[2], why)
    end)
  end

  it("makes a key's limits those of the tenant of its name", function()
    local settings = assert(read(
      "keys = { { key = '12345678', name = 'a', limits = { rpm = 9 } } }, "
      .. "router = { nodes = {}, limits = { per = { tenant = { tpm = 5, "
      .. "named = { b = { rpm = 2 } } } } } }"))
    local tenant = settings.router.limits.per.tenant
    assert.equal(9, tenant.named.a.rpm)
    assert.equal(2, tenant.named.b.rpm)
    assert.equal(5, tenant.tpm)
  end)

  it("reads a key from where it lies, and its caller's priority", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write("sesame-open-1\n")
    file:close()
    local settings = assert(read(("keys = { { key = { file = %q }, name = 'a', "
      .. "priority = 'batch' } }, "):format(path) .. NODES))
    os.remove(path)
    local ring = require("drover.gateway.keys").new(settings.keys)
    local caller = ring:find("Bearer sesame-open-1")
    assert.same({ "a", "batch" }, { caller.tenant, caller.priority })
  end)

  it("refuses several workers beside a local node", function()
    local settings, why = read(
      "workers = 2, router = { nodes = { { url = 'local:a.gguf' } } }")
    assert.is_nil(settings)
    assert.matches("workers: must be 1 while a node is `local:`", why)
  end)

  it("says which router is missing", function()
    local _, why = read("listen = 8000")
    assert.equal("gw.lua: router: is missing", why)
  end)

  it("gives the file no way to the system", function()
    for _, text in ipairs{ "os.exit(1)", "io.open('x')", "require 'os'",
                           "debug.getregistry()", "load('x')", "setfenv(1, {})",
                           "string.dump(function() end)", "ffi.C.getpid()" } do
      local settings, why = config.parse(text .. " return {}", "gw.lua")
      assert.is_nil(settings)
      assert.matches("gw%.lua", why)
    end
  end)

  it("stops a file that never ends", function()
    local settings, why = config.parse("while true do end", "gw.lua")
    assert.is_nil(settings)
    assert.equal("gw.lua: more than 1000000 instructions", why)
  end)

  it("cannot change our own libraries", function()
    config.parse("string.format = nil return {}", "gw.lua")
    assert.is_function(string.format)
  end)

  it("refuses bytecode", function()
    local settings = config.parse(string.dump(function() return {} end), "gw")
    assert.is_nil(settings)
  end)

  it("names a file that is not there", function()
    local settings, why = config.read("build/no-such-file.lua")
    assert.is_nil(settings)
    assert.matches("no%-such%-file", why)
  end)
end)
