-- Rows 1, 5 to 9 and 13 of the fault matrix: what goes wrong before the
-- request is out, and on connections that are used again.
local ffi = require "ffi"
local c = require "spec.support.c"
local libc = require "drover.testing.libc"
local matrix = require "spec.support.matrix"
local nginx = require "spec.support.nginx"
local fault_server = require "spec.support.fault_server"

c.cdef[[int connect(int, const struct drover_test_address *, uint32_t);]]

local C = libc.C
local SOON = { connect = 0.1, first_token = 5, idle = 5, total = 20 }
local CLEAN = "env -u LD_PRELOAD "
local LIFE_S = 60


local function run(command)
  assert(os.execute(CLEAN .. command .. " >/dev/null 2>&1") == 0, command)
end


-- A url where nobody listens.
local function closed()
  local fd, port = libc.listen()
  libc.close(fd)
  return "http://127.0.0.1:" .. port .. "/v1"
end


-- A listener whose queue is full: the kernel drops further connections. Its
-- url, and the descriptors.
local function full()
  local fd, at = libc.bind("\127\0\0\1", 0)
  local size = ffi.new("uint32_t[1]", ffi.sizeof(at))
  assert(C.listen(fd, 0) == 0 and C.getsockname(fd, at, size) == 0)
  local held = { fd }
  for i = 1, 4 do
    held[i + 1] = C.socket(2, 0x80801, 0)       -- a stream that never blocks
    C.connect(held[i + 1], at, ffi.sizeof(at))
  end
  local port = math.floor(at.port / 256) + at.port % 256 * 256
  return "http://127.0.0.1:" .. port .. "/v1", held
end


-- ---- certificates ----

-- `openssl s_server`, which writes what it is sent into a file and answers
-- nothing, with a certificate of these names for `days` from now.
local function tls_server(folder, name, alt, days)
  local base = folder .. "/" .. name
  nginx.write(base .. ".ext", "subjectAltName=" .. alt .. "\n")
  run("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
      .. "-nodes -subj /CN=drover-spec -keyout " .. base .. ".key -out "
      .. base .. ".csr")
  run("openssl x509 -req -in " .. base .. ".csr -signkey " .. base
      .. ".key -days " .. days .. " -extfile " .. base .. ".ext -out " .. base
      .. ".pem")
  local self = { base = base, ca = base .. ".pem" }
  self.input = io.popen(CLEAN .. "sh -c 'echo $$ > " .. base
    .. ".pid; exec timeout " .. LIFE_S .. " openssl s_server -accept "
    .. "127.0.0.1:0 -cert " .. base .. ".pem -key " .. base .. ".key > " .. base
    .. ".out 2>&1'", "w")                      -- its input stays open
  local port = nginx.until_true(function()
    return nginx.read(base .. ".out"):match("ACCEPT [^\n]*:(%d+)\n")
  end)
  self.url = "https://127.0.0.1:" .. assert(port, "openssl s_server") .. "/v1"
  self.pid = tonumber(nginx.read(base .. ".pid"))
  return self
end


-- Did a byte of a request come through?
local function was_told(tls)
  return nginx.read(tls.base .. ".out"):find("canary-", 1, true) ~= nil
end


local tls = {}                  -- servers, by what is wrong with them


local function to(name)
  return function() return tls[name].url end
end


local function expect_silence(name)
  return function() assert.is_false(was_told(tls[name])) end
end


describe("before an answer begins,", function()
  local folder, held, full_url, shut

  setup(function()
    folder = nginx.folder()
    tls.own = tls_server(folder, "own", "IP:127.0.0.1", 2)
    tls.old = tls_server(folder, "old", "IP:127.0.0.1", -1)
    tls.other = tls_server(folder, "other", "DNS:elsewhere.example", 2)
    full_url, held = full()
    shut = fault_server.start{ "--quiet", "--shut" }
  end)

  teardown(function()
    matrix.stop()
    shut:stop()
    for _, one in pairs(tls) do
      os.execute("kill " .. one.pid)
      one.input:close()
    end
    for _, fd in ipairs(held) do
      libc.close(fd)
    end
  end)

  local function ca(name)
    return function() return tls[name].ca end
  end

  local function https(url)
    return function() return (url():gsub("^http:", "https:")) end
  end

  matrix.specs(it, {
    { row = 1, name = "refused", url = closed, class = "unsent",
      kind = "unreachable", phase = "connect", billed = false },
    { row = 5, name = "connect timeout", class = "unsent",
      url = function() return full_url end, timeout = SOON,
      kind = "timeout", phase = "connect", billed = false },
    { row = 6, name = "self-signed", url = to "own", class = "unsent",
      kind = "tls", phase = "connect", billed = false,
      check = expect_silence "own" },
    { row = 6, name = "expired", url = to "old", ca_file = ca "old",
      class = "unsent", kind = "tls", phase = "connect", billed = false,
      check = expect_silence "old" },
    { row = 6, name = "another host's", url = to "other",
      ca_file = ca "other", class = "unsent", kind = "tls",
      phase = "connect", billed = false, check = expect_silence "other" },
    { row = 7, name = "handshake stalls", class = "unsent", timeout = SOON,
      url = https(function() return matrix.url("ok") end),
      kind = "timeout", phase = "connect", billed = false },
    { row = 7, name = "handshake closes", class = "unsent",
      url = https(function() return shut.url .. "/v1" end),
      kind = "tls", phase = "connect", billed = false },
    { row = 13, fault = "ok", class = "good", way = "chat",
      request = { user = ("x"):rep(2 * 1024 * 1024) },
      check = function(result)
        local head = result.log.requests[1].head:lower()
        assert.is_nil(head:find("\nexpect:", 1, true))
        assert.is_true(result.log.requests[1].size > 2 * 1024 * 1024)
      end },
  })

  it("row 6: the same, trusted, hears the request", function()
    local row = { url = to "own", ca_file = ca "own",
                  timeout = { total = 1 }, retry = { attempts = 1 } }
    local result = matrix.with(row, 1, function(router)
      return matrix.ask(router, row, "chat")
    end)
    assert.equal("timeout", result.err.kind)
    assert.is_true(was_told(tls.own))
  end)

  -- Two requests over one connection, which the server has closed meanwhile.
  it("row 8: an idle connection that was closed costs nothing", function()
    for _, way in ipairs{ "chat", "stream" } do
      local row = { fault = "ok;shut" }
      matrix.with(row, 1, function(router)
        for i = 1, 3 do
          local result = matrix.ask(router, row, way)
          assert.is_nil(result.err)
          assert.equal(1, #result.ledger)
          assert.equal(i, matrix.server():log().bodies)
        end
        assert.equal(3, matrix.server():log().connections)
      end)
    end
  end)

  -- The first request is answered, the second is read and not answered.
  local function die(row, shape)
    return matrix.with(row, shape, function(router)
      assert.is_nil(matrix.ask(router, row, "chat").err)
      local result = matrix.ask(router, row, "chat")
      result.log = matrix.server():log()
      return result
    end)
  end

  for _, fault in ipairs{ "die", "die;rst" } do
    it("row 9: " .. fault .. " is never sent again unseen, one node", function()
      local result = die({ fault = fault }, 1)
      assert.equal("n1 reset, n1 ok", matrix.ledger(result.ledger))
      assert.is_true(result.ledger[1].maybe_billed)
      assert.equal(3, result.log.bodies)
    end)

    it("row 9: " .. fault .. " is never sent again unseen, one of three",
       function()
      local result = die({ fault = fault }, 2)
      assert.equal("n1 reset, n2 ok", matrix.ledger(result.ledger))
      assert.equal(3, result.log.bodies)
    end)

    it("row 9: " .. fault .. " is an error where that is wanted", function()
      local result = die({ fault = fault, retry = { ambiguous = "never" } }, 2)
      assert.equal("n1 reset", matrix.ledger(result.ledger))
      assert.equal("reset", result.err.kind)
      assert.is_true(result.err.maybe_billed)
      assert.equal(2, result.log.bodies)
    end)
  end
end)
