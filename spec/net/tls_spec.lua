-- TLS of the transport: a certificate that is not trusted, or is another
-- host's, ends the call before a byte of the request is sent.
local caller = require "spec.support.caller"
local c = require "spec.support.c"

c.cdef[[void net_loop_stop(void);]]

local C = c.lib
local LIFE_S = 60
local CLEAN = "env -u LD_PRELOAD "


local function run(command)
  assert(os.execute(CLEAN .. command .. " >/dev/null 2>&1") == 0, command)
end


-- `openssl s_server -www` with a new certificate for `name`: it answers each
-- request with a page about the connection. Its port, pid and certificate.
local function start(folder, name)
  local base = folder .. "/" .. #name
  run("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=drover-spec "
      .. "-addext subjectAltName=" .. name .. " -keyout " .. base .. ".key -out "
      .. base .. ".pem")
  local pipe = io.popen("exec " .. CLEAN .. "sh -c 'echo $$; exec timeout " .. LIFE_S
                        .. " openssl s_server -www -accept 127.0.0.1:0 -cert "
                        .. base .. ".pem -key " .. base .. ".key 2>&1'")
  local server = { pipe = pipe, pid = pipe:read("*n"), ca = base .. ".pem" }
  repeat
    local line = assert(pipe:read("*l"), "openssl s_server has ended")
    server.port = line:match("^ACCEPT .*:(%d+)$")
  until server.port
  server.url = "https://127.0.0.1:" .. server.port .. "/"
  return server
end


describe("an https call", function()
  local folder, right, wrong, port

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    run("mkdir -m 700 " .. folder)
    right = start(folder, "IP:127.0.0.1,DNS:localhost")
    wrong = start(folder, "DNS:elsewhere.example")
    port = caller.new()
  end)

  teardown(function()
    port:free()
    C.net_loop_stop()
    for _, server in ipairs{ right, wrong } do
      os.execute("kill " .. server.pid)
      server.pipe:close()
    end
    run("rm -r " .. folder)
  end)

  local function expect_refused(url, opts)
    local got = port:call(url, opts)
    assert.equal("fail", got.last.type)
    assert.equal(C.DROVER_ETLS, got.last.code, got.last.data)
    assert.equal(C.DROVER_PHASE_CONNECT, got.last.phase)
    assert.is_false(got.last.billed)
    assert.is_nil(got.head)
  end

  it("goes through when the certificate is trusted", function()
    local got = port:call(right.url, { ca_file = right.ca, method = "GET" })
    assert.equal("end", got.last.type, got.last.data)
    assert.equal(200, got.head.status)
    assert.is_truthy(got.body.data:find("TLSv1.", 1, true))
  end)

  it("is refused by the system's bundle, also behind a trusted call", function()
    port:call(right.url, { ca_file = right.ca, method = "GET" })
    expect_refused(right.url)
    expect_refused(right.url, { ca_file = wrong.ca })
  end)

  it("is refused when the certificate is another host's", function()
    expect_refused(wrong.url, { ca_file = wrong.ca })
  end)

  it("is refused when the bundle cannot be read", function()
    expect_refused(right.url, { ca_file = folder .. "/none.pem" })
  end)

  it("goes through for each name in the certificate", function()
    local got = port:call(right.url:gsub("127.0.0.1", "localhost"),
                          { ca_file = right.ca, method = "GET" })
    assert.equal("end", got.last.type, got.last.data)
  end)
end)
