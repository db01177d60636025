-- Keys, prompts, replies and header values stay where they belong: after much
-- of the fault matrix, through nginx and through plain LuaJIT, they are in no
-- log, error, metric or shared memory; nobody else is connected to; and no
-- control character of a caller's becomes a line on the wire.
local ffi = require "ffi"
local child = require "spec.support.child"
local drover = require "drover"
local matrix = require "spec.support.matrix"
local nginx = require "spec.support.nginx"
local plan = require "spec.support.secrets"
local fault_server = require "spec.support.fault_server"

ffi.cdef[[ int setenv(const char *name, const char *value, int overwrite); ]]


-- A proxy of the environment, a netrc and a redirect's target: nobody comes.
local function decoys()
  local server = fault_server.start{ "--quiet" }
  local home = nginx.folder()
  nginx.write(home .. "/.netrc", "machine 127.0.0.1 login netrc-login "
              .. "password netrc-canary\n")
  os.execute("chmod 600 " .. home .. "/.netrc")
  local env = "HOME=" .. home
  for _, name in ipairs{ "http_proxy", "https_proxy", "all_proxy",
                         "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY" } do
    env = env .. " " .. name .. "=" .. server.url
  end
  return server, env
end


-- No canary in `text`, whose name is said where one is.
local function assert_clean(text, name, allowed)
  for word, canary in pairs(plan.CANARIES) do
    if not (allowed and allowed[word]) then
      local at = text:find(canary, 1, true)
      assert.is_nil(at, ("%s: the %s: …%s…"):format(name, word,
        text:sub(math.max(1, (at or 1) - 60), (at or 1) + 60)))
    end
  end
end


-- The shared mappings of another process, as bytes.
local function shared_memory(pid)
  local parts = {}
  for line in io.lines("/proc/" .. pid .. "/maps") do
    local from, to = line:match("^(%x+)%-(%x+) rw%-s ")
    if from then
      local memory = assert(io.open("/proc/" .. pid .. "/mem", "rb"))
      memory:seek("set", tonumber(from, 16))
      parts[#parts + 1] = memory:read(tonumber(to, 16) - tonumber(from, 16))
      memory:close()
    end
  end
  return table.concat(parts)
end


describe("a gateway under the fault matrix", function()
  local server, upstream, decoy, heads

  setup(function()
    local env
    upstream = fault_server.start{ "--quiet" }
    decoy, env = decoys()
    server = nginx.serve(plan.gateway(upstream.url, decoy.port),
                         "--access-log", nil, env)
    heads = plan.through_gateway(server.url)
  end)
  teardown(function()
    if server then server:stop() end
    if upstream then upstream:stop() end
    if decoy then decoy:stop() end
  end)

  it("has sent what it should, or there is nothing to see", function()
    local log = upstream:log()
    assert.is_true(log.bodies > #plan.FAULTS * 2)
    local key, prompt, header = 0, 0, 0
    for _, request in ipairs(log.requests) do
      key = key + (request.head:find(plan.CANARIES.key, 1, true) and 1 or 0)
      prompt = prompt + (request.body:find(plan.CANARIES.prompt, 1, true)
                         and 1 or 0)
      header = header + (request.head:find("netrc", 1, true) and 1 or 0)
      assert.is_nil(request.head:find(plan.CANARIES.tenant, 1, true))
    end
    assert.equal(log.bodies, key)
    assert.equal(log.bodies, prompt)
    assert.equal(0, header)
    assert.truthy(heads:find(plan.CANARIES.reply, 1, true))
  end)

  it("shows callers their replies and no keys or prompts", function()
    assert_clean(heads, "a reply", { reply = true })
  end)

  it("writes nothing of it into its logs", function()
    local text = nginx.shell("cat " .. server.dir .. "/out " .. server.dir
                             .. "/err; find " .. server.dir
                             .. " -type f -name '*.log' -exec cat {} +")
    assert.truthy(text:find("POST /v1/chat/completions", 1, true), text)
    assert_clean(text, "the logs")
  end)

  it("shows nothing of it in its metrics and nodes", function()
    for _, path in ipairs{ "/metrics", "/drover/nodes", "/v1/models",
                           "/health" } do
      local _, text, head = nginx.get(server.url .. path,
        "-H 'authorization: Bearer " .. plan.CANARIES.tenant .. "'")
      assert_clean(text .. head, path)
    end
  end)

  it("keeps nothing of it in shared memory", function()
    for _, pid in ipairs(server:workers()) do
      local text = shared_memory(pid)
      assert.truthy(text:find("n1", 1, true))       -- it is the zone
      assert.is_true(#text > 100000, #text)
      assert_clean(text, "shared memory")
    end
  end)

  it("connects to nobody else", function()
    assert.equal(0, decoy:totals().connections)
  end)
end)


describe("a plain program under the fault matrix", function()
  it("keeps and shows nothing of it, and connects to nobody else", function()
    local decoy, env = decoys()
    local text = child.run("spec/support/secrets_child.lua", "matrix",
                           { env = env .. " DECOY=" .. decoy.port .. " " })
    assert.equal(0, decoy:totals().connections)
    decoy:stop()
    assert.equal("status 0\n", text)            -- it prints nothing at all
  end)
end)


-- ---- control characters ----

local EVIL = { "\r", "\n", "\0", "\r\n", "\r\nx-evil: 1", "\nx-evil: 1\n",
               "\127" }


-- `word` with `evil` at each of its positions.
local function each_position(word)
  local list = {}
  for _, evil in ipairs(EVIL) do
    for at = 0, #word do
      list[#list + 1] = word:sub(1, at) .. evil .. word:sub(at + 1)
    end
  end
  return list
end


describe("CR, LF and NUL", function()
  teardown(matrix.stop)

  -- Nothing of what came is a line of its own, or a raw control character.
  local function assert_unbroken(log)
    for _, request in ipairs(log.requests) do
      assert.is_nil(request.head:lower():find("evil", 1, true), request.head)
      assert.is_nil(request.head:gsub("\r\n", ""):find("[%z\1-\31\127]"),
                    request.head)
      assert.equal(request.size, #request.body)
      assert.is_nil(request.body:find("[%z\1-\31]"), request.body)
      assert.matches("^POST /[%w/;=]+ HTTP/1.1\r\n", request.head)
    end
  end

  -- f(router, text) with each text; how many bodies came of it.
  local function try(word, f)
    local row = { fault = "ok" }
    return matrix.with(row, 1, function(router)
      for _, text in ipairs(each_position(word)) do
        pcall(f, router, text)
      end
      local log = matrix.server():log()
      assert_unbroken(log)
      return log.bodies
    end)
  end

  local function with(opts, fields)
    return function(router, text)
      local r = matrix.request()
      for name, value in pairs(fields and fields(text) or {}) do
        r[name] = value
      end
      assert(router:chat(r, opts and opts(text) or nil))
    end
  end

  it("in a header's value never reach the wire", function()
    assert.equal(0, try("value", with(function(text)
      return { headers = { ["x-mine"] = text } }
    end)))
  end)

  it("in a header's name never reach the wire", function()
    assert.equal(0, try("x-mine", with(function(text)
      return { headers = { [text] = "value" } }
    end)))
  end)

  local texts = {
    model = function(text) return { model = text } end,
    user = function(text) return { user = text } end,
    ["a field's name"] = function(text) return { [text] = 1 } end,
    content = function(text)
      return { messages = { { role = "user", content = text } } }
    end,
    role = function(text)
      return { messages = { { role = text, content = "x" } } }
    end,
    ["a name deep inside"] = function(text)
      return { metadata = { { [text] = { text } } } }
    end,
  }
  for name, fields in pairs(texts) do
    it("in " .. name .. " are escaped or refused", function()
      try("word", with(nil, fields))
    end)
  end

  it("in a tenant, a session or a node's name reach no wire", function()
    try("word", with(function(text) return { key = text } end))
    assert.equal(0, try("n1", with(function(text)
      return { node = text }
    end)))
  end)

  it("in a text of raw JSON are refused", function()
    try("word", function(router, text)
      assert(router:chat(drover.raw('{"model":"' .. text
        .. '","messages":[{"role":"user","content":"x"}]}')))
    end)
    try("word", function(router, text)
      assert(router:chat{ messages = drover.raw(
        '[{"role":"user","content":"' .. text .. '"}]') })
    end)
  end)

  -- A node's own texts: refused when the router is made.
  for field, word in pairs{ url = "http://127.0.0.1:1/v1", key = "sk-word",
                            id = "word" } do
    it("in a node's " .. field .. " are refused at configuration", function()
      for _, text in ipairs(each_position(word)) do
        local n = { url = "http://127.0.0.1:1/v1" }
        n[field] = text
        local ok, router = pcall(drover.new, { nodes = { n } })
        if ok and router then
          router:close()
        end
        assert.is_false(ok and router ~= nil, field .. ": " .. text)
      end
    end)
  end

  it("in what comes to the gateway never reach the upstream", function()
    local upstream = fault_server.start{ "--quiet" }
    local server = nginx.serve(([[return { workers = 1, router = {
      nodes = { { id = "up", url = "%s/f/ok/v1" } } } }]]):format(upstream.url))
    local dir = nginx.folder()
    for i, text in ipairs(each_position("m")) do
      local body = '{"model":"' .. text .. '","messages":[{"role":"user",'
                   .. '"content":"' .. text .. '"}]}'
      nginx.write(dir .. "/body", body)
      local status = nginx.post(server.url .. "/v1/chat/completions", body)
      assert.equal(text:find("[%z\1-\31]") and 400 or 200, status, i)
    end
    assert_unbroken(upstream:log())
    server:stop()
    upstream:stop()
  end)
end)
